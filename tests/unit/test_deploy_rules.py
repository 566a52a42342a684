"""A table's rules against the stack that it would get: what cannot work is refused before anything is made."""

import pytest
from templates import TEMPLATE

from config.rules import TABLES
from config.tables import BridgeRules, KeyAttribute, LakeRules, TableConfig, load_tables
from infra.deploy import DeploySettings, judged
from infra.template_model import Template
from infra.template_values import Values
from infra.validate import NotDeployableError, check_rules

SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:cars/key-AbCdEf"
PLAIN = BridgeRules()
HASHING = BridgeRules(hash=("user",), hash_secret="cars/key")


def table(bridge: BridgeRules = PLAIN, *key: KeyAttribute) -> TableConfig:
    key = key or (KeyAttribute(name="event_id"),)
    return TableConfig(table="cars", version=1, key=key, bridge=bridge, lake=LakeRules(name="cars"))


def planned(**parameters: str) -> Values:
    settings = DeploySettings(region="us-east-1", stack="s", parameters={"TableName": "cars", **parameters})
    return judged(settings, Template.load(TEMPLATE))


def refusal(values: Values, rules: TableConfig) -> NotDeployableError:
    with pytest.raises(NotDeployableError) as refused:
        check_rules(values, {rules.table: rules})
    assert refused.value.exit_code == 2
    assert refused.value.hint
    return refused.value


def test_a_stack_with_the_defaults_suits_the_table_they_are_made_for() -> None:
    check_rules(planned(TableName="chargeminder-car-telemetry"), load_tables(TABLES))


def test_rules_that_hash_are_refused_where_the_bridge_could_not_read_their_secret() -> None:
    assert "HashSecretArn is empty" in refusal(planned(), table(HASHING)).what
    check_rules(planned(HashSecretArn=SECRET), {"cars": table(HASHING)})


BY_NUMBER = KeyAttribute(name="id", type="N")
RANGE = KeyAttribute(name="at", type="N")
STREAM = "arn:aws:dynamodb:us-east-1:123456789012:table/cars/stream/2026-01-01T00:00:00.000"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ((BY_NUMBER,), "TableKeyName id, TableKeyType N"),
        ((KeyAttribute(name="event_id", type="B"),), "TableKeyName event_id, TableKeyType B"),
        ((KeyAttribute(name="event_id"), RANGE), "ExistingTableStreamArn"),
    ],
)
def test_a_table_with_another_key_than_its_rules_say_is_not_made(key: tuple[KeyAttribute, ...], hint: str) -> None:
    """Every change of it would be a dead letter."""
    refused = refusal(planned(), table(PLAIN, *key))
    assert "its rules say" in refused.what
    assert hint in refused.hint


def test_a_table_is_made_by_the_key_of_its_rules_and_one_there_is_has_its_own() -> None:
    check_rules(planned(TableKeyName="id", TableKeyType="N"), {"cars": table(PLAIN, BY_NUMBER)})
    check_rules(planned(ExistingTableStreamArn=STREAM), {"cars": table(PLAIN, BY_NUMBER, RANGE)})
