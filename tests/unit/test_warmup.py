"""Made-up changes for the first batches: of every table that has rules, whatever its attributes are."""

import pyarrow as pa

from config.tables import load_tables
from infra.local.checks import ROOT
from streaming_job.pipeline.decode import Decoder
from streaming_job.warmup import made_up

TABLES = load_tables(ROOT / "config" / "tables")


def test_made_up_changes_are_changes_of_every_shipped_table() -> None:
    rows = made_up(TABLES, ROOT / "config" / "tables", range(20))
    changes = Decoder(TABLES).changes(pa.Table.from_pylist(rows))
    assert changes["reject"].to_pylist() == [None] * 20 * len(TABLES)
    assert set(changes["table"].to_pylist()) == set(TABLES)
    assert set(changes["op"].to_pylist()) == {"MODIFY", "REMOVE"}
