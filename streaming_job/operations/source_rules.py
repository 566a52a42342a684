"""The bridge's rules as operations on the source need them: from the same files, keyed by the same secret."""

import json
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory

from botocore.exceptions import BotoCoreError, ClientError

from bridge_lambda.rules import HashKey, TableRules, load_rules
from config.errors import ConfigurationError
from config.rules import compile_rules
from config.settings import Settings
from streaming_job.aws import client


def source_rules(settings: Settings, table: str) -> TableRules:
    return rules_of(settings, (table,))[table]


def rules_of(settings: Settings, tables: Collection[str]) -> dict[str, TableRules]:
    """As the bridge itself would load them. Of no other table: its secret may be one that this role must not read."""

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
        compiled.write_text(json.dumps(compile_rules(settings.tables_dir, tables)), encoding="utf-8")
        return load_rules(compiled, read_secret)
