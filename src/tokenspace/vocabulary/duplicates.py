"""Rows that are equal, and new rows that nearly are.

Axis letters: V rows, N new rows, D columns.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_ROWS_AT_ONCE = 8192
_FIRST_COLUMNS = 16
_NEW_AT_ONCE = 1024
_NEAR = 0.999  # cosine; rows drawn independently in 16 dimensions and more do not come so close


@dataclass(frozen=True)
class Near:
    """A new token whose row is nearly another's.

    Attributes:
        id: Of the new token.
        other: Of the nearest one.
        cosine: Between the two; of rows of zeros 1.0, as they are equal.
    """

    id: int
    other: int
    cosine: float


@torch.no_grad()
def count_equal(table_VD: Tensor, ids: Tensor) -> int:
    """How many of these rows, ids in order, hold the same bytes as one before.

    Example:
        >>> count_equal(torch.tensor([[1.0], [2.0], [1.0]]), torch.arange(3))
        1
    """
    hashes = np.concatenate([np.empty(0, np.uint64), *_hashes(table_VD[:, :_FIRST_COLUMNS], ids)])
    _, group, size = np.unique(hashes, return_inverse=True, return_counts=True)
    alike = ids[torch.from_numpy(size[group] > 1)]
    # whole rows are read only where their beginnings have the same hash
    different = {
        hashlib.blake2b(row.tobytes(), digest_size=16).digest() for rows in _row_bytes(table_VD, alike) for row in rows
    }
    return len(alike) - len(different)


def _hashes(table_VD: Tensor, ids: Tensor) -> Iterator[np.ndarray]:
    """A number for each row, uint64; equal rows have equal ones."""
    for rows in _row_bytes(table_VD, ids):
        words = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8))).view(np.uint64)
        yield (words * _odd_numbers(words.shape[1])).sum(1, dtype=np.uint64)


def _odd_numbers(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1 << 64, size=count, dtype=np.uint64) | np.uint64(1)


def _row_bytes(table_VD: Tensor, ids: Tensor) -> Iterator[np.ndarray]:
    """Rows as they are in memory, uint8, many at a time."""
    for part in ids.split(_ROWS_AT_ONCE) if len(ids) else ():
        rows = table_VD.detach().index_select(0, part.to(table_VD.device)).cpu()
        yield rows.view(torch.uint8).numpy()


@torch.no_grad()
def near_rows(table_VD: Tensor, new: Sequence[int], ids: Tensor) -> list[Near]:
    """New rows of which another token's row is equal or nearly so, by cosine.

    Args:
        table_VD: After the edit.
        new: The new rows.
        ids: All rows that have a token, the new ones among them, int64.
    """
    if not len(new):
        return []
    rows = torch.tensor(new, dtype=torch.int64)
    best, other = torch.full((len(rows),), -torch.inf), torch.zeros(len(rows), dtype=torch.int64)
    new_ND = _unit(table_VD, rows)
    for part in ids.split(_ROWS_AT_ONCE):
        part_MD = _unit(table_VD, part)
        zero_M = (part_MD == 0).all(1)
        for some in torch.arange(len(rows)).split(_NEW_AT_ONCE):
            cosines = new_ND[some] @ part_MD.T
            cosines[(new_ND[some] == 0).all(1).unsqueeze(1) & zero_M] = 1.0
            cosines[(rows[some].unsqueeze(1) == part) | cosines.isnan()] = -torch.inf
            values, places = cosines.max(dim=1)
            better = values > best[some]
            best[some[better]], other[some[better]] = values[better], part[places][better]
    close = (best >= _NEAR).nonzero().flatten().tolist()
    return [Near(int(rows[n]), int(other[n]), min(1.0, best[n].item())) for n in close]


def _unit(table_VD: Tensor, ids: Tensor) -> Tensor:
    return F.normalize(table_VD.detach().index_select(0, ids.to(table_VD.device)).float().cpu(), dim=1)
