"""`archive query` over a bucket held in memory: DuckDB, the cache and the sealing are the real ones."""

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import md5
from pathlib import Path
from typing import Any

import orjson
import pytest
from botocore.exceptions import ClientError

from streaming_job.objects import BucketUnreadableError
from streaming_job.operations.archive_database import ArchiveDatabase
from streaming_job.operations.archive_objects import Archive, ArchiveUnreadableError, Span
from streaming_job.operations.archive_query import parse
from streaming_job.operations.archive_run import Asking, QueryFailedError
from streaming_job.operations.archive_statements import EXAMPLES

GEN = "20260101000000000"
BIGGEST = "99999999999999999999999999999999999999"
FINEST = "0.12345678901234567890123456789012345678"


class BucketInMemory:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.got: list[str] = []
        self.denied = False

    def put(self, name: str, *lines: str | bytes, packed: bool = True) -> None:
        body = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
        self.objects[name] = gzip.compress(body) if packed else body

    def get_paginator(self, _: str) -> "BucketInMemory":
        return self

    def paginate(self, *, Bucket: str, Prefix: str, Delimiter: str = "") -> Iterator[Mapping[str, Any]]:  # noqa: N803
        if self.denied:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "ListObjectsV2")
        for name in sorted(self.objects):
            if not name.startswith(Prefix):
                continue
            rest = name.removeprefix(Prefix)
            if Delimiter and Delimiter in rest:
                yield {"CommonPrefixes": [{"Prefix": Prefix + rest.partition(Delimiter)[0] + Delimiter}]}
            else:
                body = self.objects[name]
                yield {"Contents": [{"Key": name, "Size": len(body), "ETag": self._etag(name)}]}

    def get_object(self, *, Bucket: str, Key: str, IfMatch: str) -> Mapping[str, Any]:  # noqa: N803
        assert IfMatch == self._etag(Key)
        self.got.append(Key)
        return {"Body": _Body(self.objects[Key])}

    def _etag(self, name: str) -> str:
        return md5(self.objects[name], usedforsecurity=False).hexdigest()


class _Body:
    def __init__(self, body: bytes) -> None:
        self.read = lambda: body


def envelope(seq: int = 1, **fields: Any) -> str:
    """A line as the bridge writes it; `new`, `old` and `key` may be given as JSON text, for numbers to the digit."""
    body = {
        "v": 1, "rules": "1", "table": "cars", "op": "INSERT", "id": f"e{seq}", "gen": GEN, "seq": f"{seq:040d}",
        "key": {"id": "a"}, "new": {"id": "a"}, "old": None, "types": {}, "digest": None, "ttl": False,
        "filtered": False, "created_ms": 1_767_225_600_000, "origin_ms": None, "bridge_in_ms": 1, "bridge_out_ms": 2,
        "ref": None,
    }  # fmt: skip
    raw = {name: orjson.Fragment(value) if isinstance(value, str) and name in {"new", "old", "key"} else value
           for name, value in fields.items()}  # fmt: skip
    return orjson.dumps(body | raw).decode()


def hour(number: int = 0, day: str = "2026-01-01", name: str = "part") -> str:
    return f"archive/date={day}/hour={number:02d}/{name}.gz"


class World:
    def __init__(self, cache: Path, *, cache_bytes: int = 2**20) -> None:
        self.bucket = BucketInMemory()
        self.cache = cache
        self.cache_bytes = cache_bytes

    def ask(self, sql: str, span: Span = Span()) -> list[Any]:  # noqa: B008 - frozen
        archive = Archive(self.bucket, "bucket", "archive/")
        asking = Asking(archive, self.cache, self.cache_bytes, lambda *_: None)
        with asking.answer(parse(sql), span) as answer:
            return [tuple(row) for row in answer.rows]

    def cached(self) -> list[Path]:
        return [path for path in self.cache.iterdir() if path.suffix in {".gz", ".ndjson"}]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "cache")


# --- what is read -----------------------------------------------------------------------------------------------------


def test_attributes_go_by_their_names(world: World) -> None:
    new = {"id": "a", "vehicle": {"make": "VW", "year": 2020}, "signals": [{"code": "x", "meta": {"at": 5}}]}
    world.bucket.put(hour(), envelope(new=new))
    sql = "SELECT key.id, new.vehicle.make, new.vehicle.year, new.signals[1].meta.at, created_at FROM changes"
    assert world.ask(sql) == [("a", "VW", 2020, 5, datetime(2026, 1, 1))]  # noqa: DTZ001 - UTC, without saying so


def test_an_attribute_first_seen_in_the_last_object_is_there(world: World) -> None:
    for number in range(5):
        world.bucket.put(hour(number), envelope(number, new={"id": "a"} | ({"late": 1} if number == 4 else {})))
    assert world.ask("SELECT count(*), count(new.late), min(new.late) FROM changes") == [(5, 1, 1)]


@pytest.mark.parametrize(
    ("number", "type_"),
    [
        (BIGGEST, "DECIMAL(38,0)"),
        (f"-{BIGGEST}", "DECIMAL(38,0)"),
        (FINEST, "DECIMAL(38,38)"),
        ("1234567890123456789.0123456789012345678", "DECIMAL(38,19)"),
        ("9007199254740993", "BIGINT"),
        ("9223372036854775807", "DECIMAL(38,0)"),
        ("12345.67", "DOUBLE"),
        ("1E+5", "DOUBLE"),
        ("1.2345678901234567890E+99", "VARCHAR"),
        ("1" + "0" * 60 + "1", "VARCHAR"),
        ("42", "BIGINT"),
    ],
)
def test_numbers_keep_all_their_digits_however_they_are_reached(world: World, number: str, type_: str) -> None:
    world.bucket.put(hour(), envelope(new=f'{{"id":"a","n":{number},"deep":[{{"n":{number}}}]}}'))
    sql = "SELECT typeof(new.n), new.n::VARCHAR, new.deep[1].n::VARCHAR, new_json ->> '$.n' FROM changes"
    ((found, *texts),) = world.ask(sql)
    assert found.removeprefix("DECIMAL").replace(" ", "") == type_.removeprefix("DECIMAL")
    assert [Decimal(text) for text in texts] == [Decimal(number)] * 3


def test_a_short_number_beside_a_long_one_is_not_rounded_by_its_type(world: World) -> None:
    world.bucket.put(hour(0), envelope(1, new=f'{{"n":{BIGGEST[:30]}}}'))
    world.bucket.put(hour(1), envelope(2, new='{"n":0.5}'), envelope(3, new='{"n":7}'))
    found = {Decimal(number) for (number,) in world.ask("SELECT new.n FROM changes")}
    assert found == {Decimal(BIGGEST[:30]), Decimal("0.5"), Decimal(7)}


def test_a_long_number_is_seen_behind_names_and_strings_that_look_like_json(world: World) -> None:
    new = {"a\\": "N1", 'b"': "N1", "s": '{"value":1.2345678901234567890123}', "l": [1, "N1"]}
    text = json.dumps(new).replace('"N1"', FINEST)
    world.bucket.put(hour(), envelope(new=text))
    ((image, string),) = world.ask("SELECT new_json, new.s FROM changes")
    read = json.loads(image)
    assert (read["a\\"], read['b"'], read["l"][1], string) == (FINEST, FINEST, FINEST, new["s"])


@pytest.mark.parametrize("number", ["0.0000001", "5", "1.5", BIGGEST, FINEST])
def test_a_key_is_the_very_text_that_the_lake_knows(world: World, number: str) -> None:
    key = f'{{"id":"x\\"y é","n":{number}}}'
    world.bucket.put(hour(), envelope(key=key))
    assert world.ask("SELECT key_json FROM changes") == [(key,)]


def test_values_of_several_types_stay_json(world: World) -> None:
    world.bucket.put(hour(), envelope(1, new={"x": 1}), envelope(2, new={"x": "one"}), envelope(3, new={"x": {"y": 1}}))
    assert world.ask("SELECT typeof(new.x), new.x ->> '$.y' FROM changes WHERE seq LIKE '%3'") == [("JSON", "1")]


def test_names_that_differ_in_case_only_stay_apart(world: World) -> None:
    world.bucket.put(hour(), envelope(new={"id": "a", "m": {"Name": 1, "name": 2}}))
    assert world.ask("SELECT new.m ->> '$.Name', new.m ->> '$.name' FROM changes") == [("1", "2")]


def test_names_that_are_words_of_sql_or_hold_quotes_are_columns(world: World) -> None:
    world.bucket.put(hour(), envelope(new={"select": 1, "a\"b'c": {"order by": FINEST}}))
    assert world.ask("""SELECT new."select", new."a""b'c"."order by" FROM changes""") == [(1, FINEST)]


def test_a_removed_item_has_no_new_image(world: World) -> None:
    world.bucket.put(hour(), envelope(op="REMOVE", new=None, old={"x": 1}))
    assert world.ask("SELECT new IS NULL, new_json IS NULL, old.x FROM changes") == [(True, True, 1)]


def test_a_redelivered_change_counts_once_where_it_is_asked_to_and_a_newer_one_is_the_latest(world: World) -> None:
    first, second = envelope(1), envelope(2, op="MODIFY", new={"id": "a", "x": 2})
    world.bucket.put(hour(0), first, second)
    world.bucket.put(hour(1), envelope(1, bridge_out_ms=9), envelope(1, key={"id": "b"}))
    counts = "SELECT (SELECT count(*) FROM changes), (SELECT count(*) FROM changes_once), (SELECT count(*) FROM latest)"
    assert world.ask(counts) == [(4, 3, 2)]
    assert world.ask("SELECT op, new.x FROM latest WHERE key.id = 'a'") == [("MODIFY", 2)]


def test_lines_that_are_no_envelope_are_counted_apart_and_harm_no_other(world: World) -> None:
    world.bucket.put(hour(), envelope(1), '{"broken', "[]", '{"v":2}', b'{"bad":"\xff"}', "", envelope(2))
    assert world.ask("SELECT count(*) FROM changes") == [(2,)]
    found = world.ask("SELECT problem, count(*) FROM unreadable GROUP BY 1 ORDER BY 1")
    assert found == [("an envelope of version 2", 1), ("an envelope of version none", 1), ("not JSON", 2)]


def test_an_envelope_with_nonsense_in_it_harms_no_other(world: World) -> None:
    nonsense = [
        {"created_ms": "soon", "ttl": "maybe"},
        {"gen": None, "seq": 7},
        {"new": [1, 2], "old": "x", "key": 5},
        {"types": [], "ref": 1.2345678901234567890},
    ]
    lines = [json.dumps({**json.loads(envelope(2)), **fields}) for fields in nonsense]
    lines.append(envelope(3).replace('"new":{"id":"a"}', f'"new":[{FINEST}]').replace('"key":{"id":"a"}', '"key":1.50'))
    world.bucket.put(hour(), envelope(1, new={"id": "a", "n": 1}), *lines, '{"v":1}')
    assert world.ask("SELECT count(*), sum(new.n), count(key.id) FROM changes") == [(7, 1, 4)]
    assert world.ask("SELECT count(*) > 0 FROM latest, changes_once") == [(True,)]


def test_objects_without_gzip_and_of_several_gzip_members_are_read(world: World) -> None:
    world.bucket.put(hour(0), envelope(1), packed=False)
    world.bucket.objects[hour(1)] = b"".join(gzip.compress(envelope(n).encode() + b"\n") for n in (2, 3))
    assert world.ask("SELECT count(*) FROM changes") == [(3,)]


def test_an_object_that_is_damaged_is_named(world: World) -> None:
    world.bucket.put(hour(), envelope())
    world.bucket.objects[hour(1)] = world.bucket.objects[hour()][:-30]
    with pytest.raises(ArchiveUnreadableError, match="hour=01"):
        world.ask("SELECT count(*) FROM changes")


def test_an_empty_archive_answers_with_nothing(world: World) -> None:
    assert world.ask("SELECT count(*), count(new) FROM changes") == [(0, 0)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_every_example_runs(world: World, example: Any) -> None:
    new = {"event_id": "a", "vehicle": {"make": "VW"}, "signals": [{"code": "x"}]}
    world.bucket.put(hour(), envelope(new=new))
    world.ask(example.sql)


# --- what is not fetched ----------------------------------------------------------------------------------------------


def test_only_objects_of_hours_that_can_matter_are_fetched(world: World) -> None:
    for day in ("2026-01-01", "2026-01-02"):
        for number in (3, 4):
            world.bucket.put(hour(number, day), envelope(number))
    world.bucket.put("archive/date=2026-01-02/_SUCCESS", "")
    world.bucket.put("archive/other/part.gz", envelope())
    assert world.ask("SELECT count(*) FROM changes WHERE date = '2026-01-02' AND hour > 3") == [(1,)]
    assert world.bucket.got == [hour(4, "2026-01-02")]
    since = Span(datetime(2026, 1, 1, 4, 30, tzinfo=UTC), datetime(2026, 1, 2, 4, tzinfo=UTC))
    assert world.ask("SELECT count(*) FROM changes", since) == [(2,)]


def test_an_object_is_fetched_once_and_again_when_it_was_replaced(world: World) -> None:
    world.bucket.put(hour(), envelope())
    for _ in range(2):
        world.ask("SELECT count(*) FROM changes")
    world.bucket.put(hour(), envelope(), envelope(2))
    assert world.ask("SELECT count(*) FROM changes") == [(2,)]
    assert world.bucket.got == [hour()] * 2


def test_the_cache_keeps_to_its_bound_and_gives_up_what_was_used_longest_ago(world: World) -> None:
    for number in range(6):
        world.bucket.objects[hour(number)] = gzip.compress(envelope(number, new={"x": os.urandom(500).hex()}).encode())
    world.cache_bytes = 3 * len(world.bucket.objects[hour()]) + 100
    assert world.ask("SELECT count(*) FROM changes") == [(6,)]
    assert sum(path.stat().st_size for path in world.cached()) <= world.cache_bytes
    world.bucket.got.clear()
    world.ask("SELECT count(*) FROM changes WHERE hour = 5")
    assert not world.bucket.got


def test_two_queries_at_once_share_a_cache_that_is_too_small_for_either(world: World) -> None:
    for number in range(12):
        world.bucket.put(hour(number), envelope(number, new={"x": os.urandom(500).hex()}))
    world.cache_bytes = 3_000
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(world.ask("SELECT count(*) FROM changes"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [[(12,)]] * 3


def test_nothing_of_a_query_is_left_but_the_objects_it_fetched(world: World) -> None:
    world.bucket.put(hour(), envelope())
    with pytest.raises(QueryFailedError, match="nope"):
        world.ask("SELECT nope FROM changes")
    (world.cache / "dead.half").write_bytes(b"of a process that was killed")
    world.ask("SELECT * FROM changes")
    assert {path.suffix for path in world.cache.iterdir()} == {"", ".gz"}
    assert [path.name for path in world.cache.iterdir() if path.is_dir()] == []


def test_what_a_killed_query_left_is_cleared_by_the_next_and_a_running_ones_is_not(world: World) -> None:
    world.bucket.put(hour(), envelope())
    world.cache.mkdir()
    code = (
        "import os, pathlib, sys; from streaming_job.operations.archive_database import ArchiveDatabase;"
        "ArchiveDatabase(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(world.cache)], check=False).returncode == -9
    with ArchiveDatabase(world.cache):
        (running,) = world.cache.glob("query-*")
        world.ask("SELECT * FROM changes")
        assert list(world.cache.glob("query-*")) == [running]
    assert list(world.cache.glob("*ing-*")) + list(world.cache.glob("query-*")) == []


def test_a_bucket_that_cannot_be_listed_says_which_rights_are_missing(world: World) -> None:
    world.bucket.denied = True
    with pytest.raises(BucketUnreadableError) as error:
        world.ask("SELECT 1 FROM changes")
    assert "s3:ListBucket" in str(error.value)


# --- what the database itself refuses, should a statement ever pass the parser's check ------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{outside}/out.csv'",
        "WITH a AS (COPY (SELECT 1) TO '{outside}/out.csv') SELECT * FROM a",
        "WITH a AS (INSERT INTO unread VALUES (1, 'x') RETURNING 1) SELECT * FROM a",
        "SELECT * FROM read_text('{outside}/secret')",
        "SELECT * FROM '{outside}/secret'",
        "SELECT * FROM read_csv('{outside}/secret')",
        "SELECT * FROM glob('{outside}/*')",
        "ATTACH '{outside}/other.db'",
        "EXPORT DATABASE '{outside}/out'",
        "CREATE TABLE x AS SELECT 1",
        "DELETE FROM envelopes",
        "DROP VIEW changes",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET memory_limit = '100GB'",
        "PRAGMA enable_profiling",
        "CALL enable_logging()",
        "SELECT * FROM secret_rows",
        "SELECT getenv('HOME')",
    ],
)
def test_a_sealed_archive_can_neither_write_nor_reach_anything_else(tmp_path: Path, sql: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    secret_rows = [{"a": 1}]  # a variable of Python's, which DuckDB would find by its name
    with ArchiveDatabase(tmp_path) as database:
        database.seal()
        with pytest.raises(Exception, match=r"(?i)error"), database.ask(sql.format(outside=outside)) as cursor:
            cursor.fetchall()
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert secret_rows
