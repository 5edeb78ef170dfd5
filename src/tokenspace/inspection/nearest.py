"""The nearest rows of a table by cosine, of all rows at once: exact, by blocks.

What `tables.neighbours` finds for one token: candidates come from products of
blocks, and are measured again in its way. Where all rows are asked for, each product
serves both of its sides.

Axis letters: V vocabulary, D d_model, N rows asked for, B rows of a block, K neighbours.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenspace.checkpoint.components import finite_rows
from tokenspace.errors import SettingError, check_at_least

Progress = Callable[[int, int], None]
_BLOCK = 2048
_SPARE = 8  # candidates beyond K, for cosines that differ by nothing but rounding
_ROWS_AT_ONCE = 256  # when candidates are measured again


class NearestRows(NamedTuple):
    """The nearest rows of some rows, nearest first, none of them the row itself.

    Attributes:
        rows: int64, (N,): the rows asked for; those with NaN or infinity are left out.
        nearest: int64, (N, K).
        cosines: float32, (N, K).
    """

    rows: Tensor
    nearest: Tensor
    cosines: Tensor


@torch.no_grad()
def nearest_rows(
    table_VD: Tensor, k: int, rows: Tensor | None = None, progress: Progress = lambda done, total: None
) -> NearestRows:
    """The `k` nearest of each row among all of them, rows with NaN or infinity left out.

    Args:
        table_VD: Any float dtype, on the CPU.
        k: How many; fewer where the table has no more.
        rows: Of which rows, int64, without repetition; None for all.
        progress: Called with the products done and all there are.

    Raises:
        SettingError: `k` is below 1, or a row lies outside the table.

    Example:
        >>> table = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]])
        >>> nearest_rows(table, 1).nearest.flatten().tolist()
        [2, 2, 0]
    """
    check_at_least(1, k=k)
    if rows is not None and len(outside := rows[(rows < 0) | (rows >= len(table_VD))]):
        raise SettingError("rows", f"lie in [0, {len(table_VD)})", int(outside[0]), "Use ids of this vocabulary")
    finite = finite_rows(table_VD)
    table = table_VD[finite].float()
    of = torch.arange(len(table)) if rows is None else torch.searchsorted(finite, rows[torch.isin(rows, finite)])
    k = max(0, min(k, len(table) - 1))
    wanted = min(k + _SPARE, len(table) - 1)
    if not k:
        return NearestRows(finite[of], torch.empty(len(of), 0, dtype=torch.int64), torch.empty(len(of), 0))
    unit = F.normalize(table)
    best = _Best(len(of), wanted)
    blocks = _all_blocks(unit, best) if rows is None else _some_blocks(unit, of, best)
    for done, total in blocks:
        progress(done, total)
    nearest, cosines = _measured(table, of, best.rows, k)
    return NearestRows(finite[of], finite[nearest], cosines)


class _Best:
    """The best candidates so far, (N, K), in no order."""

    def __init__(self, number: int, wanted: int) -> None:
        self.cosines = torch.full((number, wanted), -torch.inf)
        self.rows = torch.zeros(number, wanted, dtype=torch.int64)

    def add(self, of: slice, cosines_BB: Tensor, first: int) -> None:
        """Take in the cosines of the rows `of` with the rows from `first` on."""
        wanted = self.cosines.shape[1]
        found = cosines_BB.topk(min(wanted, cosines_BB.shape[1]), sorted=False)
        cosines = torch.cat([self.cosines[of], found.values], dim=1)
        rows = torch.cat([self.rows[of], found.indices + first], dim=1)
        best = cosines.topk(wanted, sorted=False)
        self.cosines[of], self.rows[of] = best.values, rows.gather(1, best.indices)


def _all_blocks(unit_VD: Tensor, best: _Best) -> Iterator[tuple[int, int]]:
    """All pairs of blocks, each pair once."""
    starts = range(0, len(unit_VD), _BLOCK)
    done, total = 0, len(starts) * (len(starts) + 1) // 2
    for number, first in enumerate(starts):
        rows = unit_VD[first : first + _BLOCK]
        for second in starts[number:]:
            columns = unit_VD[second : second + _BLOCK]
            cosines = rows @ columns.t()
            if first == second:
                cosines.fill_diagonal_(-torch.inf)
            best.add(slice(first, first + len(rows)), cosines, second)
            if first != second:
                best.add(slice(second, second + len(columns)), cosines.t().contiguous(), first)
            done += 1
            yield done, total


def _some_blocks(unit_VD: Tensor, of: Tensor, best: _Best) -> Iterator[tuple[int, int]]:
    """The rows `of` against all, `_BLOCK` of each at a time."""
    firsts, seconds = range(0, len(of), _BLOCK), range(0, len(unit_VD), _BLOCK)
    done, total = 0, len(firsts) * len(seconds)
    for first in firsts:
        asked = of[first : first + _BLOCK]
        rows = unit_VD[asked]
        for second in seconds:
            cosines = rows @ unit_VD[second : second + _BLOCK].t()
            own = ((asked >= second) & (asked < second + _BLOCK)).nonzero().flatten()
            cosines[own, asked[own] - second] = -torch.inf
            best.add(slice(first, first + len(asked)), cosines, second)
            done += 1
            yield done, total


def _measured(table_VD: Tensor, of: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` best candidates by `F.cosine_similarity`, best first, among equals by row."""
    nearest, cosines = [], []
    for rows, some in zip(of.split(_ROWS_AT_ONCE), candidates.split(_ROWS_AT_ONCE), strict=True):
        some = some.sort(dim=1).values
        exact = F.cosine_similarity(table_VD[some], table_VD[rows].unsqueeze(1), dim=-1)
        order = exact.argsort(dim=1, descending=True, stable=True)[:, :k]
        nearest.append(some.gather(1, order))
        cosines.append(exact.gather(1, order))
    return torch.cat(nearest), torch.cat(cosines)
