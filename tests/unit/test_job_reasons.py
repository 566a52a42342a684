"""Why a query ended, in the words that help: of our own errors, of Spark's cause, of a process that said nothing."""

import pytest
from pyspark.errors import StreamingQueryException

from config.settings import LakeSettings
from streaming_job.job import mend_of, reason_of


class Ended(StreamingQueryException):
    """As Spark raises it, with its text and Java's trace."""

    def __init__(self, text: str, trace: str = "") -> None:
        Exception.__init__(self, text)
        self._text, self._stackTrace = text, trace

    def __str__(self) -> str:
        return self._text


@pytest.mark.parametrize(
    ("text", "trace", "reason"),
    [
        (
            "[STREAM_FAILED] Query terminated with exception: Traceback\nx.y.DataLossError: shard 3: trimmed\n",
            "",
            "x.y.DataLossError: shard 3: trimmed",
        ),
        (
            "[STREAM_FAILED] Query terminated with exception: SQLSTATE: XXKST",
            "java.io.EOFException\n\tat java.io.DataInputStream\n\tat a.PythonStreamingSourceRunner.latestOffset",
            "the process that reads the stream ended without a word: killed, or out of memory",
        ),
        (
            "[STREAM_FAILED] Query terminated with exception",
            "org.apache.hadoop.fs.FSError\n\tat x\nCaused by: java.io.IOException: No space left on device\n\tat y",
            "java.io.IOException: No space left on device",
        ),
        (
            "[STREAM_FAILED]\nstreaming_job.kinesis.errors.DataLossError: shard 3: trimmed (load it)",
            "",
            "shard 3: trimmed (load it)",
        ),
        ("Something of Spark's", "", "Something of Spark's"),
        ("", "", "the query failed"),
    ],
)
def test_the_innermost_reason_is_named(text: str, trace: str, reason: str) -> None:
    assert reason_of(Ended(text, trace)) == reason


@pytest.mark.parametrize(
    ("reason", "mend"),
    [
        ("java.io.IOException: No space left on device", "make room for /lake and /checkpoint"),
        ("OSError: Read-only file system (os error 30)", "make /lake and /checkpoint writable"),
        ("anything else", "mend it"),
    ],
)
def test_trouble_of_a_disk_names_the_places_on_it(reason: str, mend: str) -> None:
    assert mend_of(reason, LakeSettings(root="/lake", checkpoint="/checkpoint")) == mend
