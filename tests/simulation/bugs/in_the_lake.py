"""What can be wrong about writing the tables."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from streaming_job.pipeline.steps import AfterStep, go_on
from tests.simulation.decoder import Change
from tests.simulation.lake import Lake, Record, Reject, Table


class NoGuard(Lake):
    """The last to come wins."""

    def _merge(self, name: str, newest: Iterable[Change]) -> None:
        for change in newest:
            self._put(name, change, self.tables[name].current.get(change.key), self._clock())


class SequenceAsNumber(Lake):
    """Sequence numbers cast to a double: neighbours of 21 digits are equal."""

    def is_newer(self, seq: str, than: str) -> bool:
        one, other = seq.split("-"), than.split("-")
        return (one[0], float(one[1])) > (other[0], float(other[1]))


class SequenceUnpadded(Lake):
    """Compared as text without its leading zeros: 9 is newer than 10."""

    def is_newer(self, seq: str, than: str) -> bool:
        one, other = seq.split("-"), than.split("-")
        return (one[0], one[1].lstrip("0")) > (other[0], other[1].lstrip("0"))


class GenerationIgnored(Lake):
    """A stream made anew begins below the old one's numbers."""

    def is_newer(self, seq: str, than: str) -> bool:
        return seq.split("-")[1] > than.split("-")[1]


class TombstoneRemovedEarly(Lake):
    """A delete takes the row away, so that an older change finds nothing newer than itself."""

    def _merge(self, name: str, newest: Iterable[Change]) -> None:
        super()._merge(name, newest)
        current = self.tables[name].current
        for key in [key for key, row in current.items() if row.deleted]:
            self._watcher.merged(name, key, current.pop(key), None)


class PurgeForgets(Lake):
    """Purged tombstones are not asked of history."""

    def _still_newest(self, table: Table, newest: Collection[Change]) -> list[Change]:
        return list(newest)


class HistoryAppended(Lake):
    """No unique key: a batch run again is in history twice."""

    def _remember(self, table: Table, changes: Iterable[Change]) -> None:
        for change in changes:
            self._insert(table, change)


class LastOfTheBatch(Lake):
    """Of a key's changes in one batch the last that arrived, not the newest."""

    def _newest(self, table: Table, changes: Iterable[Change]) -> list[Change]:
        return self._still_newest(table, {change.key: change for change in changes}.values())


class BatchNumbersTrusted(Lake):
    """A batch whose number was seen before is skipped, as Delta does with txnVersion."""

    _seen = -1

    def process_batch(self, records: Sequence[Record], after_step: AfterStep = go_on, *, number: int = 0) -> None:
        if number > self._seen or not number:
            super().process_batch(records, after_step, number=number)
            self._seen = max(self._seen, number)


class SnapshotWins(Lake):
    """A scan overwrites what came by the stream."""

    def is_newer(self, seq: str, than: str) -> bool:
        return seq.endswith("-" + "0" * 40) or super().is_newer(seq, than)


class ParkedOverwritten(Lake):
    """Of a table that is down only the last batch is kept."""

    def _park(self, table: Table, changes: Iterable[Change]) -> None:
        table.parked = list(changes)


class NothingParked(Lake):
    """The position moves on although the table could not be written and nothing was parked."""

    def _park(self, table: Table, changes: Iterable[Change]) -> None:
        """Gone."""


class RejectsDropped(Lake):
    """A change whose claim check is missing is let go."""

    def _reject(self, reject: Reject) -> None:
        """Gone."""


class ClaimsNotFetched(Lake):
    """The envelope of a claim check is taken for the whole change."""

    def _images(self, change: Change) -> Change | str:
        return replace(change, ref=None, new={}, old=None)


class NumbersAsFloats(Lake):
    def decode(self, data: bytes) -> Change | str:
        change = super().decode(data)
        if isinstance(change, Change) and change.new is not None:
            return replace(change, new=json.loads(data, parse_int=float)["new"])
        return change


class TypesForgotten(Lake):
    """Binary and sets stay what plain JSON makes of them."""

    def decode(self, data: bytes) -> Change | str:
        change = super().decode(data)
        return replace(change, types={}) if isinstance(change, Change) else change


class ExpiriesAsDeletes(Lake):
    """An expiry by TTL is taken for a user's delete."""

    def decode(self, data: bytes) -> Change | str:
        change = super().decode(data)
        return replace(change, ttl=False) if isinstance(change, Change) else change


class DigestOfThePlace(Lake):
    """Of where the item stands in its envelope: one item has several, and several items one."""

    def decode(self, data: bytes) -> Change | str:
        change = super().decode(data)
        if isinstance(change, Change) and change.digest is not None:
            return replace(change, digest=str(data.find(b'"new"')))
        return change


class OnlyNewerRemembered(Lake):
    """What comes late is left out of history too: the guard is put before both tables."""

    def _write(self, name: str, changes: Sequence[Change], after_step: AfterStep) -> None:
        held = {change.key: change for change in self.tables[name].history}
        news = [
            change for change in changes if change.key not in held or self.is_newer(change.seq, held[change.key].seq)
        ]
        super()._write(name, news, after_step)
