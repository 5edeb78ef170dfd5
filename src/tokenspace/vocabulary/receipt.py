"""The receipt of an edit: what changed, and what that did. Plain data, as `receipt.json` holds it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from tokenspace import __version__
from tokenspace.errors import CheckpointError
from tokenspace.files import as_path, read_sealed_json, sealed_json, write_file

FILE_NAME = "receipt.json"


@dataclass(frozen=True)
class Size:
    """A vocabulary before or after.

    Attributes:
        vocab_size: The tokenizer's: the largest id plus 1.
        num_rows: The table's, padding included.
        identity: The tokenizer's SHA-256.
        equal_rows: Tokens whose row equals one before it, byte for byte.
        untrained: Tokens that training never saw, where `basis` is "ledger"; else rows without a token, and
            new ones.
        tokens: Of the text that was given; None without one.
        bits_per_byte: On that text; None without one, or where the model cannot be run.
    """

    vocab_size: int
    num_rows: int
    identity: str
    equal_rows: int
    untrained: int
    tokens: int | None = None
    bits_per_byte: float | None = None


@dataclass(frozen=True)
class Changed:
    """A tensor that was changed."""

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What an edit changed.

    Attributes:
        verb: "add", "remove", "trim", "reorder" or "resize".
        before: The vocabulary before.
        after: The vocabulary after.
        tied: Whether head and table are one, before and after; None without a head.
        changed: The tensors, files' settings and states that were.
        added: New tokens: id, text and pieces before.
        removed: Tokens that are gone, as the tokenizer's file writes them, by their id before.
        runs: The id map, as (first id before, first id after, how many); ids in no run are gone.
        recipe: How new rows began, in words; empty without any.
        near: New tokens whose row is nearly another's: id, other id, cosine.
        basis: What "untrained" goes by.
        text_bytes: Of the text given; None without one.
        divergence: Mean KL divergence in nats of the tokens that stayed, on the text's first tokens.
        remarks: What else should be known.
    """

    verb: str
    before: Size
    after: Size
    tied: bool | None
    changed: list[Changed] = field(default_factory=list)
    added: list[dict[str, Any]] = field(default_factory=list)
    removed: dict[int, str] = field(default_factory=dict)
    runs: list[tuple[int, int, int]] = field(default_factory=list)
    recipe: str = ""
    near: list[dict[str, Any]] = field(default_factory=list)
    basis: str = "rows without a token, and new ones"
    text_bytes: int | None = None
    divergence: float | None = None
    remarks: list[str] = field(default_factory=list)

    @property
    def id_map(self) -> np.ndarray:
        """For each id before, the id after, int64; -1 for one that is gone."""
        to = np.full(self.before.vocab_size, -1, dtype=np.int64)
        for first, new, count in self.runs:
            to[first : first + count] = np.arange(new, new + count)
        return to

    def fields(self) -> dict[str, Any]:
        """As `receipt.json` holds it."""
        parts = {"before": asdict(self.before), "after": asdict(self.after)}
        changed = [asdict(change) for change in self.changed]  # not asdict(self), which copies long lists deeply
        return {"made_by": f"tokenspace {__version__}", **vars(self), **parts, "changed": changed}

    def save(self, path: str | Path) -> None:
        """Write it as JSON with a checksum, whole or not at all."""
        write_file(as_path(path, "receipt"), sealed_json(_plain(self.fields())))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The receipt in a `receipt.json`.

        Raises:
            CheckpointError: the file is missing, damaged or altered.
        """
        fields = read_sealed_json(as_path(path, "receipt"))
        try:
            fields.pop("made_by")
            sizes = {name: Size(**fields.pop(name)) for name in ("before", "after")}
            changed = [Changed(c["name"], tuple(c["before"]), tuple(c["after"])) for c in fields.pop("changed")]
            removed = {int(token_id): label for token_id, label in fields.pop("removed").items()}
            runs = [tuple(run) for run in fields.pop("runs")]
            return cls(**sizes, changed=changed, removed=removed, runs=runs, **fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(str(path), "be a receipt", error, "Give the file that an edit wrote") from error

    def header(self) -> list[str]:
        """Of `rows`."""
        return ["", "before", "after"]

    def rows(self) -> list[list[str]]:
        """A short table."""
        lines = [("tokens (largest id + 1)", "vocab_size"), ("rows of the table", "num_rows")]
        lines += [("tokens with an equal row before them", "equal_rows"), (f"untrained ({self.basis})", "untrained")]
        lines += [("tokens of the text", "tokens"), ("bits per byte", "bits_per_byte")]
        shown = [[name, _cell(getattr(self.before, of)), _cell(getattr(self.after, of))] for name, of in lines]
        tied = {True: "tied", False: "apart", None: "none"}[self.tied]
        shown.append(["head", tied, tied])
        if self.divergence is not None:
            shown.append(["KL of the tokens that stayed, nats", "", f"{self.divergence:.3g}"])
        return shown

    def told(self) -> list[str]:
        """What else happened, a line each."""
        lines = [f"{len(self.added):,} added, {len(self.removed):,} removed"] if self.added or self.removed else []
        lines += [f"new rows: {self.recipe}"] if self.recipe else []
        if self.near:
            pairs = ", ".join(f"{near['id']} and {near['other']} ({near['cosine']:.6f})" for near in self.near[:3])
            lines.append(f"{len(self.near):,} new rows nearly equal another, by cosine: {pairs}")
        return [*lines, *self.remarks]


def runs_of(to: Sequence[int]) -> list[tuple[int, int, int]]:
    """An id map as runs.

    Example:
        >>> runs_of([0, 1, -1, 2, 7])
        [(0, 0, 2), (3, 2, 1), (4, 7, 1)]
    """
    to = np.asarray(to, dtype=np.int64)
    old = np.flatnonzero(to >= 0)
    if not len(old):
        return []
    new = to[old]
    starts = np.flatnonzero(np.concatenate([[True], (np.diff(old) != 1) | (np.diff(new) != 1)]))
    counts = np.diff(np.append(starts, len(old)))
    return list(zip(old[starts].tolist(), new[starts].tolist(), counts.tolist(), strict=True))


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """With text for keys, as JSON has them: the checksum is over what is read back."""
    return fields | {"removed": {str(token_id): label for token_id, label in fields["removed"].items()}}


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
