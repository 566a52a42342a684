"""What Kinesis still keeps as material of a replay: read by the job's own source, to where the stream ends now."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from botocore.exceptions import BotoCoreError, ClientError
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession

from config.errors import ConfigurationError
from config.settings import Settings
from streaming_job.errors import JobFailedError
from streaming_job.job import reason_of
from streaming_job.operations.replay import Sieve
from streaming_job.pipeline.arrow import values
from streaming_job.pipeline.intake import Intake, Piece
from streaming_job.pipeline.intake_rows import SOURCE, encoded_rows
from streaming_job.sources import source_frame


@dataclass
class StreamMaterial:
    """Rows keep their positions, so that a reject among them is the one that is there already."""

    spark: SparkSession
    settings: Settings
    intake: Intake
    of_id: str
    position: str
    show: Callable[[int, None], None]
    """Records read."""
    stream: str = ""
    _pieces: list[Piece] = field(default_factory=list)
    _read: int = 0

    def pieces(self, sieve: Sieve) -> Iterator[Piece]:
        with TemporaryDirectory(prefix="lakestream-replay-") as checkpoint:
            self._read_to_the_end(Path(checkpoint), lambda frame, _batch: self._keep(frame, sieve))
        yield from self._pieces

    def _read_to_the_end(self, checkpoint: Path, each: Callable[[DataFrame, int], None]) -> None:
        """By polling: the registered consumer is the job's."""
        from_there = self.settings.source.model_copy(
            update={"starting_position": self.position, "consumer_mode": "polling", "consumer_name": None}
        )
        frame = source_frame(self.spark, self.settings.model_copy(update={"source": from_there}))
        query = (
            frame.writeStream.foreachBatch(each)
            .option("checkpointLocation", str(checkpoint))
            .trigger(availableNow=True)
            .start()
        )
        try:
            query.awaitTermination()
        except StreamingQueryException as error:
            raise JobFailedError(reason_of(error), hint="nothing was handed over; run it again") from error
        finally:
            if query.isActive:
                query.stop()

    def _keep(self, frame: DataFrame, sieve: Sieve) -> None:
        rows = frame.select(*SOURCE.names).toArrow()
        self._read += rows.num_rows
        kept = rows.filter(pa.array([sieve.keeps(data) for data in values(rows, "data")], pa.bool_()))
        if kept.num_rows:
            name = f"{len(self._pieces):08d}"
            self._pieces.append(
                Piece(name=name, address=self.intake.stage(self.of_id, name, encoded_rows(kept)), form="rows")
            )
        self.show(self._read, None)


def refuse_lost_times(kinesis: Any, stream: str, since: datetime, now: datetime) -> None:
    """ConfigurationError for a time the stream does not keep any more."""
    horizon = horizon_of(kinesis, stream, now)
    if since < horizon:
        raise ConfigurationError(
            f"{since:%Y-%m-%dT%H:%MZ} is before the horizon: what {stream} keeps begins {horizon:%Y-%m-%dT%H:%MZ}",
            hint="--from trim-horizon replays all of that; --from archive --since a time reaches further back",
        )


def horizon_of(kinesis: Any, stream: str, now: datetime) -> datetime:
    """From when on the stream keeps what was put there: within its retention, and since it was made."""
    try:
        summary = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    except (ClientError, BotoCoreError) as error:
        raise ConfigurationError(
            f"stream {stream} cannot be described: {' '.join(str(error).split())}",
            hint="check source.stream; this needs kinesis:DescribeStreamSummary",
        ) from error
    kept = timedelta(hours=summary["RetentionPeriodHours"])
    created: datetime = summary["StreamCreationTimestamp"].astimezone(UTC)
    return max(now - kept, created)
