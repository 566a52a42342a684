"""Every planted bug: what it breaks, and within how many seeds it is found."""

from dataclasses import dataclass
from typing import Final

from tests.simulation.bugs import beside_the_job, in_the_bridge, in_the_lake, in_the_mapping, in_the_source
from tests.simulation.parts import Parts


@dataclass(frozen=True)
class Bug:
    name: str
    parts: Parts
    theme: str | None = None
    """The kind of run it is hunted in; None: any."""
    within: int = 60
    """Such runs, from the first seed on."""


BUGS: Final = (
    # the bridge
    Bug("PutRecords' failures unread", Parts(wrap_publisher=in_the_bridge.FailuresUnread)),
    Bug("the failed subset alone sent again", Parts(wrap_publisher=in_the_bridge.FailedSubsetAlone)),
    Bug("a timeout taken for success", Parts(wrap_publisher=in_the_bridge.TimeoutTakenForSuccess)),
    Bug("the order within a call trusted", Parts(wrap_publisher=in_the_bridge.OrderOfACallTrusted), "sending"),
    Bug("the highest failure named", Parts(process=in_the_bridge.highest_failure_named)),
    Bug("poison left out", Parts(process=in_the_bridge.poison_skipped)),
    Bug("poison blocks its shard", Parts(process=in_the_bridge.poison_blocks)),
    Bug("dead letters not written", Parts(wrap_store=in_the_bridge.LettersDropped)),
    Bug("dead letters in the clear", Parts(wrap_store=in_the_bridge.LettersInTheClear)),
    Bug("claim checks overwrite each other", Parts(wrap_store=in_the_bridge.ClaimsOfOneName), "claims"),
    Bug("no mark of what was nearly trimmed", Parts(wrap_store=in_the_bridge.NoMarks), "outages"),
    Bug("masks forgotten", Parts(change_rules=in_the_bridge.without_masks)),
    Bug("filter forgotten", Parts(change_rules=in_the_bridge.without_filter)),
    Bug("the time of sending taken on arrival", Parts(process=in_the_bridge.stamped_once)),
    # the mapping
    Bug("the failure list ignored", Parts(lane=in_the_mapping.FailureListIgnored)),
    Bug("position at the furthest that is done", Parts(checkpoint=in_the_mapping.HighestDone), "crashing", 120),
    Bug("position moved when read", Parts(checkpoint=in_the_mapping.DoneWhenRead)),
    Bug("newest first", Parts(lane=in_the_mapping.NewestFirst)),
    Bug("a batch goes on behind its failure", Parts(lane=in_the_mapping.DoneBeforeTheFailure), "sending"),
    Bug("batches given up are kept nowhere", Parts(discards_are_kept=False), "letters"),
    # the source
    Bug("position saved before the sink", Parts(query=in_the_source.SavedBeforeTheSink)),
    Bug("a child read before its parent", Parts(kinesis=in_the_source.ChildrenWithoutParents), "resharding"),
    Bug("an expired iterator taken again at the tip", Parts(kinesis=in_the_source.TipAfterExpiry)),
    Bug("a loss passed over", Parts(options={"failOnDataLoss": "false"}), "outages"),
    Bug("trimmed taken for idle", Parts(prefetcher=in_the_source.NeverAskedAboutTrimming), "outages"),
    Bug("a range without its end", Parts(reader=in_the_source.LastRowDropped)),
    Bug("a new shard's first rows passed over", Parts(reader=in_the_source.NewShardsUnread), "resharding"),
    Bug("closed shards forgotten", Parts(reader=in_the_source.ForgetsClosedShards), "resharding"),
    # the tables
    Bug("the guard dropped", Parts(lake=in_the_lake.NoGuard)),
    Bug("sequence compared as a number", Parts(lake=in_the_lake.SequenceAsNumber)),
    Bug("sequence compared unpadded", Parts(lake=in_the_lake.SequenceUnpadded)),
    Bug("generation ignored", Parts(lake=in_the_lake.GenerationIgnored), "snapshots"),
    Bug("tombstone removed early", Parts(lake=in_the_lake.TombstoneRemovedEarly)),
    Bug("purged tombstones forgotten", Parts(lake=in_the_lake.PurgeForgets), "deleting"),
    Bug("history without its key", Parts(lake=in_the_lake.HistoryAppended)),
    Bug("the last of a batch, not the newest", Parts(lake=in_the_lake.LastOfTheBatch), "sending"),
    Bug("batch numbers trusted", Parts(lake=in_the_lake.BatchNumbersTrusted), "crashing"),
    Bug("a snapshot beats the stream", Parts(lake=in_the_lake.SnapshotWins), "snapshots"),
    Bug("parked changes overwritten", Parts(lake=in_the_lake.ParkedOverwritten), "parking"),
    Bug("nothing parked", Parts(lake=in_the_lake.NothingParked), "parking"),
    Bug("rejects dropped", Parts(lake=in_the_lake.RejectsDropped), "claims"),
    Bug("claim checks not fetched", Parts(lake=in_the_lake.ClaimsNotFetched), "claims"),
    Bug("numbers as floats", Parts(lake=in_the_lake.NumbersAsFloats)),
    Bug("types forgotten", Parts(lake=in_the_lake.TypesForgotten)),
    Bug("expiries taken for deletes", Parts(lake=in_the_lake.ExpiriesAsDeletes), "deleting"),
    Bug("a digest that is none", Parts(lake=in_the_lake.DigestOfThePlace)),
    Bug("only what is newer remembered", Parts(lake=in_the_lake.OnlyNewerRemembered), "crashing"),
    # beside the job
    Bug("the archive's position moved when read", Parts(delivery=beside_the_job.ArchivePositionFirst), "crashing"),
    Bug("a letter taken before it is sent", Parts(letters=beside_the_job.LettersTakenFirst), "letters"),
)
