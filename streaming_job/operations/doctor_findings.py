"""What a check found, and the mend where there is one."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from config.errors import LakestreamError


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing fails."""
    WARNING = "warning"
    """Works now, and will not, or not as promised."""
    PROBLEM = "problem"
    """The job, the bridge or a command fails by it."""


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    check: str
    what: str
    mend: str = ""


Check = Callable[[], Iterable[Finding]]

DENIED: Final = frozenset(
    ("AccessDenied", "AccessDeniedException", "403", "UnauthorizedOperation", "AccessDeniedError", "KMSAccessDenied")
)
_CREDENTIALS: Final = "give this machine credentials: a role, a profile, or the stack's own environment"
_CREDENTIAL_ERRORS: Final = frozenset(
    (
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
    )
)


def ok(check: str, what: str) -> Finding:
    return Finding(Level.OK, check, what)


def note(check: str, what: str, mend: str = "") -> Finding:
    return Finding(Level.NOTE, check, what, mend)


def warning(check: str, what: str, mend: str) -> Finding:
    return Finding(Level.WARNING, check, what, mend)


def problem(check: str, what: str, mend: str) -> Finding:
    return Finding(Level.PROBLEM, check, what, mend)


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def examined(check: str, run: Check, right: str = "") -> Iterator[Finding]:
    """What the check found, or why it could not look: one check's failure hides no other's findings."""
    try:
        yield from run()
    except ClientError as error:
        code = code_of(error)
        if code in _CREDENTIAL_ERRORS:
            yield problem(check, f"the credentials are not accepted: {code}", _CREDENTIALS)
        elif code in DENIED:
            yield problem(
                check, f"{error.operation_name} is denied", f"allow {right or error.operation_name} to this role"
            )
        else:
            yield problem(check, f"{error.operation_name}: {code}", f"see the service's page on {code}")
    except BotoCoreError as error:
        what = " ".join(str(error).split())
        mend = (
            _CREDENTIALS if "redentials" in what else "check aws.endpoint, aws.region and the way out of this network"
        )
        yield problem(check, what, mend)
    except OSError as error:
        # As delta-rs says that a bucket cannot be reached.
        yield problem(
            check, " ".join(str(error).split()), "can this machine reach and read it? aws.endpoint, its rights"
        )
    except LakestreamError as error:
        yield problem(check, error.what, error.hint or "see README, 'Configuration'")
