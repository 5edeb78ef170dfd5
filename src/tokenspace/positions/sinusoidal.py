"""Sinusoidal positions: fixed waves of many lengths, added to the token vectors.

Source: Vaswani et al. 2017, section 3.5 (arXiv:1706.03762). Two orders of the same
numbers are in use: ``interleaved`` as in the paper (sine and cosine alternate) and
``halves`` as in Marian (all sines, then all cosines; fairseq has this order, but divides its
exponents by D/2 - 1). Nothing is learned.
"""

from typing import Any, Literal, Self, final

import torch
from torch import Tensor

from tokenspace.errors import SettingError, check_above_0
from tokenspace.positions._scheme import ModelShape, Scheme
from tokenspace.positions._waves import waves


@final
class Sinusoidal(Scheme):
    """Adds ``sin(p / theta^(2i/D))`` and ``cos(p / theta^(2i/D))`` for i = 0 … D/2 - 1.

    Args:
        d_model: Length D of a token vector; even.
        theta: The longest wave is ``2 * pi * theta`` tokens long.
        order: "interleaved" or "halves".

    Raises:
        SettingError: `d_model` is odd, `theta` is not above 0, or `order` is unknown.

    Example:
        >>> Sinusoidal(d_model=4).embed(torch.zeros(1, 2, 4))[0, 0]
        tensor([0., 1., 0., 1.])
    """

    name = "sinusoidal"
    enters_input = True

    def __init__(
        self, d_model: int, theta: float = 10000.0, order: Literal["interleaved", "halves"] = "interleaved"
    ) -> None:
        super().__init__()
        self.check_even(d_model=d_model)
        check_above_0("Use 10000.0, as the paper does", theta=theta)
        if order not in ("interleaved", "halves"):
            raise SettingError("order", "be 'interleaved' or 'halves'", order, "Use 'interleaved', as the paper does")
        self.d_model, self.theta, self.order = d_model, float(theta), order

    @classmethod
    def for_model(cls, shape: ModelShape, **settings: Any) -> Self:
        """Waves for the model's token vectors."""
        return cls(**{"d_model": shape.d_model, **settings})

    @classmethod
    def token_scale(cls, d_model: int) -> float:
        """The root of `d_model`, without which waves of height 1 drown tables that begin near 0 (section 3.4)."""
        return d_model**0.5

    def waves(self, positions: Tensor) -> Tensor:
        """The vectors of these positions, float32, (…, d_model)."""
        return waves(positions, self.d_model, self.theta, self.order)

    def embed(self, x_BTD: Tensor, positions: Tensor | None = None) -> Tensor:
        """Add the waves of each position; see `Scheme.embed`."""
        if positions is None:
            positions = torch.arange(x_BTD.shape[-2], device=x_BTD.device)
        elif not torch.compiler.is_compiling():
            self.check(x_BTD.shape[-2], positions)
        return x_BTD.add_(self.waves(positions))  # in place: no second (B, T, D) tensor

    def extra_repr(self) -> str:
        """Settings, for ``print(model)``."""
        return f"d_model={self.d_model}, theta={self.theta}, order={self.order!r}"
