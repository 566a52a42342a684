"""What `archive query` may be asked: one SELECT over the archive's views; and which hours of it a query can touch.

DuckDB's own parser is asked, never the text: since 2.0 a SELECT may hold an INSERT or a COPY as a common table
expression, so the kind of the statement alone says too little.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import duckdb

from config.errors import LakestreamError

RAW_VIEWS: Final = frozenset(("changes", "unreadable"))
"""One row a line: a line of an hour that a query rules out cannot be in its answer."""

_HOURS: Final = 24
_NODES: Final = frozenset(("SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"))
_SOURCES: Final = frozenset(
    ("BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EMPTY", "EXPRESSION_LIST", "SHOW_REF", "PIVOT", "CTE")
)
_TABLE_FUNCTIONS: Final = frozenset(("generate_series", "json_each", "json_tree", "range", "repeat", "unnest"))
_FUNCTIONS_REFUSED: Final = frozenset(("getenv", "query", "query_table", "write_log"))
_PREDICATES: Final = frozenset(
    ("COMPARISON", "CONJUNCTION", "BETWEEN", "CONSTANT", "CAST", "TYPE", "OPERATOR", "COLUMN_REF", "FUNCTION")
)
_DATE_FUNCTIONS: Final = frozenset(("+", "-", "date_part", "date_trunc", "make_date", "now", "to_days", "today"))
_TODAY: Final = ["current_date"]
_HINT: Final = "one SELECT over changes, changes_once, latest or unreadable; `lakestream archive examples` has some"

Hour = tuple[date, int]


class QueryRefusedError(LakestreamError):
    """The statement could do more than read the archive, or is none; nothing was fetched."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Query:
    sql: str
    tree: Mapping[str, Any]
    """DuckDB's parse of it."""


def parse(sql: str) -> Query:
    """The one SELECT in the text, or QueryRefusedError."""
    with duckdb.connect() as connection:
        try:
            statements = connection.extract_statements(sql)
        except duckdb.Error as error:
            raise QueryRefusedError(f"not SQL: {first_line(error)}", hint=_HINT) from error
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
            raise QueryRefusedError(f"the archive answers one SELECT, not {kinds}", hint=_HINT)
        ((text,),) = connection.execute("SELECT json_serialize_sql(?)", [statements[0].query]).fetchall()
    parsed = json.loads(text)
    if parsed["error"]:
        raise QueryRefusedError(f"not a SELECT: {parsed['error_message']}", hint=_HINT)
    tree = parsed["statements"][0]["node"]
    for node in _nodes(tree):
        _check(node)
    return Query(statements[0].query.strip().rstrip(";"), tree)


def _nodes(tree: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for child in tree:
            yield from _nodes(child)


def _check(node: Mapping[str, Any]) -> None:
    kind = str(node.get("type", ""))
    if "cte_map" in node and kind not in _NODES:
        raise QueryRefusedError(f"a {kind.removesuffix('_QUERY_NODE')} inside the query", hint=_HINT)
    for place in ("from_table", "left", "right"):
        source = node.get(place)
        if isinstance(source, dict) and not {"class", "cte_map"} & source.keys() and source["type"] not in _SOURCES:
            raise QueryRefusedError(f"a {source['type']} is no part of the archive", hint=_HINT)
    name = str(node.get("function_name", "")).lower()
    if name in _FUNCTIONS_REFUSED:
        raise QueryRefusedError(f"{name}() reaches outside of the archive", hint=_HINT)
    if kind == "TABLE_FUNCTION":
        function = str(node["function"].get("function_name", "")).lower()
        if function not in _TABLE_FUNCTIONS:
            raise QueryRefusedError(f"{function}() reads something else than the archive", hint=_HINT)


# --- pruning ----------------------------------------------------------------------------------------------------------


def hours_of(query: Query, days: Sequence[date]) -> list[Hour]:
    """The hours of these days that the query's own conditions on `date` and `hour` leave; all where none say less.

    A condition counts where leaving its hours out cannot change the answer: it stands at the top of the WHERE of the
    only place that reads a raw view, and is about `date`, `hour` and constants alone.
    """
    hours = [(day, hour) for day in days for hour in range(_HOURS)]
    conditions = _conditions(query)
    if not conditions or not hours:
        return hours
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute('CREATE TABLE hours ("date" DATE, "hour" INTEGER)')
        connection.execute(
            "INSERT INTO hours SELECT d::DATE, h FROM (SELECT unnest(?) AS d), range(24) AS r(h)",
            [[day.isoformat() for day in days]],
        )
        ((template,),) = connection.execute(
            """SELECT json_serialize_sql('SELECT "date", "hour" FROM hours WHERE true ORDER BY ALL')"""
        ).fetchall()
        statement = json.loads(template)
        statement["statements"][0]["node"]["where_clause"] = {
            "class": "CONJUNCTION",
            "type": "CONJUNCTION_AND",
            "alias": "",
            "query_location": 0,
            "children": conditions,
        }
        try:
            ((sql,),) = connection.execute("SELECT json_deserialize_sql(?)", [json.dumps(statement)]).fetchall()
            return connection.execute(sql).fetchall()
        except duckdb.Error as error:
            raise QueryRefusedError(f"the condition on date or hour: {first_line(error)}", hint=_HINT) from error


def _conditions(query: Query) -> list[dict[str, Any]]:
    nodes = list(_nodes(query.tree))
    named = {entry["key"].lower() for node in nodes for entry in (node.get("cte_map") or {}).get("map", ())}
    tables = [node for node in nodes if node.get("type") == "BASE_TABLE" and node["table_name"].lower() not in named]
    readers = [node for node in nodes if node.get("type") == "SELECT_NODE" and node.get("from_table") in tables]
    if len(tables) != 1 or len(readers) != 1 or tables[0]["table_name"].lower() not in RAW_VIEWS:
        return []
    where = readers[0].get("where_clause")
    if where is None or tables[0].get("sample") or tables[0].get("column_name_alias"):
        return []
    parts = where["children"] if where.get("type") == "CONJUNCTION_AND" else [where]
    name = (tables[0].get("alias") or tables[0]["table_name"]).lower()
    return [_unqualified(part) for part in parts if _is_about_hours(part, name)]


def _is_about_hours(condition: Mapping[str, Any], table: str) -> bool:
    expressions = [node for node in _nodes(condition) if "class" in node]
    names = (node["column_names"] for node in expressions if node["class"] == "COLUMN_REF")
    columns = [name for name in names if name != _TODAY]
    functions = {node["function_name"] for node in expressions if node["class"] == "FUNCTION"}
    return (
        bool(columns)
        and functions <= _DATE_FUNCTIONS
        and all(node["class"] in _PREDICATES for node in expressions)
        and all(_hour_column(names, table) for names in columns)
    )


def _hour_column(names: Sequence[str], table: str) -> bool:
    *qualifier, name = (part.lower() for part in names)
    return name in ("date", "hour") and qualifier in ([], [table])


def _unqualified(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_unqualified(child) for child in tree]
    if not isinstance(tree, dict):
        return tree
    copy = {name: _unqualified(child) for name, child in tree.items()}
    if copy.get("class") == "COLUMN_REF":
        copy["column_names"] = copy["column_names"][-1:]
    return copy


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
