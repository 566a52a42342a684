"""Operations read the rules of the tables that they are asked for, and no other's secret."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.errors import ConfigurationError
from config.settings import AwsSettings, LakeSettings, Settings, SourceSettings
from streaming_job.operations.source_rules import rules_of, source_rules


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Two tables, of which one hashes, and an endpoint where nobody answers: a secret that is asked for is an error."""
    _rules(tmp_path, "plain", {})
    _rules(tmp_path, "hashing", {"hash": ["user"], "hash_secret": "somebody/elses"})
    return Settings(
        aws=AwsSettings(region="us-east-1", endpoint="http://127.0.0.1:1"),
        source=SourceSettings(stream="changes"),
        lake=LakeSettings(root=str(tmp_path / "lake"), checkpoint=str(tmp_path / "checkpoint")),
        tables=("plain", "hashing"),
        tables_dir=tmp_path,
    )


def _rules(folder: Path, table: str, bridge: dict[str, Any]) -> None:
    content = {"table": table, "version": 1, "key": [{"name": "id"}], "bridge": bridge, "lake": {"name": table}}
    (folder / f"{table}.yaml").write_text(yaml.safe_dump(content))
    item = {"id": {"S": "1"}, "user": {"S": "u"}}
    (folder / f"{table}.sample.json").write_text(json.dumps({"Items": [item]}))


def test_a_table_that_does_not_hash_needs_nobodys_secret(settings: Settings) -> None:
    assert source_rules(settings, "plain").hash_key is None
    assert rules_of(settings, ("plain",)).keys() == {"plain"}


def test_a_secret_that_cannot_be_read_is_named(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="cannot read secret somebody/elses"):
        source_rules(settings, "hashing")


def test_a_table_without_a_rules_file_is_named(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match=r"no rules for table other in .*there are for hashing, plain"):
        source_rules(settings, "other")
