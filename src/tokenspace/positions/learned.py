"""Learned absolute positions: a second table, one row a position, added to the token vectors.

Source: Radford et al. 2018/2019 (GPT, GPT-2), ``x = wte[token] + wpe[position]``.
Positions beyond the table are an error; `Learned.resized` makes a longer or shorter one.
"""

from typing import Any, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenspace.errors import check_at_least, check_not_negative
from tokenspace.positions._scheme import ModelShape, Scheme


@final
class Learned(Scheme):
    """A table of (num_positions, d_model) vectors, drawn from N(0, std²) and moved by training.

    Args:
        num_positions: Rows: the positions 0 … num_positions - 1.
        d_model: Length of a token vector.
        std: Standard deviation of the first draw; GPT-2's is 0.01.

    Raises:
        SettingError: a size is below 1.

    Example:
        >>> scheme = Learned(num_positions=8, d_model=4)
        >>> scheme.embed(torch.zeros(2, 3, 4)).shape
        torch.Size([2, 3, 4])
    """

    name = "learned"
    enters_input = True

    def __init__(self, num_positions: int, d_model: int, std: float = 0.01) -> None:
        super().__init__()
        check_at_least(1, num_positions=num_positions, d_model=d_model)
        check_not_negative("Use 0.01, as GPT-2 does", std=std)
        self.weight = nn.Parameter(torch.empty(num_positions, d_model))
        self.reset_tables(std)

    @classmethod
    def for_model(cls, shape: ModelShape, **settings: Any) -> Self:
        """A table as long as the model's context, unless `num_positions` is given."""
        return cls(**{"num_positions": shape.context_length, "d_model": shape.d_model, **settings})

    @property
    def max_position(self) -> int:
        """The last row of the table."""
        return self.weight.shape[0] - 1

    def reset_tables(self, std: float) -> None:
        """Draw the table anew from N(0, std²)."""
        self.std = std
        nn.init.normal_(self.weight, std=std)

    @torch.no_grad()
    def resized(self, num_positions: int, interpolate: bool = False) -> Self:
        """A scheme with another number of positions; this one stays as it is.

        Args:
            num_positions: Rows of the new table.
            interpolate: Whether the whole table is stretched or squeezed to the new length, its first
                and last row staying first and last, as Dosovitskiy et al. 2020 (arXiv:2010.11929,
                section 3.2) do in two dimensions. Else rows stay where they are: those beyond the
                new length go, and new ones are drawn from N(0, std²).

        Raises:
            SettingError: `num_positions` is below 1.

        Example:
            >>> scheme = Learned(num_positions=2, d_model=1)
            >>> _ = nn.init.constant_(scheme.weight[1:], 1.0), nn.init.zeros_(scheme.weight[:1])
            >>> scheme.resized(3, interpolate=True).weight.flatten().tolist()
            [0.0, 0.5, 1.0]
        """
        new = type(self)(num_positions, self.weight.shape[1], self.std).to(self.weight)
        if interpolate:
            columns = self.weight.t().unsqueeze(0).float()
            stretched = F.interpolate(columns, size=num_positions, mode="linear", align_corners=True)
            new.weight.copy_(stretched[0].t())
        else:
            kept = min(num_positions, len(self.weight))
            new.weight[:kept] = self.weight[:kept]
        return new

    def embed(self, x_BTD: Tensor, positions: Tensor | None = None) -> Tensor:
        """Add the row of each position; see `Scheme.embed`."""
        if not torch.compiler.is_compiling():
            self.check(x_BTD.shape[-2], positions)
        if positions is None:
            return x_BTD.add_(self.weight[: x_BTD.shape[-2]])  # in place: no second (B, T, D) tensor
        return x_BTD.add_(F.embedding(positions, self.weight))

    def extra_repr(self) -> str:
        """Sizes, for ``print(model)``."""
        return f"num_positions={self.weight.shape[0]}, d_model={self.weight.shape[1]}"
