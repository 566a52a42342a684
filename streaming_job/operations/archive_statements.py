"""Words to start from: examples for `archive query`, and statements that make the archive a table elsewhere."""

from dataclasses import dataclass
from typing import Final

from config.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Example:
    name: str
    says: str
    sql: str


EXAMPLES: Final = (
    Example(
        "by-hour",
        "what arrived, hour by hour",
        'SELECT "date", "hour", op, count(*) AS changes FROM changes GROUP BY ALL ORDER BY ALL',
    ),
    Example(
        "today",
        "only today's objects are fetched: conditions on date and hour prune",
        'SELECT count(*) AS changes, max(created_at) AS newest FROM changes WHERE "date" = current_date',
    ),
    Example(
        "key",
        "the life of one item, oldest change first",
        "SELECT change_seq, op, created_at, new_json FROM changes_once\n"
        'WHERE key_json = \'{"event_id":"…"}\' ORDER BY change_seq',
    ),
    Example(
        "makes",
        "attributes by their own names",
        "SELECT new.vehicle.make, count(*) AS items FROM latest WHERE op <> 'REMOVE' GROUP BY ALL ORDER BY 2 DESC",
    ),
    Example(
        "signals",
        "one row an element of a list",
        "SELECT s.code, count(*) AS seen FROM (SELECT unnest(new.signals) AS s FROM changes_once) GROUP BY ALL\n"
        "ORDER BY 2 DESC LIMIT 20",
    ),
    Example(
        "deleted",
        "what is gone, and whether it expired",
        "SELECT \"table\", ttl, count(*) AS items FROM latest WHERE op = 'REMOVE' GROUP BY ALL ORDER BY ALL",
    ),
    Example(
        "repeats",
        "how often the same change was delivered",
        "SELECT copies, count(*) AS changes FROM (SELECT count(*) AS copies FROM changes\n"
        '    GROUP BY "table", key_json, change_seq) GROUP BY ALL ORDER BY ALL',
    ),
    Example(
        "delay",
        "from the bridge's arrival to its PutRecords, in milliseconds",
        'SELECT "table", quantile_cont(bridge_out_ms - bridge_in_ms, [0.5, 0.99]) AS p50_p99\n'
        "FROM changes GROUP BY ALL",
    ),
    Example("unreadable", "lines that are no envelope of this version", "SELECT * FROM unreadable"),
)

_ATHENA: Final = """\
-- Athena: the raw archive, a line a row. Partitions are computed, none has to be added.
CREATE EXTERNAL TABLE IF NOT EXISTS {name}_lines (line string)
PARTITIONED BY (`date` string, `hour` string)
ROW FORMAT DELIMITED
STORED AS INPUTFORMAT 'org.apache.hadoop.mapred.TextInputFormat'
OUTPUTFORMAT 'org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat'
LOCATION 's3://{bucket}/{prefix}'
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.date.type' = 'date', 'projection.date.format' = 'yyyy-MM-dd', 'projection.date.range' = '{since},NOW',
  'projection.hour.type' = 'integer', 'projection.hour.range' = '0,23', 'projection.hour.digits' = '2',
  'storage.location.template' = 's3://{bucket}/{prefix}date=${{date}}/hour=${{hour}}/'
);

-- `new` and `old` are JSON, whose long decimals Athena rounds. json_extract_scalar on the line itself keeps all digits:
-- CAST(json_extract_scalar(line, '$.new.amount') AS decimal(38, 10)).
CREATE OR REPLACE VIEW {name} AS
SELECT
{fields},
  regexp_extract(line, '"key":(\\{{.*?\\}}),"new":', 1) AS key,
  json_extract(line, '$.new') AS new, json_extract(line, '$.old') AS old,
  json_extract(line, '$.types') AS types, json_extract(line, '$.ref') AS ref,
  line, "date", "hour"
FROM {name}_lines
WHERE json_extract_scalar(line, '$.v') = '1';

CREATE OR REPLACE VIEW {name}_once AS
SELECT * FROM (
  SELECT *, row_number() OVER (PARTITION BY "table", key, gen, seq ORDER BY bridge_out_ms) AS copy FROM {name}
) WHERE copy = 1;

-- SELECT json_extract_scalar(new, '$.vehicle.make') AS make, count(*)
-- FROM {name}_once WHERE "date" = '2026-01-31' GROUP BY 1;
"""
_ATHENA_TYPES: Final = {
    "v": "integer", "rules": "varchar", "table": "varchar", "op": "varchar", "id": "varchar", "gen": "varchar",
    "seq": "varchar", "digest": "varchar", "ttl": "boolean", "filtered": "boolean", "created_ms": "bigint",
    "origin_ms": "bigint", "bridge_in_ms": "bigint", "bridge_out_ms": "bigint",
}  # fmt: skip

_FLOATS: Final = r'\G((?:[^"\d-]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?\d++(?![.eE\d]))*+)(-?\d++[.eE][\d.eE+-]*+)'
"""What comes before a number that is no integer, strings passed over whole, and the number."""

_SPARK: Final = """\
-- Spark and Databricks: the raw archive, a line a row. `new` and `old` are text, their decimals in quotes: from_json
-- would round them. new:vehicle.make (Databricks) or get_json_object(new, '$.vehicle.make') reads any attribute of
-- them, and from_json(new, 'amount DECIMAL(38, 10)').amount a number to its last digit.
CREATE OR REPLACE VIEW {name} AS
SELECT e.*, key, concat(e.gen, '-', e.seq) AS change_seq, `date`, `hour`
FROM (
  SELECT from_json(regexp_replace(line, r'{floats}', '$1"$2"'),
      'v INT, rules STRING, table STRING, op STRING, id STRING, gen STRING, seq STRING, new STRING, old STRING,
      types MAP<STRING, STRING>, digest STRING, ttl BOOLEAN, filtered BOOLEAN, created_ms BIGINT, origin_ms BIGINT,
      bridge_in_ms BIGINT, bridge_out_ms BIGINT,
      ref STRUCT<bucket: STRING, key: STRING, bytes: BIGINT, sha256: STRING>') AS e,
    regexp_extract(line, r'"key":(\\{{.*?\\}}),"new":', 1) AS key, `date`, `hour`
  FROM {source}
) WHERE e.v = 1;

CREATE OR REPLACE VIEW {name}_once AS
SELECT * EXCEPT (copy) FROM (
  SELECT *, row_number() OVER (PARTITION BY table, key, change_seq ORDER BY bridge_out_ms) AS copy FROM {name}
) WHERE copy = 1;
"""
_FILES: Final = (
    "(SELECT value AS line, `date`, `hour`\n    FROM read_files('{location}', format => 'text',\n"
    "      partitionColumns => 'date,hour'))"
)
_TEXT: Final = "(SELECT value AS line, `date`, `hour` FROM {name}_lines)"
_TEXT_TABLE: Final = """\
CREATE TABLE IF NOT EXISTS {name}_lines (value STRING, `date` STRING, `hour` STRING)
USING text PARTITIONED BY (`date`, `hour`) LOCATION '{location}';
MSCK REPAIR TABLE {name}_lines;

"""


def athena(name: str, bucket: str, prefix: str, since: str) -> str:
    _check(name)
    fields = ",\n".join(
        f"""  CAST(json_extract_scalar(line, '$.{field}') AS {type_}) AS "{field}\""""
        for field, type_ in _ATHENA_TYPES.items()
    )
    return _ATHENA.format(name=name, bucket=bucket, prefix=prefix, since=since, fields=fields)


def spark(name: str, location: str, *, databricks: bool) -> str:
    """`databricks` lists the files at each query; elsewhere a table over them is made, whose partitions are added."""
    _check(name)
    if databricks:
        return _SPARK.format(name=name, floats=_FLOATS, source=_FILES.format(location=location))
    view = _SPARK.format(name=name, floats=_FLOATS, source=_TEXT.format(name=name))
    return _TEXT_TABLE.format(name=name, location=location) + view


def one_by_one(text: str) -> list[str]:
    """Each statement without remarks, as engines take them that take one a call."""
    lines = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("--"))
    return [statement.strip() for statement in lines.split(";\n") if statement.strip()]


def _check(name: str) -> None:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigurationError(f"{name!r} is no name of a table", hint="letters, digits and _, parts joined by dots")
