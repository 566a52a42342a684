from datetime import date

import pytest

from streaming_job.operations.archive_query import QueryRefusedError, hours_of, parse

DAYS = [date(2026, 1, day) for day in (1, 2, 3)]
ALL = 72


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "-- nothing",
        "SELECT 1; SELECT 2",
        "SELECT nope FROM",
        "COPY (SELECT 1) TO '/tmp/out.csv'",
        "WITH a AS (COPY (SELECT 1) TO '/tmp/out.csv') SELECT * FROM a",
        "WITH a AS (INSERT INTO envelopes SELECT * FROM envelopes RETURNING 1) SELECT * FROM a",
        "SELECT * FROM (WITH a AS (DELETE FROM envelopes RETURNING 1) SELECT * FROM a)",
        "ATTACH '/tmp/other.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "PRAGMA enable_profiling",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "CALL enable_logging()",
        "CREATE TABLE x AS SELECT 1",
        "DROP VIEW changes",
        "EXPORT DATABASE '/tmp/out'",
        "PREPARE x AS SELECT 1",
        "EXPLAIN ANALYZE SELECT 1",
        "SELECT * FROM read_csv('/etc/hosts')",
        "SELECT * FROM read_text('/etc/hosts')",
        "SELECT (SELECT count(*) FROM read_blob('/etc/hosts'))",
        "SELECT * FROM changes UNION ALL SELECT * FROM glob('/*')",
        "SELECT * FROM changes, read_json('/etc/hosts')",
        "SELECT * FROM query('SELECT 1')",
        "SELECT * FROM query_table('changes')",
        "SELECT * FROM json_execute_serialized_sql('x')",
        "SELECT * FROM duckdb_settings()",
        "FROM enable_logging()",
        "SELECT getenv('HOME')",
        "SELECT upper(getenv('HOME')) FROM changes",
    ],
)
def test_whatever_is_not_one_select_over_the_archive_is_refused_before_anything_is_fetched(sql: str) -> None:
    with pytest.raises(QueryRefusedError) as refused:
        parse(sql)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1;",
        "FROM changes",
        "DESCRIBE changes",
        "SUMMARIZE changes",
        "SELECT unnest([1, 2])",
        "SELECT * FROM changes, unnest(new.signals) AS s(x)",
        "SELECT * FROM changes a JOIN latest b USING (key_json) WHERE a.op = 'REMOVE'",
        "WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM t WHERE a < 3) SELECT * FROM t",
        "SELECT op FROM changes UNION ALL SELECT op FROM latest",
        "VALUES (1)",
    ],
)
def test_what_only_reads_the_archive_is_admitted(sql: str) -> None:
    assert parse(sql).sql == sql.rstrip(";")


@pytest.mark.parametrize(
    ("condition", "hours"),
    [
        ("date = '2026-01-02'", 24),
        ("date = DATE '2026-01-02' AND op = 'REMOVE'", 24),
        ("c.date > '2026-01-01' AND c.hour BETWEEN 3 AND 4 AND c.new.hour = 1", 4),
        ("hour IN (1, 2) AND NOT (hour = 2 OR date < '2026-01-03')", 1),
        ("date = DATE '2026-01-01' + 1", 24),
        ("date < current_date", ALL),
        ("date > current_date", 0),
        ("date = '2027-01-01'", 0),
    ],
)
def test_conditions_on_date_and_hour_prune(condition: str, hours: int) -> None:
    found = hours_of(parse(f"SELECT count(*) FROM changes AS c WHERE {condition}"), DAYS)  # noqa: S608 - a test's
    assert len(found) == hours


def test_pruning_reaches_into_the_one_subquery_that_reads_the_archive() -> None:
    sql = (
        "WITH day AS (SELECT * FROM changes WHERE date = '2026-01-02') SELECT count(*) FROM day a JOIN day b USING (id)"
    )
    assert len(hours_of(parse(sql), DAYS)) == 24


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM changes",
        "SELECT * FROM changes WHERE date = '2026-01-02' OR op = 'REMOVE'",
        "SELECT * FROM changes WHERE new.date = '2026-01-02'",
        "SELECT * FROM changes a, changes b WHERE a.date = '2026-01-02'",
        "SELECT * FROM changes WHERE date = '2026-01-02' UNION ALL SELECT * FROM changes",
        "SELECT * FROM changes_once WHERE date = '2026-01-02'",
        "SELECT * FROM latest WHERE date = '2026-01-02'",
        "SELECT * FROM (SELECT * FROM changes) WHERE date = '2026-01-02'",
        "SELECT * FROM changes WHERE date = (SELECT max(date) FROM changes)",
        "SELECT * FROM changes WHERE date = '2026-01-02' AND date::VARCHAR LIKE op",
        "SELECT * FROM changes AS c(op, date) WHERE date = '2026-01-02'",
        "WITH changes AS (SELECT * FROM latest) SELECT * FROM changes WHERE date = '2026-01-02'",
    ],
)
def test_a_condition_that_could_change_the_answer_by_pruning_does_not_prune(sql: str) -> None:
    found = hours_of(parse(sql), DAYS)
    assert len(found) == (24 if "LIKE" in sql else ALL)


def test_a_condition_that_is_no_hour_is_refused_in_words() -> None:
    with pytest.raises(QueryRefusedError, match="date or hour"):
        hours_of(parse("SELECT * FROM changes WHERE hour IN (1, 'noon')"), DAYS)
