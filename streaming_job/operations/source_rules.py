"""The bridge's rules as operations on the source need them: from the same files, keyed by the same secret."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from botocore.exceptions import BotoCoreError, ClientError

from bridge_lambda.rules import HashKey, TableRules, load_rules
from config.errors import ConfigurationError
from config.rules import compile_rules
from config.settings import Settings
from streaming_job.aws import client


def source_rules(settings: Settings, table: str) -> TableRules:
    return all_rules(settings)[table]


def all_rules(settings: Settings) -> dict[str, TableRules]:
    """Of every table that has a file, as the bridge itself would load them."""

    def read_secret(name: str, version: str | None) -> HashKey:
        secrets = client(settings.aws, "secretsmanager")
        try:
            answer = secrets.get_secret_value(SecretId=name, **({"VersionId": version} if version else {}))
        except (ClientError, BotoCoreError) as error:
            raise ConfigurationError(
                f"cannot read secret {name}, which the tables' rules hash with: {type(error).__name__}",
                hint="this role needs secretsmanager:GetSecretValue on it: without the key nothing can be hashed alike",
            ) from None
        secret = answer.get("SecretBinary") or answer["SecretString"].encode()
        return HashKey(answer["VersionId"], secret)

    with TemporaryDirectory(prefix="lakestream-rules-") as folder:
        compiled = Path(folder) / "rules.json"
        compiled.write_text(json.dumps(compile_rules(settings.tables_dir)), encoding="utf-8")
        return load_rules(compiled, read_secret)
