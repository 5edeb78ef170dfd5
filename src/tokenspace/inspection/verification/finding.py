"""What a verification finds: plain data with a name, a place and what to do."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from tokenspace.inspection.results import Shown

Level = Literal["error", "warning", "note"]
Progress = Callable[[str, int, int], None]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
_LONGEST_LIST = 8


@dataclass(frozen=True)
class Finding:
    """One thing that a verification found.

    Attributes:
        level: "error": something gives wrong results or cannot be opened; "warning": it may; "note": good to know.
        name: What kind of thing it is, for machines: "tie-flag", "zero-rows", …
        place: The file, tensor or setting.
        found: What is there.
        next_step: What to do.
        ids: The rows or tokens concerned, all of them.
    """

    level: Level
    name: str
    place: str
    found: str
    next_step: str
    ids: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Verification(Shown):
    """All that was found in a model.

    Attributes:
        path: The model.
        family: What it is.
        num_rows: Of the token table.
        vocab_size: The tokenizer's size; None without one.
        findings: Errors first.
    """

    path: str
    family: str
    num_rows: int
    vocab_size: int | None
    findings: list[Finding]

    @property
    def is_sound(self) -> bool:
        """Whether there is no error and no warning."""
        return all(finding.level == "note" for finding in self.findings)

    def header(self) -> list[str]:
        """Names of the columns."""
        return ["", "what", "where", "found", "what to do"]

    def rows(self) -> list[list[str]]:
        """One a finding."""
        return [[f.level, f.name, f.place, f.found, f.next_step] for f in self.findings]


def listed(ids: Iterable[int], label: Callable[[int], str] = str) -> str:
    """The first few ids in words.

    Example:
        >>> listed(range(20))
        '0, 1, 2, 3, 4, 5, 6, 7 and 12 more'
    """
    ids = list(ids)
    more = f" and {len(ids) - _LONGEST_LIST:,} more" if len(ids) > _LONGEST_LIST else ""
    return ", ".join(label(i) for i in ids[:_LONGEST_LIST]) + more
