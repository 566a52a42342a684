"""What can go wrong in the bridge, split by what is done about it. A message never holds item data.

BridgeError
├── Refusal        the function cannot work as configured: it refuses to start, and says what to mend
├── NotOurEvent    the whole event comes from somewhere else: the invocation fails
├── PoisonRecord   one record can never become an envelope: dead letter, the shard goes on
├── Park           S3 did not take a dead letter or a claim check: the record is reported unsent
└── Publish
    ├── TryAgain   throttled, timed out, 5xx: sent again while there is time
    ├── CallInvalid  Kinesis calls the request itself invalid: split until the culprit is alone
    └── StreamGone   no stream, no permission, no key: nothing more is sent in this invocation
"""


class BridgeError(Exception):
    def __init__(self, what: str, *, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} ({self.hint})"


class RefusalError(BridgeError):
    pass


class NotOurEventError(BridgeError):
    pass


class PoisonRecordError(BridgeError):
    """`reason` is a short word for metrics and for the dead letter's name in `redrive`."""

    def __init__(self, reason: str, what: str, *, hint: str) -> None:
        super().__init__(what, hint=hint)
        self.reason = reason


class ParkError(BridgeError):
    pass


class PublishError(BridgeError):
    pass


class TryAgainError(PublishError):
    pass


class CallInvalidError(PublishError):
    pass


class StreamGoneError(PublishError):
    pass
