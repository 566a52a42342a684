"""What a table's rules file (`config/tables/<table>.yaml`) may say, checked before anything starts.

One file a table serves both sides: `bridge` is compiled to JSON for the Lambda, which carries no pydantic;
`lake` is read by the streaming job. A word that is not known is refused with its place in the file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from config.errors import ConfigurationError
from config.time_formats import time_format
from config.yaml_files import load_model


def split_path(path: str) -> tuple[str, ...]:
    r"""`a.b\.c` is `a`, then `b.c`."""
    names = [name.replace("\0", ".") for name in path.replace("\\.", "\0").split(".")]
    if not all(names):
        raise ValueError(f"{path!r} holds an empty name")
    return tuple(names)


def _whole(path: str) -> str:
    split_path(path)
    return path


AttributePath = Annotated[str, AfterValidator(_whole)]
"""Dotted path to an attribute of an item, `user.id`; a dot inside a name is written `\\.`."""

KeyType = Literal["S", "N", "B"]


class Frozen(BaseModel):
    # What a file holds is not repeated by the error that refuses it: it may be a secret in the wrong place.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def join_path(names: tuple[str, ...]) -> str:
    return ".".join(name.replace(".", "\\.") for name in names)


def overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether one path is the other or leads to it."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


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
    """What may leave the source. Paths pass through lists: `signals.body` is the `body` of every signal."""

    drop: tuple[AttributePath, ...] = ()
    hash: tuple[AttributePath, ...] = ()
    hash_secret: str | None = None
    """Name of the secret that holds the key of the hashes; `hash_secret_version` pins one of its versions, so that
    hashes change when the rules do and not in between.
    """
    hash_secret_version: str | None = None
    keep_old_image: bool = True
    filter: FilterRule | None = None
    ttl_attribute: AttributePath | None = None
    origin: OriginRule | None = None

    @model_validator(mode="after")
    def consistent(self) -> "BridgeRules":
        if bool(self.hash) != bool(self.hash_secret):
            raise ValueError("hash and hash_secret go together")
        if self.hash_secret_version and not self.hash_secret:
            raise ValueError("hash_secret_version goes with hash_secret")
        removed = [split_path(path) for path in (*self.drop, *self.hash)]
        for path in removed:
            if any(path[: len(other)] == other for other in removed if other is not path):
                raise ValueError(f"{join_path(path)} is dropped or hashed twice")
        if self.origin and any(overlap(split_path(self.origin.attribute), path) for path in removed):
            raise ValueError("origin would let out a time that the rules drop or hash")
        return self


class TimeZoneRule(Frozen):
    """The zone of times written without one: an attribute of the item that holds an IANA name, or a fixed zone.
    With `attribute`, `zone` stands in where an item lacks it; without both a time cannot be placed and is rescued.
    """

    attribute: AttributePath | None = None
    zone: str | None = None

    @field_validator("zone")
    @classmethod
    def known_zone(cls, zone: str | None) -> str | None:
        if zone is not None and zone not in available_timezones():
            raise ValueError(f"{zone!r} is no IANA time zone")
        return zone

    @model_validator(mode="after")
    def either(self) -> "TimeZoneRule":
        if self.attribute is None and self.zone is None:
            raise ValueError("give attribute, zone, or both")
        return self


ColumnType = Annotated[
    str,
    StringConstraints(
        pattern=r"^(string|boolean|double|bigint|decimal\((?:[1-9]|[12][0-9]|3[0-8]),(?:[0-9]|[12][0-9]|3[0-8])\)|timestamp|date|binary|json)$"
    ),
]
"""`json`: whatever is there, as JSON text."""


class ColumnRule(Frozen):
    """A declared column. A `timestamp` or `date` is read from ISO 8601 text, from text in Java's `format`, or, with
    `unit`, from a number since 1970.
    """

    type: ColumnType
    unit: Literal["s", "ms", "us"] | None = None
    format: str | None = None

    @model_validator(mode="before")
    @classmethod
    def from_word(cls, value: object) -> object:
        """`year: bigint` for `year: {type: bigint}`; spaces inside a type do not matter."""
        rule = {"type": value} if isinstance(value, str) else value
        if isinstance(rule, dict) and isinstance(rule.get("type"), str):
            return {**rule, "type": rule["type"].replace(" ", "").lower()}
        return rule

    @model_validator(mode="after")
    def sensible(self) -> "ColumnRule":
        if self.unit is not None and self.type != "timestamp":
            raise ValueError("unit goes with timestamp")
        if self.format is not None and (self.type not in ("timestamp", "date") or self.unit is not None):
            raise ValueError("format goes with timestamp or date, and not with unit")
        if self.format is not None:
            time_format(self.format)
        if self.type.startswith("decimal"):
            precision, scale = map(int, self.type[8:-1].split(","))
            if scale > precision:
                raise ValueError(f"{self.type} has more decimals than digits")
        return self


class PivotRule(Frozen):
    """A list of maps that names its own columns: each element's `value` under the name made from its other fields.
    A value with the single field `unwrap` is that field's value; one with several becomes a column a field.
    """

    list: AttributePath
    name: Annotated[str, StringConstraints(pattern=r"\{[^{}]+\}")]
    value: Annotated[str, StringConstraints(min_length=1)]
    unwrap: str | None = "value"
    embedded: bool = False
    """The value is a string that holds JSON."""
    fields: tuple[str, ...] = ()
    """Other fields of an element to flatten beside its value; those not named here stay in `history` only."""


class FlattenRules(Frozen):
    """How an item becomes columns. Without a rule a map becomes a column a field, a list JSON text."""

    pivot: tuple[PivotRule, ...] = ()
    index: tuple[AttributePath, ...] = ()
    """Lists that become a column an element."""
    embedded: tuple[AttributePath, ...] = ()
    """Strings that hold JSON, flattened as if it stood in their place."""
    json_: tuple[AttributePath, ...] = Field(default=(), alias="json")
    """Maps and lists kept whole, as JSON text."""
    depth_max: int = Field(default=4, ge=1, le=16)
    """What is nested deeper becomes JSON text."""
    columns_max: int = Field(default=1000, ge=1, le=5000)
    """No column is added beyond; further values go to `_rescued`."""


class DeleteRule(Frozen):
    """What a REMOVE does to its row. `soft` leaves a tombstone, `hard` purges it `window_h` after its commit,
    `ignore` keeps the row and marks it. A REMOVE because the item left the filter is never ignored.
    """

    policy: Literal["soft", "hard", "ignore"] = "soft"
    window_h: int = Field(default=168, ge=1)


class StreamRule(Frozen):
    """Where one of the table's streams stands in the order of its changes, which its label does not tell.

    A stream that took over from another - of a replica, and back - counts from `since` on as made then: a moment after
    the last write to the one before it and before the first write to this one. Without `since` it keeps its label's
    place: an old stream whose changes come late.
    """

    label: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}$")]
    """As it ends the stream's ARN."""
    since: AwareDatetime | None = None


SHARED_TABLES: Final = ("rejects", "parked", "refused", "schema_changes", "latency", "rebuild_parked")
"""What all source tables write to, beside the lake tables of each."""


class LakeRules(Frozen):
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,120}$")]
    engine: Literal["rust", "spark"] = "rust"
    deletes: DeleteRule = DeleteRule()
    expiries: DeleteRule | None = None
    """Expiries by TTL; None: as `deletes`."""
    change_data_feed: bool = False
    strict: bool = False
    """A change with a value that does not fit its column is rejected instead of rescued."""
    time_zone: TimeZoneRule = TimeZoneRule(zone="UTC")
    columns: dict[AttributePath, ColumnRule] = Field(default_factory=dict)
    """Declared columns by path; all others are learnt from the first value seen."""
    flatten: FlattenRules = FlattenRules()
    streams: tuple[StreamRule, ...] = ()
    """Needed only where a stream that was made earlier took over from a later one; entries are added, never changed."""

    @field_validator("name")
    @classmethod
    def not_in_the_folder_of_another(cls, name: str) -> str:
        """A vacuum takes what is none of its table's."""
        if name.lower() in SHARED_TABLES:
            raise ValueError(f"{name} is a table that all source tables share")
        return name

    @field_validator("streams")
    @classmethod
    def at_moments_of_their_own(cls, streams: tuple[StreamRule, ...]) -> tuple[StreamRule, ...]:
        moments = [stream.since for stream in streams if stream.since is not None]
        if len(set(moments)) < len(moments):
            raise ValueError("two streams take over at the same moment")
        return streams


class PullRules(Frozen):
    """For a table without a stream: a global index with a tenant as partition key and, as sort key, what every write
    of an item moves on - the time of the write, or a counter.
    """

    index: Annotated[str, StringConstraints(min_length=3)]
    version: Literal["s", "ms", "us", "ns", "iso", "count"]
    """The sort key's unit: times since 1970, an ISO time in UTC, or a counter."""
    overlap: int = Field(default=300, ge=0)
    """How far behind the newest version seen each pass reads again, in seconds, or in counts: what was written late or
    by a clock that is slow is found within it.
    """
    tenants: tuple[str | int, ...] = ()
    """None listed: they are discovered by a Scan of the index. A tenant that is not known yet is not read."""
    discover_every_s: int = Field(default=3_600, ge=1)


_KEY_COLUMNS: Final[Mapping[KeyType, str]] = {
    "S": "string",
    "B": "binary",
    "N": "bigint, decimal, double, or timestamp with a unit",
}


def _may_hold_key(rule: ColumnRule, key_type: KeyType) -> bool:
    if key_type == "N":
        return rule.type in ("bigint", "double") or rule.type.startswith("decimal") or rule.unit is not None
    return rule.type == _KEY_COLUMNS[key_type]


class TableConfig(Frozen):
    table: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.-]{1,255}$")]
    """As DynamoDB lets tables be named."""
    version: int = Field(ge=1)
    key: tuple[KeyAttribute, ...] = Field(min_length=1, max_length=2)
    bridge: BridgeRules = BridgeRules()
    lake: LakeRules
    pull: PullRules | None = None

    @model_validator(mode="after")
    def keys_fit_their_columns(self) -> "TableConfig":
        """A key that its column did not take would be no change at all."""
        types = {attribute.name: attribute.type for attribute in self.key}
        for path, rule in self.lake.columns.items():
            name, *below = split_path(path)
            if name in types and not below and not _may_hold_key(rule, types[name]):
                held_as = _KEY_COLUMNS[types[name]]
                raise ValueError(f"lake.columns.{path}: a key's attribute of type {types[name]} becomes {held_as}")
        return self


def load_table(path: Path) -> TableConfig:
    return load_model(path, TableConfig, example="those under config/tables/")


def load_tables(directory: Path) -> dict[str, TableConfig]:
    """Every table's rules by the source table's name; two files for one table are refused."""
    tables: dict[str, TableConfig] = {}
    for path in sorted(directory.glob("*.yaml")):
        table = load_table(path)
        if table.table in tables:
            raise ConfigurationError(f"{path} names table {table.table!r} a second time", hint="one rules file a table")
        tables[table.table] = table
    return tables
