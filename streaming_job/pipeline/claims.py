"""Claim checks: images too large for a record, fetched from where the bridge put them and put back in their place."""

import hashlib
import json
from collections.abc import Callable
from typing import Any, Protocol

import orjson
import pyarrow as pa
from botocore.exceptions import BotoCoreError, ClientError

from streaming_job.errors import ClaimCheckUnreachableError
from streaming_job.pipeline.arrow import pc, replaced, values


class ObjectStore(Protocol):
    def get(self, bucket: str, key: str) -> bytes | None:
        """None where there is no such object. Raises ClaimCheckUnreachableError where nobody can tell."""


class S3Objects:
    def __init__(self, client: Any) -> None:
        self._client = client

    def get(self, bucket: str, key: str) -> bytes | None:
        try:
            body: bytes = self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in {"NoSuchKey", "NoSuchBucket", "404"}:
                return None
            raise _unreachable(bucket, key, error) from error
        except BotoCoreError as error:
            raise _unreachable(bucket, key, error) from error
        return body


Decode = Callable[[pa.Table], pa.Table]
"""Changes whose `data` holds an envelope -> the changes those envelopes say, row by row in the same order."""


class Resolver:
    def __init__(self, objects: ObjectStore, decode: Decode) -> None:
        self._objects = objects
        self._decode = decode

    def resolve(self, changes: pa.Table) -> tuple[pa.Table, pa.Table]:
        """The changes with every claim check replaced by its images, and those that cannot be: rejects."""
        is_claim = pc.is_valid(changes["ref"])
        claims = changes.filter(is_claim)
        if not claims.num_rows:
            return changes, claims
        redeemed = [
            self._redeem(line, json.loads(ref))
            for line, ref in zip(values(claims, "data"), values(claims, "ref"), strict=True)
        ]
        reasons = pa.array([reason for _, reason in redeemed], pa.string())
        lost = replaced(claims, "reject", reasons).filter(pc.is_valid(reasons))
        found = claims.filter(pc.is_null(reasons))
        resolved, refused = self._read(found, [envelope for envelope, reason in redeemed if reason is None])
        whole = pa.concat_tables([changes.filter(pc.invert(is_claim)), resolved])
        return whole, pa.concat_tables([lost, refused])

    def _redeem(self, line: bytes, ref: dict[str, Any]) -> tuple[bytes, str | None]:
        """The whole envelope, or why there is none."""
        place = f"s3://{ref['bucket']}/{ref['key']}"
        body = self._objects.get(ref["bucket"], ref["key"])
        if body is None:
            return b"", f"claim check {place} is missing"
        found = hashlib.sha256(body).hexdigest()
        if found != ref["sha256"]:
            return b"", f"claim check {place} has SHA-256 {found}, not {ref['sha256']}"
        try:
            return whole_envelope(line, body), None
        except (ValueError, TypeError, KeyError, RecursionError):
            return b"", f"claim check {place} holds no images"

    def _read(self, claims: pa.Table, envelopes: list[bytes]) -> tuple[pa.Table, pa.Table]:
        if not claims.num_rows:
            return claims, claims
        # Whatever becomes a reject, now or of a strict table later, has the record's own bytes, which can be redriven.
        decoded = replaced(
            self._decode(replaced(claims, "data", pa.array(envelopes, pa.binary()))), "data", claims["data"]
        )
        is_good = pc.is_null(decoded["reject"])
        refused = replaced(claims, "reject", decoded["reject"]).filter(pc.invert(is_good))
        return decoded.filter(is_good), refused


class _Literal:
    """A JSON number as it is written: all its digits."""

    def __init__(self, text: str) -> None:
        self.text = text


def whole_envelope(line: bytes, body: bytes) -> bytes:
    """The envelope as it would have been had its images fitted."""
    envelope, images = _exact(line), _exact(body)
    types = {**(envelope.get("types") or {}), **images["types"]}
    whole = {**envelope, "new": images["new"], "old": images["old"], "types": types, "ref": None}
    return orjson.dumps(whole, default=_as_written)


def _exact(text: bytes) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(text, parse_int=_Literal, parse_float=_Literal, parse_constant=_refuse)
    return parsed


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _as_written(value: object) -> orjson.Fragment:
    if isinstance(value, _Literal):
        return orjson.Fragment(value.text)
    raise TypeError(f"a claim check holds {type(value).__name__}")


def _unreachable(bucket: str, key: str, error: Exception) -> ClaimCheckUnreachableError:
    return ClaimCheckUnreachableError(
        f"claim check s3://{bucket}/{key} cannot be fetched: {error}",
        hint="check the job's permissions s3:GetObject and s3:ListBucket on it, and its way to S3; it is tried again",
    )
