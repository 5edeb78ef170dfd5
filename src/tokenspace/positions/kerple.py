"""KERPLE: each logit loses with the logarithm, or a power, of the distance; both strengths learned.

Source: Chi et al. 2022, "Kernelized Relative Positional Embedding for Length
Extrapolation" (arXiv:2205.09921), equations 5 and 6. Two numbers a head, in all layers.
"""

from typing import Any, ClassVar, Literal, Self, final

import torch
from torch import Tensor, nn

from tokenspace.errors import SettingError, check_at_least
from tokenspace.positions._distance import DistanceScheme
from tokenspace.positions._precision import at_least_float32
from tokenspace.positions._scheme import ModelShape

_LEAST = 0.01  # both parameters are kept above it, as in the released code


@final
class Kerple(DistanceScheme):
    """Adds ``-r1 * log(1 + r2 * d)`` or ``-r1 * d ** r2`` with ``d = |i - j|``.

    Args:
        num_heads: Query heads.
        kernel: "log" or "power"; a power's exponent is kept at 2 at most.

    Attributes:
        r1: (num_heads,), first drawn evenly from [0, 2).
        r2: (num_heads,), first drawn evenly from [0, 1) for "log", [0, 2) for "power".

    Raises:
        SettingError: there is no head, or `kernel` is unknown.

    Example:
        >>> scheme = Kerple(num_heads=1)
        >>> _ = nn.init.ones_(scheme.r1), nn.init.ones_(scheme.r2)
        >>> scheme.by_distance(torch.tensor([0, -1, -3]))
        tensor([[-0.0000, -0.6931, -1.3863]], grad_fn=<MulBackward0>)
    """

    name = "kerple"
    head_axes: ClassVar = {"r1": 0, "r2": 0}

    def __init__(self, num_heads: int, kernel: Literal["log", "power"] = "log") -> None:
        super().__init__()
        check_at_least(1, num_heads=num_heads)
        if kernel not in ("log", "power"):
            raise SettingError("kernel", "be 'log' or 'power'", kernel, "Use 'log', which the paper found best")
        self.num_heads, self.kernel = num_heads, kernel
        self.r1 = nn.Parameter(2 * torch.rand(num_heads))
        self.r2 = nn.Parameter((1 if kernel == "log" else 2) * torch.rand(num_heads))

    @classmethod
    def for_model(cls, shape: ModelShape, **settings: Any) -> Self:
        """Two numbers for each of the model's heads."""
        return cls(**{"num_heads": shape.num_heads, **settings})

    def by_distance(self, relative: Tensor) -> Tensor:
        """See `DistanceScheme.by_distance`."""
        distance = relative.abs().float()
        r1 = at_least_float32(self.r1).clamp(min=_LEAST).unsqueeze(-1)
        r2 = at_least_float32(self.r2).clamp(min=_LEAST, max=None if self.kernel == "log" else 2.0).unsqueeze(-1)
        return -r1 * (torch.log1p(r2 * distance) if self.kernel == "log" else distance**r2)

    def extra_repr(self) -> str:
        """Settings, for ``print(model)``."""
        return f"num_heads={self.num_heads}, kernel={self.kernel!r}"
