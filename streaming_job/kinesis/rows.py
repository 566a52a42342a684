"""Records between GetRecords and Spark, as columns: one list a column, cut only between Kinesis records."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

import pyarrow as pa

from streaming_job.kinesis.kpl import AGGREGATED_MAGIC, user_records

SCHEMA = (
    "partitionKey string, data binary, stream string, shardId string, sequenceNumber string, "
    "approximateArrivalTimestamp timestamp"
)
"""The row schema of Databricks' `kinesis` source."""

_FIELDS: list[tuple[str, pa.DataType]] = [
    ("partitionKey", pa.string()),
    ("data", pa.binary()),
    ("stream", pa.string()),
    ("shardId", pa.string()),
    ("sequenceNumber", pa.string()),
    ("approximateArrivalTimestamp", pa.timestamp("us", tz="UTC")),
]
ARROW: Final[pa.Schema] = pa.schema(_FIELDS)


@dataclass
class Rows:
    """User records in stream order. Those of one aggregated record share its sequence number and stay together."""

    sequences: list[str] = field(default_factory=list)
    arrivals_ms: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    size: int = 0
    """Bytes of data."""

    @classmethod
    def of(cls, sequences: list[str], arrivals_ms: list[int], keys: list[str], data: list[bytes]) -> "Rows":
        return cls(sequences, arrivals_ms, keys, data, sum(map(len, data)))

    def __len__(self) -> int:
        return len(self.sequences)

    def slice(self, start: int, stop: int) -> "Rows":
        return Rows.of(
            self.sequences[start:stop], self.arrivals_ms[start:stop], self.keys[start:stop], self.data[start:stop]
        )

    def boundary(self, rows_max: int, bytes_max: int) -> int:
        """The most rows within both limits that end between two Kinesis records; 0 where not one record fits."""
        count = min(rows_max, len(self))
        if self.size > bytes_max:
            fits = next((i for i, total in enumerate(accumulate(map(len, self.data))) if total > bytes_max), len(self))
            count = min(count, fits)
        return self._whole(count)

    def first_record(self) -> int:
        """Rows of the first Kinesis record."""
        first = self.sequences[0]
        return next((i for i, sequence in enumerate(self.sequences) if sequence != first), len(self))

    def _whole(self, count: int) -> int:
        while 0 < count < len(self) and self.sequences[count] == self.sequences[count - 1]:
            count -= 1
        return count

    def from_ms(self, ms: int) -> "Rows":
        """Without what arrived before: AT_TIMESTAMP finds a place, the rows decide."""
        start = next((i for i, arrival in enumerate(self.arrivals_ms) if arrival >= ms), len(self))
        return self.slice(start, len(self)) if start else self

    def until_ms(self, ms: int) -> "Rows":
        """Without what arrived later, nor anything behind it."""
        stop = next((i for i, arrival in enumerate(self.arrivals_ms) if arrival > ms), len(self))
        return self.slice(0, self._whole(stop)) if stop < len(self) else self

    def through(self, sequence: str) -> "Rows":
        """Up to and with a sequence number."""
        bound = (len(sequence), sequence)
        stop = next((i for i, s in enumerate(self.sequences) if (len(s), s) > bound), len(self))
        return self.slice(0, stop) if stop < len(self) else self

    def to_arrow(self, stream: str, shard: str) -> pa.RecordBatch:
        count = len(self)
        arrivals = pa.array(self.arrivals_ms, pa.timestamp("ms", tz="UTC")).cast(pa.timestamp("us", tz="UTC"))
        return pa.RecordBatch.from_arrays(
            [
                pa.array(self.keys, pa.string()),
                pa.array(self.data, pa.binary()),
                pa.repeat(pa.scalar(stream, pa.string()), count),
                pa.repeat(pa.scalar(shard, pa.string()), count),
                pa.array(self.sequences, pa.string()),
                arrivals,
            ],
            schema=ARROW,
        )


def to_ipc(batches: Sequence[pa.RecordBatch]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, ARROW) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def from_ipc(payload: bytes) -> list[pa.RecordBatch]:
    with pa.ipc.open_stream(payload) as reader:
        return list(reader)


def get_ready() -> None:
    """PyArrow looks for pandas when it is given its first list: 0.3 s of a process, which no batch should wait for."""
    Rows().to_arrow("", "")


def deaggregate(rows: Rows) -> Rows:
    """Records that the Kinesis Producer Library packed, as the producer wrote them; all others as they are."""
    if not any(data.startswith(AGGREGATED_MAGIC) for data in rows.data):
        return rows
    result = Rows()
    for sequence, arrival, key, data in zip(rows.sequences, rows.arrivals_ms, rows.keys, rows.data, strict=True):
        for user_key, payload in user_records(key, data):
            result.sequences.append(sequence)
            result.arrivals_ms.append(arrival)
            result.keys.append(user_key)
            result.data.append(payload)
            result.size += len(payload)
    return result
