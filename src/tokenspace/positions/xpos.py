"""xPos: rotary positions whose products also fade with the distance, slow pairs less than fast ones.

Queries grow and keys shrink by powers of a number below 1 for each pair, so that a logit
carries that number to the power of the distance. Only the difference of the exponents
counts; here they are taken from the middle of the queries, so that they stay finite at any
position, as long as the queries of one call stand within some 32,000 tokens. A cached key
would be bound to an old middle: the cache holds unrotated keys.

Source: Sun et al. 2022, "A Length-Extrapolatable Transformer" (arXiv:2212.10554), section 3
and algorithm 1. Made for causal models: towards keys ahead it grows instead.
"""

import math
from typing import Any, NamedTuple, Self, final

import torch
from torch import Tensor

from tokenspace.errors import SettingError, ShapeError, check_above_0
from tokenspace.positions._layout import Layout
from tokenspace.positions._scheme import ModelShape, Scheme
from tokenspace.positions._turn import Angles, Order, check_shape, for_heads, turn

_LARGEST_EXPONENT = 80.0  # of e, that float32 holds with room for the product of a query and a key


class _State(NamedTuple):
    """Angles of queries and of all keys, with the fading in their cosines and sines."""

    queries: Angles
    keys: Angles


@final
class XPos(Scheme):
    """Rotary, with pair i of a logit times ``((2i/K + gamma) / (1 + gamma)) ^ ((m - n) / scale_base)``.

    Args:
        head_dim: Length K of a query; even.
        theta: The slowest pair turns once in about ``2 * pi * theta`` tokens.
        scale_base: Tokens over which a pair fades by its number once.
        gamma: Keeps the fastest pair from fading at once.
        order: "interleaved", as in the paper's code, or "halves".

    Raises:
        SettingError: `head_dim` is odd or below 2, a number is not above 0, or `order` is unknown.

    Example:
        >>> scheme = XPos(head_dim=4)
        >>> layout = Layout.contiguous(3)
        >>> q, k = scheme.rotate(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4), layout, scheme.prepare(layout))
        >>> q.shape
        torch.Size([1, 2, 3, 4])
    """

    name = "xpos"
    needs_raw_keys = True

    def __init__(
        self,
        head_dim: int,
        theta: float = 10000.0,
        scale_base: float = 512.0,
        gamma: float = 0.4,
        order: Order = "interleaved",
    ) -> None:
        super().__init__()
        self.check_even(head_dim=head_dim)
        check_above_0("Leave it out for the paper's", theta=theta, scale_base=scale_base, gamma=gamma)
        if order not in ("halves", "interleaved"):
            raise SettingError("order", "be 'halves' or 'interleaved'", order, "Use 'interleaved', as the paper does")
        self.head_dim, self.theta, self.scale_base = head_dim, float(theta), float(scale_base)
        self.gamma, self.order = gamma, order
        self._widest = int(_LARGEST_EXPONENT * scale_base / math.log((1 + gamma) / gamma))

    @classmethod
    def for_model(cls, shape: ModelShape, **settings: Any) -> Self:
        """Angles for the model's heads."""
        cls.check_causal(shape, instead="rotary")
        if "head_dim" not in settings:
            cls.check_pairs(shape)
        return cls(**{"head_dim": shape.head_dim, **settings})

    def prepare(self, layout: Layout) -> _State:
        """Cosines and sines with the fading, exponents counted from the middle of each row's queries.

        Raises:
            ShapeError: the queries of a row stand so far apart that a factor would overflow float32.
        """
        queries = layout.query_positions
        least, most = queries.amin(dim=-1, keepdim=True), queries.amax(dim=-1, keepdim=True)
        if layout.max_distance > self._widest and not torch.compiler.is_compiling():
            apart = int((most - least).max())
            if apart > self._widest:
                rule = f"have the queries of a row within {self._widest} positions of each other"
                raise ShapeError("layout", rule, apart, "Ask fewer at once, or raise scale_base")
        middle = (least + most) // 2
        return _State(
            self._angles(queries, middle, 1.0), self._angles(layout.key_positions[..., layout.rotated :], middle, -1.0)
        )

    def rotate(self, q: Tensor, k: Tensor, layout: Layout, state: _State, layer: int = 0) -> tuple[Tensor, Tensor]:
        """See `Scheme.rotate`."""
        check_shape("q", q, state.queries.cos.shape[-2], self.head_dim)
        check_shape("k", k, state.keys.cos.shape[-2], self.head_dim)
        return turn(q, state.queries, self.order), turn(k, state.keys, self.order)

    def _angles(self, positions: Tensor, middle: Tensor, sign: float) -> Angles:
        share = torch.arange(0, self.head_dim, 2, device=positions.device, dtype=torch.float32) / self.head_dim
        angles = positions.unsqueeze(-1).float() * self.theta**-share
        exponents = (positions - middle).unsqueeze(-1).float() * (sign / self.scale_base)
        fading = ((share + self.gamma) / (1 + self.gamma)) ** exponents
        return Angles(for_heads(angles.cos() * fading), for_heads(angles.sin() * fading))

    def extra_repr(self) -> str:
        """Settings, for ``print(model)``."""
        return f"head_dim={self.head_dim}, theta={self.theta}, scale_base={self.scale_base}, gamma={self.gamma}"
