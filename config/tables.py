"""What a table's rules file (`config/tables/<table>.yaml`) may say, checked before anything starts.

One file a table serves both sides: `bridge` is compiled to JSON for the Lambda, which carries no pydantic;
`lake` is read by the streaming job. A word that is not known is refused with its place in the file.
"""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from config.errors import ConfigurationError

AttributePath = Annotated[str, StringConstraints(min_length=1)]
"""Dotted path to an attribute of an item, `user.id`; a dot inside a name is written `\\.`."""

KeyType = Literal["S", "N", "B"]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KeyAttribute(Frozen):
    name: str
    type: KeyType = "S"


class OriginRule(Frozen):
    """Where an item carries its producer's own clock."""

    attribute: AttributePath
    unit: Literal["ms", "s"] = "ms"


class FilterRule(Frozen):
    """Items stay when the attribute's value is one of `equals`; the others never leave the bridge."""

    attribute: AttributePath
    equals: tuple[str | int | bool, ...] = Field(min_length=1)


class BridgeRules(Frozen):
    drop: tuple[AttributePath, ...] = ()
    hash: tuple[AttributePath, ...] = ()
    hash_secret: str | None = None
    keep_old_image: bool = True
    filter: FilterRule | None = None
    ttl_attribute: AttributePath | None = None
    origin: OriginRule | None = None


class DeleteRule(Frozen):
    """What a REMOVE does to its row. `soft` leaves a tombstone, `hard` purges it `window_h` after its commit,
    `ignore` keeps the row and marks it. A REMOVE because the item left the filter is never ignored."""

    policy: Literal["soft", "hard", "ignore"] = "soft"
    window_h: int = Field(default=168, ge=1)


class LakeRules(Frozen):
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,120}$")]
    engine: Literal["rust", "spark"] = "rust"
    deletes: DeleteRule = DeleteRule()
    expiries: DeleteRule | None = None
    """Expiries by TTL; None: as `deletes`."""
    change_data_feed: bool = False


class TableConfig(Frozen):
    table: str
    version: int = Field(ge=1)
    key: tuple[KeyAttribute, ...] = Field(min_length=1, max_length=2)
    bridge: BridgeRules = BridgeRules()
    lake: LakeRules


def load_table(path: Path) -> TableConfig:
    try:
        return TableConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {path}: {error.strerror}", hint="name a file under config/tables/"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ConfigurationError.of_validation(path, error) from error


def load_tables(directory: Path) -> dict[str, TableConfig]:
    """Every table's rules by the source table's name; two files for one table are refused."""
    tables: dict[str, TableConfig] = {}
    for path in sorted(directory.glob("*.yaml")):
        table = load_table(path)
        if table.table in tables:
            raise ConfigurationError(f"{path} names table {table.table!r} a second time", hint="one rules file a table")
        tables[table.table] = table
    return tables
