"""Configuration that cannot be used: said once, at start, with the place and the mend."""

from pathlib import Path

from pydantic import ValidationError


class LakestreamError(Exception):
    """Base of every error a person is meant to read: what happened, and what to do about it."""

    exit_code = 1

    def __init__(self, what: str, *, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} ({self.hint})" if self.hint else self.what

    @property
    def line(self) -> str:
        """As a command prints it."""
        return " ".join(f"error: {self.what}{f' - {self.hint}' if self.hint else ''}".split())


class ConfigurationError(LakestreamError):
    """The configuration names something that does not exist or cannot be; nothing was started."""

    exit_code = 2

    @classmethod
    def of_validation(cls, source: Path | str, error: ValidationError) -> "ConfigurationError":
        """One problem by its path in the file, and how many others; a word not known explains most of the rest."""
        first, *others = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        more = f"; {len(others)} more like it" if others else ""
        problem = _problem(first["type"], first["msg"])
        return cls(f"{source}: {place}: {problem}{more}", hint="config/README.md lists every key")


def _problem(kind: str, said: str) -> str:
    """What a check of ours says stays as it is: it may begin with a name of the file's."""
    if kind == "extra_forbidden":
        return "unknown key"
    ours = said.removeprefix("Value error, ")
    return ours if ours != said else said[:1].lower() + said[1:]
