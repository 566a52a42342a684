"""Java's patterns of dates and times, as rules files hold them."""

from datetime import UTC, datetime

import pytest

from config.tables import ColumnRule
from config.time_formats import UnknownPatternError, time_format

READ = [
    ("dd/MM/yyyy HH:mm", "01/07/2026 12:00", "2026-07-01T12:00:00+00:00"),
    ("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "2026-07-01T12:00:00.250+02:00", "2026-07-01T12:00:00.250000+02:00"),
    ("yyyy-MM-dd'T'HH:mm:ssX", "2026-07-01T12:00:00Z", "2026-07-01T12:00:00+00:00"),
    ("d MMM yy, h:mm a", "3 Feb 26, 1:05 PM", "2026-02-03T13:05:00+00:00"),
    ("EEEE, MMMM d uuuu", "Monday, June 1 2026", "2026-06-01T00:00:00+00:00"),
    ("yyyyMMddHHmmssSSSSSSSSS", "20260701120000123456789", "2026-07-01T12:00:00.123456+00:00"),
    ("h 'o''clock' a", "12 o'clock am", "1970-01-01T00:00:00+00:00"),
]
NOT_READ = [
    ("dd/MM/yyyy", "1/7/2026"),
    ("dd/MM/yyyy", "31/02/2026"),
    ("HH:mm", "24:00"),
    ("hh:mm a", "13:00 pm"),
    ("yyyy", "٢٠٢٦"),
    ("yyyy-MM-dd", "2026-07-01 "),
]


@pytest.mark.parametrize(("pattern", "text", "moment"), READ)
def test_a_time_is_read_as_its_pattern_says(pattern: str, text: str, moment: str) -> None:
    assert time_format(pattern).parse(text, UTC) == datetime.fromisoformat(moment)


@pytest.mark.parametrize(("pattern", "text"), NOT_READ)
def test_what_is_no_such_time_is_none(pattern: str, text: str) -> None:
    assert time_format(pattern).parse(text, UTC) is None


@pytest.mark.parametrize("pattern", ["YYYY-MM-dd", "HH:mm z", "dd 'of MMMM", "SSSSSSSSSS", "MMMMM"])
def test_a_pattern_we_do_not_read_is_refused_with_the_rules_file(pattern: str) -> None:
    with pytest.raises(UnknownPatternError):
        time_format(pattern)
    with pytest.raises(ValueError, match=r"is not read|is not closed"):
        ColumnRule.model_validate({"type": "timestamp", "format": pattern})
