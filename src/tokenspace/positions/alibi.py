"""ALiBi: each logit loses in proportion to the distance, at a slope of its own in each head.

Source: Press et al. 2021, "Train Short, Test Long" (arXiv:2108.12409); slopes for head
counts that are no powers of two as in the authors' code, BLOOM and MPT. Nothing is learned.
"""

import math
from typing import Any, Self, final

import torch
from torch import Tensor

from tokenspace.errors import check_above_0, check_at_least
from tokenspace.positions._distance import DistanceScheme
from tokenspace.positions._scheme import ModelShape


@final
class Alibi(DistanceScheme):
    """Adds ``-slope[h] * |i - j|`` to the logit of query i and key j.

    Args:
        num_heads: Query heads, any number.
        max_bias: The slopes fall from near 1 to ``2 ** -max_bias`` (MPT's ``alibi_bias_max``).
        symmetric: Whether keys ahead of the query lose as well; else they gain, ``slope * (j - i)``,
            as in BLOOM before its causal mask. Under a causal mask it makes no difference.

    Raises:
        SettingError: there is no head, or `max_bias` is not above 0.

    Example:
        >>> Alibi(num_heads=4).slopes
        (0.25, 0.0625, 0.015625, 0.00390625)
    """

    name = "alibi"

    def __init__(self, num_heads: int, max_bias: float = 8.0, symmetric: bool = True) -> None:
        super().__init__()
        check_at_least(1, num_heads=num_heads)
        check_above_0("Use 8.0, as the paper does", max_bias=max_bias)
        self.num_heads, self.max_bias, self.symmetric = num_heads, max_bias, symmetric
        self.slopes = _slopes(num_heads, max_bias)

    @classmethod
    def for_model(cls, shape: ModelShape, **settings: Any) -> Self:
        """One slope for each of the model's heads."""
        return cls(**{"num_heads": shape.num_heads, **settings})

    def by_distance(self, relative: Tensor) -> Tensor:
        """See `DistanceScheme.by_distance`."""
        slopes = torch.tensor(self.slopes, device=relative.device).unsqueeze(-1)
        return slopes * (-relative.abs() if self.symmetric else relative)

    def local_heads(self, offset: int, count: int) -> Self:
        """The scheme of some heads alone; see `Scheme.local_heads`."""
        local = super().local_heads(offset, count)
        local.slopes = self.slopes[offset : offset + count]
        return local

    def extra_repr(self) -> str:
        """Settings, for ``print(model)``."""
        return f"num_heads={self.num_heads}, max_bias={self.max_bias}, symmetric={self.symmetric}"


def _slopes(num_heads: int, max_bias: float) -> tuple[float, ...]:
    """Powers of one ratio; for other counts than 2 ** n, every second of the next 2 ** n first, then the rest."""
    power = 2 ** math.ceil(math.log2(num_heads))
    slopes = [2.0 ** (-max_bias * (head + 1) / power) for head in range(power)]
    if power == num_heads:
        return tuple(slopes)
    return tuple((slopes[1::2] + slopes[::2])[:num_heads])
