"""From one number a relative position to one number a key, and back.

Schemes after Shaw et al. 2018 hold a vector for each relative position. A query's product
with each of those vectors has as many columns as there are vectors; here those columns are
brought to the keys that stand at these positions, without ever making a (T, S, K) tensor.

Axis letters: B batch, H heads, T query length, S key length, R relative positions.
"""

from dataclasses import dataclass

from torch import Tensor

from tokenspace.positions._layout import Layout


@dataclass(frozen=True, eq=False)
class RelativeIndex:
    """Which row of a table each pair of query and key reads.

    Attributes:
        index: int64, (T, S) or (B, 1, T, S), from 0.
        rows: Number of rows, R.
    """

    index: Tensor
    rows: int

    @classmethod
    def of(cls, rows_of_pairs: Tensor, rows: int) -> "RelativeIndex":
        """From the rows of `Layout.relative_positions`, (T, S) or (B, T, S)."""
        return cls(rows_of_pairs if rows_of_pairs.dim() == 2 else rows_of_pairs.unsqueeze(1), rows)

    def to_keys(self, by_row_BHTR: Tensor) -> Tensor:
        """What each query has for each row, as what it has for each key: (B, H, T, S)."""
        return by_row_BHTR.gather(-1, self.index.expand(*by_row_BHTR.shape[:2], -1, -1))

    def to_queries(self, by_row_BHSR: Tensor) -> Tensor:
        """What each key has for each row, as what it has for each query: (B, H, T, S)."""
        turned = self.index.transpose(-2, -1)
        return by_row_BHSR.gather(-1, turned.expand(*by_row_BHSR.shape[:2], -1, -1)).transpose(-2, -1)

    def to_rows(self, by_key_BHTS: Tensor) -> Tensor:
        """What each query has for each key, summed over the keys of a row: (B, H, T, R)."""
        B, H, T, _ = by_key_BHTS.shape
        summed = by_key_BHTS.new_zeros(B, H, T, self.rows)
        return summed.scatter_add(-1, self.index.expand(B, H, -1, -1), by_key_BHTS)


def clipped_index(layout: Layout, behind: int, ahead: int) -> tuple[RelativeIndex, int]:
    """Relative positions clipped to [-behind, ahead]; row 0 of a table is that of -behind.

    Returns:
        The index, and the first row of the table that it reads: its row 0. Rows that no pair of
        this layout can read are left out.

    Example:
        >>> index, first = clipped_index(Layout.contiguous(3), behind=1, ahead=1)
        >>> index.index.tolist(), first
        ([[1, 2, 2], [0, 1, 2], [0, 0, 1]], 0)
    """
    behind_here, ahead_here = min(behind, layout.max_distance), min(ahead, layout.max_distance)
    relative = layout.relative_positions().clamp(-behind_here, ahead_here)
    return RelativeIndex.of(relative + behind_here, behind_here + ahead_here + 1), behind - behind_here


def skew(by_relative_BHTR: Tensor, key_length: int) -> Tensor:
    """`RelativeIndex.to_keys` where keys are consecutive, by nothing but views.

    Args:
        by_relative_BHTR: Columns for the relative positions -S, -S + 1, … up to at least 0; the
            first is never read. Contiguous.
        key_length: S.

    Returns:
        (B, H, T, S); right wherever the relative position has a column, any number elsewhere.

    Source: the shift of Dai et al. 2019, appendix B (arXiv:1901.02860), without its copy.

    Example:
        >>> import torch
        >>> skew(torch.arange(-2, 2).expand(1, 1, 2, 4).contiguous(), key_length=2).tolist()
        [[[[0, 1], [-1, 0]]]]
    """
    B, H, T, R = by_relative_BHTR.shape
    return by_relative_BHTR.flatten(-2)[..., T:].view(B, H, T, R - 1)[..., :key_length]
