"""Principal components of a table: the axes along which its rows differ most.

Exact and deterministic: the covariance is summed in float64 over all rows, and each axis
points to where its largest entry is positive.

Axis letters: V rows, D columns, K components.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tokenspace.errors import SettingError, check_at_least

_ROWS_AT_ONCE = 16_384  # in float64


@dataclass(frozen=True, eq=False)
class Basis:
    """A centre and some axes at right angles.

    Attributes:
        mean: The centre, float32, (D,).
        components: The axes, of length 1, float32, (K, D); those with the most variance first.
        explained: Share of the whole variance along each, float32, (K,).
    """

    mean: Tensor
    components: Tensor
    explained: Tensor

    def project(self, table_VD: Tensor) -> Tensor:
        """Where the rows stand along the axes, seen from the centre: float32, (V, K)."""
        return table_VD.float() @ self.components.t() - self.mean @ self.components.t()


@torch.no_grad()
def principal_components(table_VD: Tensor, number: int = 16) -> Basis:
    """The first principal components of a table, from its rows without NaN or infinity.

    Args:
        table_VD: Any float dtype, on the CPU.
        number: How many; no more than columns.

    Raises:
        SettingError: no row is finite, or `number` is below 1.

    Example:
        >>> basis = principal_components(torch.tensor([[0.0, 1.0], [0.0, 3.0]]))
        >>> basis.components[0].tolist(), basis.explained.tolist(), basis.mean.tolist()
        ([0.0, 1.0], [1.0, 0.0], [0.0, 2.0])
    """
    check_at_least(1, number=number)
    rows = some_finite_rows(table_VD)
    pieces = rows.split(_ROWS_AT_ONCE)
    mean = sum(table_VD[piece].double().sum(dim=0) for piece in pieces) / len(rows)
    scatter = sum((centred := table_VD[piece].double() - mean).t() @ centred for piece in pieces)
    variances, axes = torch.linalg.eigh(scatter)
    variances, axes = variances.flip(0).clamp(min=0), axes.flip(1).t()
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    axes = torch.where(largest < 0, -axes, axes)
    explained = variances / variances.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return Basis(mean.float(), axes[:number].float().contiguous(), explained[:number].float())


def some_finite_rows(table_VD: Tensor) -> Tensor:
    """Indices of the rows without NaN and infinity, int64, at least one.

    Raises:
        SettingError: there is none.
    """
    rows = finite_rows(table_VD)
    if not len(rows):
        next_step = "Take an earlier checkpoint of a run, or another copy of a model"
        raise SettingError("table", "have a row without NaN", "without", next_step)
    return rows


def finite_rows(table_VD: Tensor) -> Tensor:
    """Indices of the rows without NaN and infinity, int64."""
    return torch.isfinite(table_VD).all(dim=1).nonzero().flatten()
