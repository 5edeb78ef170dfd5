"""PoPE: polar positions; a component's length says what, its angle says where.

Every component of a query or key becomes a length by softplus and a point in the plane at
an angle that grows with the position, so queries and keys become twice as long. A learned
angle for each head and component sets the relative position that matches best.

Source: Gopalakrishnan et al. 2025, "Decoupling the What and Where With Polar Coordinate
Positional Embeddings" (arXiv:2509.10534). The paper adds the learned angle to the keys; here
it is taken from the queries, which gives the same logits and needs no count of key heads.
"""

import math
from typing import Any, ClassVar, NamedTuple, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenspace.errors import check_above_0, check_at_least
from tokenspace.positions._layout import Layout
from tokenspace.positions._precision import at_least_float32
from tokenspace.positions._scheme import ModelShape, Scheme
from tokenspace.positions._turn import check_shape, for_heads


class _Angles(NamedTuple):
    """Of the queries and keys that `Pope.rotate` gets: float32, (T, K) or (B, 1, T, K)."""

    queries: Tensor
    keys: Tensor


@final
class Pope(Scheme):
    """Logits ``sum_c softplus(q_ic) softplus(k_jc) cos((i - j) / theta^(c/K) - bias[h, c]) / sqrt(K)``.

    Args:
        num_heads: Query heads.
        head_dim: Length K of a query.
        theta: The slowest angle turns once in ``2 * pi * theta`` tokens.
        uniform_init: Draw the learned angles evenly from [-2 pi, 0] instead of starting at 0.

    Attributes:
        bias: The learned angles, (num_heads, head_dim), kept within [-2 pi, 0] where they are used.

    Raises:
        SettingError: a size is below 1, or `theta` is not above 0.

    Example:
        >>> scheme = Pope(num_heads=2, head_dim=4)
        >>> layout = Layout.contiguous(3)
        >>> q, k = scheme.rotate(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), layout, scheme.prepare(layout))
        >>> q.shape
        torch.Size([1, 2, 3, 8])
    """

    name = "pope"
    head_axes: ClassVar = {"bias": 0}

    def __init__(self, num_heads: int, head_dim: int, theta: float = 10000.0, uniform_init: bool = False) -> None:
        super().__init__()
        check_at_least(1, num_heads=num_heads, head_dim=head_dim)
        check_above_0("Use 10000.0, as the paper does", theta=theta)
        self.num_heads, self.head_dim, self.theta = num_heads, head_dim, float(theta)
        self.bias = nn.Parameter(torch.zeros(num_heads, head_dim))
        if uniform_init:
            nn.init.uniform_(self.bias, -2 * math.pi, 0)

    @classmethod
    def for_model(cls, shape: ModelShape, **settings: Any) -> Self:
        """Angles for each of the model's heads."""
        return cls(**{"num_heads": shape.num_heads, "head_dim": shape.head_dim, **settings})

    def prepare(self, layout: Layout) -> _Angles:
        """The angle of every position and component."""
        queries = self._angles(layout.query_positions)
        if layout.key_length - layout.rotated == layout.query_length:
            return _Angles(queries, queries)
        return _Angles(queries, self._angles(layout.key_positions[..., layout.rotated :]))

    def rotate(self, q: Tensor, k: Tensor, layout: Layout, state: _Angles, layer: int = 0) -> tuple[Tensor, Tensor]:
        """Queries and keys twice as long; see `Scheme.rotate`."""
        self.check_heads(q)
        check_shape("q", q, state.queries.shape[-2], self.head_dim)
        check_shape("k", k, state.keys.shape[-2], self.head_dim)
        best = at_least_float32(self.bias).clamp(-2 * math.pi, 0).unsqueeze(-2)
        return _polar(q, state.queries - best), _polar(k, state.keys)

    def _angles(self, positions: Tensor) -> Tensor:
        components = torch.arange(self.head_dim, device=positions.device, dtype=torch.float32)
        return for_heads(positions.unsqueeze(-1).float() * self.theta ** (-components / self.head_dim))

    def extra_repr(self) -> str:
        """Settings, for ``print(model)``."""
        return f"num_heads={self.num_heads}, head_dim={self.head_dim}, theta={self.theta}"


def _polar(x_BHTK: Tensor, angles: Tensor) -> Tensor:
    """Lengths and angles as points: (B, H, T, 2K)."""
    length = F.softplus(at_least_float32(x_BHTK))
    return torch.cat([length * angles.cos(), length * angles.sin()], dim=-1).to(x_BHTK.dtype)
