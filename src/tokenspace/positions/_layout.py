"""Layout: where the queries and keys of one batch stand.

One object says which positions and documents the queries and keys have, which keys
are real, and how far apart a query and its key can be. Every scheme, the attention
mask and the key-value cache read it, so nothing is guessed from token ids. It holds
no vectors and knows no scheme.

Axis letters: B batch, T query length, S key length. Keys end where queries end: query
``t`` stands at key index ``S - T + t``, after any cached or memory keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from tokenspace.errors import ShapeError, check_at_least


class HasLayout(Protocol):
    """A cache: it knows the layout of the keys it holds (None while it is empty)."""

    layout: "Layout | None"


@dataclass(frozen=True, eq=False)
class Layout:
    """Positions, documents and validity of a batch's queries and keys.

    Build one with `contiguous`, `packed`, `padded` or `explicit`; put keys before it with
    `extend` (a cache) or `with_memory`.

    Attributes:
        query_positions: int64, (T,) when all rows agree, else (B, T); counted in tokens.
        key_positions: int64, (S,) or (B, S).
        max_distance: no query stands farther than this from a key.
        max_position: no position is above this.
        query_documents: int64 ids, (T,) or (B, T), or None where each row is one document.
        key_documents: int64 ids, (S,) or (B, S), or None.
        key_valid: bool, (B, S), False where a key is padding; None where all are real.
        rotated: How many of the first keys have been through `Scheme.rotate`, and wait in a cache.
        memory_length: How many of the first keys are memory of an earlier segment.
        consecutive: Whether each key that a real query may see is as far from it as their places in
            the row are, so that the relative position is ``s - (S - T + t)`` wherever it matters.
        ends_in_padding: Whether the last key of some row is padding.

    Example:
        >>> Layout.packed([2, 3]).query_positions.tolist()
        [0, 1, 0, 1, 2]
    """

    query_positions: Tensor
    key_positions: Tensor
    max_distance: int
    max_position: int
    query_documents: Tensor | None = None
    key_documents: Tensor | None = None
    key_valid: Tensor | None = None
    rotated: int = 0
    memory_length: int = 0
    consecutive: bool = False
    ends_in_padding: bool = False

    @classmethod
    def contiguous(cls, length: int, device: torch.device | str | None = None) -> "Layout":
        """Rows of `length` tokens at positions 0, 1, … length - 1.

        Raises:
            SettingError: `length` is below 1.
        """
        check_at_least(1, length=length)
        positions = torch.arange(length, device=device)
        return cls(positions, positions, max_distance=length - 1, max_position=length - 1, consecutive=True)

    @classmethod
    def packed(
        cls, lengths: Sequence[int] | Sequence[Sequence[int]], device: torch.device | str | None = None
    ) -> "Layout":
        """Documents of these lengths, one after another; positions restart with each.

        Args:
            lengths: Of the documents of one row, shared by the batch; or of each row, as lists
                with the same sum.
            device: Where the tensors live.

        Raises:
            SettingError: a length is below 1.
            ShapeError: the rows have different sums, or there is no length.
        """
        rows = [list(row) for row in lengths] if lengths and isinstance(lengths[0], Sequence) else [list(lengths)]
        for length in (length for row in rows for length in row):
            check_at_least(1, length=length)
        if len({sum(row) for row in rows}) != 1 or not sum(rows[0]):
            raise ShapeError("lengths", "sum to one row length above 0", [sum(row) for row in rows], "Pad or cut a row")
        positions = torch.stack([torch.cat([torch.arange(n, device=device) for n in row]) for row in rows])
        documents = torch.stack(
            [torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)).to(positions.device) for row in rows]
        )
        if not isinstance(lengths[0], Sequence):
            positions, documents = positions[0], documents[0]
        longest = max(max(row) for row in rows)
        return cls(positions, positions, longest - 1, longest - 1, documents, documents, consecutive=True)

    @classmethod
    def padded(cls, mask: Tensor) -> "Layout":
        """Rows with padding on either side; real tokens stand at 0, 1, … in each row.

        Args:
            mask: bool or 0/1, (B, T): true where a token is real. Padding gets position 0.

        Raises:
            ShapeError: `mask` is not two-dimensional.
        """
        if mask.dim() != 2:
            raise ShapeError("mask", "have shape (batch, length)", tuple(mask.shape), "Add the missing axis")
        valid = mask.bool()
        positions = (valid.long().cumsum(dim=1) - 1).clamp(min=0)
        last = max(int(valid.sum(dim=1).max()) - 1, 0)
        runs = valid[:, 0] + (valid[:, 1:] & ~valid[:, :-1]).sum(dim=1)  # of real tokens, more where there are holes
        return cls(
            positions,
            positions,
            last,
            last,
            key_valid=valid,
            consecutive=bool((runs <= 1).all()),
            ends_in_padding=not valid[:, -1].all(),
        )

    @classmethod
    def explicit(cls, positions: Tensor, documents: Tensor | None = None, valid: Tensor | None = None) -> "Layout":
        """Any positions, gaps included.

        Args:
            positions: whole numbers from 0, (T,) or (B, T).
            documents: ids of the same shape; tokens see only their own document.
            valid: bool, (B, T), False at padding.

        Raises:
            ShapeError: positions are not whole numbers from 0, or shapes differ.
        """
        last = check_positions(positions)
        positions = positions.long()
        if valid is not None and (valid.dim() != 2 or valid.shape[1] != positions.shape[-1]):
            rule = f"have shape (batch, {positions.shape[-1]})"
            raise ShapeError("valid", rule, tuple(valid.shape), "Give one value for each token of each row")
        if documents is not None and documents.shape != positions.shape:
            raise ShapeError(
                "documents", f"have the shape {tuple(positions.shape)} of positions", tuple(documents.shape), "Match it"
            )
        spread = last - int(positions.min())
        return cls(positions, positions, spread, last, documents, documents, None if valid is None else valid.bool())

    def extend(self, cache: HasLayout, raw_keys: bool = False) -> "Layout":
        """This layout's queries after the keys of a cache, at the positions that follow them.

        Each row goes on after its own last position, and in its last document, so this layout
        must be one that starts at 0 (`contiguous`, say).

        Args:
            cache: Holds the keys before.
            raw_keys: Whether it holds them unrotated (`Scheme.needs_raw_keys`).

        Raises:
            ShapeError: this layout packs documents, and the cache holds keys already.
        """
        past = cache.layout
        if past is None:
            return self
        if self.query_documents is not None:
            raise ShapeError("layout", "hold one document a row to follow a cache", "packed", "Unpack the documents")
        start = past.key_positions.amax(dim=-1, keepdim=True)
        if past.key_documents is not None:  # only the last document goes on
            start = past.key_positions[..., -1:]
        positions = self.query_positions + start + 1
        documents = None if past.key_documents is None else past.key_documents[..., -1:].expand(positions.shape)
        last = past.max_position + 1 + self.max_position
        adjacent = self.key_valid is None and not past.ends_in_padding
        return Layout(
            positions,
            _join(past.key_positions, positions),
            max_distance=past.max_distance + 1 + self.max_position,
            max_position=last,
            query_documents=documents,
            key_documents=None if documents is None else _join(past.key_documents, documents),
            key_valid=_join_valid(past, self),
            rotated=0 if raw_keys else past.key_length,
            consecutive=past.consecutive and self.consecutive and adjacent,
        )

    def with_memory(self, memory_length: int) -> "Layout":
        """This layout's queries after `memory_length` memory keys that stand at 0 … memory_length - 1.

        Raises:
            SettingError: `memory_length` is negative.
            ShapeError: the layout packs documents; memory would leak from one into another.
        """
        check_at_least(0, memory_length=memory_length)
        if self.query_documents is not None:
            raise ShapeError("layout", "hold one document a row to have memory", "packed", "Unpack the documents")
        memory = torch.arange(memory_length, device=self.query_positions.device)
        positions = self.query_positions + memory_length
        valid = self.key_valid
        if valid is not None:
            valid = torch.cat([valid.new_ones(valid.shape[0], memory_length), valid], dim=-1)
        return replace(
            self,
            query_positions=positions,
            key_positions=_join(memory, positions),
            max_distance=self.max_position + memory_length,  # from the last query to the first memory key
            max_position=self.max_position + memory_length,
            key_valid=valid,
            memory_length=memory_length,
            consecutive=self.consecutive and self.key_valid is None,  # padding would stand between
        )

    @property
    def query_length(self) -> int:
        """T."""
        return self.query_positions.shape[-1]

    @property
    def key_length(self) -> int:
        """S."""
        return self.key_positions.shape[-1]

    def relative_positions(self) -> Tensor:
        """Position of each key minus that of each query, ``j - i``: int64, (T, S) or (B, T, S)."""
        return self.key_positions.unsqueeze(-2) - self.query_positions.unsqueeze(-1)

    def mask(self, causal: bool = True) -> Tensor | None:
        """Which key each query may see.

        Returns:
            bool, (T, S) or (B, 1, T, S), true where attention is allowed; None where plain
            attention (causal, if asked) over as many keys as queries says the same, or where
            every query may see every key.
        """
        T, S = self.query_length, self.key_length
        seen = None
        if self.query_documents is not None:
            seen = self.query_documents.unsqueeze(-1) == self.key_documents.unsqueeze(-2)
        if self.key_valid is not None:
            valid = self.key_valid.unsqueeze(-2)
            seen = valid.expand(-1, T, -1) if seen is None else seen & valid
        if causal and T > 1 and (seen is not None or T != S):
            past = torch.ones(T, S, dtype=torch.bool, device=self.query_positions.device).tril(S - T)
            seen = past if seen is None else seen & past
        return seen if seen is None or seen.dim() == 2 else seen.unsqueeze(1)


def check_positions(positions: Tensor, max_position: int | None = None) -> int:
    """Refuse positions that are fractional, negative or above `max_position`; returns the largest.

    Raises:
        ShapeError: with the offending value and what to do.
    """
    wrong_type = positions.is_floating_point() or positions.dtype == torch.bool
    if wrong_type or positions.dim() not in (1, 2) or not positions.numel():
        shown = f"{positions.dtype} of shape {tuple(positions.shape)}"
        rule = "be whole numbers of shape (length,) or (batch, length)"
        raise ShapeError("positions", rule, shown, "Use torch.arange")
    first, last = (int(bound) for bound in positions.aminmax())
    if first < 0:
        raise ShapeError("positions", "be at least 0", first, "Count positions from 0")
    if max_position is not None and last > max_position:
        next_step = "Shorten the sequence, or lengthen the table with its `resized`"
        raise ShapeError("positions", f"be at most {max_position}", last, next_step)
    return last


def _join(first: Tensor, second: Tensor) -> Tensor:
    """Concatenate along the last axis; (S,) goes with (B, T) as the same for every row."""
    if first.dim() != second.dim():
        rows = max(first, second, key=Tensor.dim).shape[0]
        first, second = (t if t.dim() == 2 else t.expand(rows, -1) for t in (first, second))
    return torch.cat([first, second], dim=-1)


def _join_valid(past: Layout, new: Layout) -> Tensor | None:
    if past.key_valid is None and new.key_valid is None:
        return None
    rows = (past.key_valid if past.key_valid is not None else new.key_valid).shape[0]
    parts = [
        part.key_valid
        if part.key_valid is not None
        else torch.ones(rows, part.key_length, dtype=torch.bool, device=part.key_positions.device)
        for part in (past, new)
    ]
    return torch.cat(parts, dim=-1)
