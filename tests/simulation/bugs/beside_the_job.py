"""What can be wrong about the archive, the failed batches and redrive."""

from streaming_job.operations.redrive_letters import Letter, Letters, Place
from tests.simulation.archive import Delivery


class ArchivePositionFirst(Delivery):
    """The position moves when records are read: a kill leaves them out of the archive."""

    def poll(self) -> bool:
        found = super().poll()
        self.positions.after |= self._read_after
        return found


class LettersTakenFirst(Letters):
    """A letter goes when it is read, before its record has reached Kinesis."""

    _reads: dict[str, int]

    def read(self, place: Place, name: str) -> Letter | None:
        letter = super().read(place, name)
        self._reads = getattr(self, "_reads", {})
        self._reads[name] = self._reads.get(name, 0) + 1
        if self._reads[name] > 1:  # the first look is for its place in the order
            self._client.objects.pop((place.bucket, name), None)
        return letter
