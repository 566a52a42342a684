"""Random histories through the whole pipeline, one table by each engine: both equal the model, and each other."""

import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from envelopes import Change
from histories import batches, check, model
from hypothesis import HealthCheck, Phase, given, settings
from lake_rig import LakeRig, table_config
from pyspark.sql import SparkSession

from streaming_job.pipeline.merge import Engine

EXAMPLES = max(1, int(os.environ.get("LAKESTREAM_EXAMPLES", "25")) // 25)
ENGINES: tuple[Engine, ...] = ("rust", "spark")
COLUMNS = ("_key", "_seq", "_op", "_deleted", "_ttl", "_digest", "_row_digest", "_rescued", "id", "n", "s")

COLUMNS_PAST = ("_table", "_key", "_seq")

pytestmark = pytest.mark.spark


def in_both(batch: list[Change]) -> list[Change | bytes]:
    return [replace(change, table=engine) for change in batch for engine in ENGINES]


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.reuse, Phase.generate]
)
@given(batches(keys_min=15, keys=25, length_max=8))
def test_both_engines_hold_what_the_model_holds(spark: SparkSession, delivered: list[list[Change]]) -> None:
    """Duplicated, reordered, replayed and cut anywhere; a failing example is big, and is not shrunk for hours."""
    with TemporaryDirectory() as folder:
        rig = LakeRig(spark, Path(folder), *(table_config(engine, engine=engine) for engine in ENGINES))
        reports = rig.run(*(in_both(batch) for batch in delivered))
        assert not any(table.failure for report in reports for table in report.tables.values())
        held = {engine: rig.rows(f"{engine}/current", *COLUMNS) for engine in ENGINES}
        assert held["rust"] == held["spark"]
        check(model(delivered), held["rust"])
        expected = model([[replace(change, table="rust") for change in batch] for batch in delivered]).history
        for engine in ENGINES:
            seen = [(row["_table"], row["_key"], row["_seq"]) for row in rig.rows(f"{engine}/history", *COLUMNS_PAST)]
            assert sorted(("rust", key, seq) for _, key, seq in seen) == sorted(expected)
