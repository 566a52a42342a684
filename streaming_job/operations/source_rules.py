"""The bridge's rules as operations on the source need them: from the same files, keyed by the same secret."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from bridge_lambda.rules import HashKey, TableRules, load_rules
from config.errors import ConfigurationError
from config.rules import compile_rules
from config.settings import Settings


def source_rules(settings: Settings, table: str) -> TableRules:
    def read_secret(name: str, version: str | None) -> HashKey:
        client = boto3.client("secretsmanager", region_name=settings.aws.region, endpoint_url=settings.aws.endpoint)
        try:
            answer = client.get_secret_value(SecretId=name, **({"VersionId": version} if version else {}))
        except (ClientError, BotoCoreError) as error:
            raise ConfigurationError(
                f"cannot read secret {name}, by which {table} hashes: {type(error).__name__}",
                hint="this role needs secretsmanager:GetSecretValue on it: digests can't be compared without the key",
            ) from None
        secret = answer.get("SecretBinary") or answer["SecretString"].encode()
        return HashKey(answer["VersionId"], secret)

    with TemporaryDirectory(prefix="lakestream-rules-") as folder:
        compiled = Path(folder) / "rules.json"
        compiled.write_text(json.dumps(compile_rules(settings.tables_dir)), encoding="utf-8")
        return load_rules(compiled, read_secret)[table]
