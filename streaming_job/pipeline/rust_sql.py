"""Names, texts and moments in the SQL of delta-rs' query engine; Spark escapes in another way."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def texts(values: Iterable[str]) -> str:
    """For `IN (…)`."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)


def moment(micros: int) -> str:
    """Of a column of timestamps, compared without a conversion: so that files are left out by their statistics."""
    at = (_EPOCH + timedelta(microseconds=micros)).isoformat(timespec="microseconds")
    return f"arrow_cast('{at}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
