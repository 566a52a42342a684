"""Where a query stands in an archive: which objects it has taken, folder by folder. Pure values, and their JSON.

An object may land in an hour long past, and within an hour names are in no order: what counts is the set of names. Of
an hour that has come to rest only a sum over them stays. Where a listing shows others, something lies there that was
not taken, and the hour is read again: the tables take a change once, however often it comes.

Spark compares offsets as text, so all names are written in sorted order.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Final

from streaming_job.files.errors import OffsetError
from streaming_job.objects import Listed

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Sum:
    """A set of names, without the names."""

    count: int = 0
    marks: int = 0
    """Of each name eight bytes of its hash, all combined by exclusive or: in whatever order they come."""

    def plus(self, names: Iterable[str]) -> "Sum":
        count, marks = self.count, self.marks
        for name in names:
            count += 1
            marks ^= int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")
        return Sum(count, marks)


NOTHING: Final = Sum()


@dataclass(frozen=True, slots=True)
class Folder:
    """What has been taken of one folder: `names`, and those that are only summed up."""

    names: frozenset[str] = frozenset()
    newest_ms: int = 0
    """When the newest of all that was taken had been put there."""
    summed: Sum = NOTHING
    summed_ms: int = 0
    """None of the summed is newer."""

    def unread(self, found: Sequence[Listed]) -> tuple["Folder", list[Listed]]:
        """What of the listing was not taken yet; and this folder, as what is taken now is to be added to it."""
        fresh = [entry for entry in found if entry.name not in self.names]
        if self.summed == NOTHING:
            return self, fresh
        known = NOTHING.plus(entry.name for entry in fresh if entry.modified_ms <= self.summed_ms)
        if known == self.summed or known.count < self.summed.count:
            # Fewer: some were deleted since, and what is left was taken.
            return replace(self, summed=known), [entry for entry in fresh if entry.modified_ms > self.summed_ms]
        return replace(self, summed=NOTHING, summed_ms=0), fresh

    def taking(self, taken: Sequence[Listed]) -> "Folder":
        names = self.names | {entry.name for entry in taken}
        return replace(self, names=names, newest_ms=max(self.newest_ms, *(entry.modified_ms for entry in taken)))

    def at_rest(self) -> "Folder":
        return Folder(frozenset(), self.newest_ms, self.summed.plus(self.names), self.newest_ms)

    def to_json(self) -> dict[str, Any]:
        names = {"names": sorted(self.names)} if self.names else {}
        summed = (
            {"summed": {"count": self.summed.count, "marks": f"{self.summed.marks:016x}", "newest_ms": self.summed_ms}}
            if self.summed != NOTHING
            else {}
        )
        return {**names, "newest_ms": self.newest_ms, **summed}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Folder":
        summed = value.get("summed")
        return cls(
            frozenset(value.get("names", ())),
            int(value["newest_ms"]),
            Sum(int(summed["count"]), int(summed["marks"], 16)) if summed else NOTHING,
            int(summed["newest_ms"]) if summed else 0,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where the query stands below one prefix: what lies in folders before `begin` is done with."""

    begin: str = ""
    folders: Mapping[str, Folder] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        folders = {name: folder.to_json() for name, folder in sorted(self.folders.items())}
        return {"begin": self.begin, "folders": folders}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Place":
        folders = {name: Folder.from_json(folder) for name, folder in value["folders"].items()}
        return cls(str(value["begin"]), folders)


@dataclass(frozen=True, slots=True)
class Offset:
    bucket: str
    places: Mapping[str, Place]
    """By prefix."""
    fresh: bool = False
    """Of a query without a checkpoint. Its first batch is empty and only writes this down: Spark asks anew when that
    batch is run again, and by then other objects may lie there.
    """

    def taken_since(self, start: "Offset") -> Iterator[str]:
        """The names, in order, of the objects between the two: what a batch reads, whatever has landed since."""
        for prefix, place in sorted(self.places.items()):
            before = start.places.get(prefix, Place()).folders
            for folder, state in sorted(place.folders.items()):
                for name in sorted(state.names - before.get(folder, Folder()).names):
                    yield f"{prefix}{folder}{name}"

    def to_json(self) -> dict[str, Any]:
        fresh = {"fresh": True} if self.fresh else {}
        places = {prefix: place.to_json() for prefix, place in sorted(self.places.items())}
        return {"bucket": self.bucket, **fresh, "places": places, "version": VERSION}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Offset":
        if value.get("version") != VERSION or "places" not in value:
            raise OffsetError(
                f"the checkpoint's offset is none of an archive, version {VERSION}",
                hint="it was written by another source or release: use that one, or start with a new checkpoint",
            )
        try:
            places = {prefix: Place.from_json(place) for prefix, place in value["places"].items()}
            return cls(str(value["bucket"]), places, fresh=bool(value.get("fresh", False)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OffsetError(
                f"the checkpoint's offset is damaged: {error!r}", hint="restore the checkpoint or start with a new one"
            ) from error
