"""CoPE: contextual positions; each query counts the keys it cares about, and only those.

A key's position, seen from a query, is the sum of the query's gates from the key to the
query itself. It is a fraction, so the learned vectors of the two whole numbers around it
are mixed. Positions of the layout play no part; their order does, and their documents do.

Source: Golovneva et al. 2024, "Contextual Position Encoding" (arXiv:2405.18719), section 4
and appendix B. Causal models only. Each layer has vectors of its own, shared by its heads.
"""

from typing import Any, Self, final

import torch
from torch import Tensor, nn

from tokenspace.errors import check_at_least
from tokenspace.positions._heads import repeat_heads
from tokenspace.positions._layout import Layout
from tokenspace.positions._precision import at_least_float32
from tokenspace.positions._scheme import ModelShape, Scheme


@final
class Cope(Scheme):
    """Adds ``q_i · e[p_ij]`` with ``p_ij = sum of sigmoid(q_i · k_l / sqrt(K)) over l = j … i``.

    Args:
        head_dim: Length K of a query.
        num_positions: Rows of a table; larger counts share the last.
        num_layers: Attention layers, each with its own table.

    Attributes:
        table: ``e``: (num_layers, num_positions, head_dim), zero at first.

    Raises:
        SettingError: a size is below 1, or the model is not causal.

    Example:
        >>> scheme = Cope(head_dim=4, num_positions=8)
        >>> q = torch.ones(1, 2, 5, 4)
        >>> layout = Layout.contiguous(5)
        >>> scheme.score(q, q, layout, scheme.prepare(layout)).shape
        torch.Size([1, 2, 5, 5])
    """

    name = "cope"

    def __init__(self, head_dim: int, num_positions: int = 64, num_layers: int = 1) -> None:
        super().__init__()
        check_at_least(1, head_dim=head_dim, num_layers=num_layers)
        check_at_least(2, num_positions=num_positions)
        self.head_dim = head_dim
        self.table = nn.Parameter(torch.zeros(num_layers, num_positions, head_dim))

    @classmethod
    def for_model(cls, shape: ModelShape, **settings: Any) -> Self:
        """A table for each layer, of 64 rows or the context's."""
        cls.check_causal(shape, instead="shaw")
        implied = {"head_dim": shape.head_dim, "num_layers": shape.num_layers}
        return cls(**{**implied, "num_positions": max(2, min(64, shape.context_length)), **settings})

    def prepare(self, layout: Layout) -> Tensor:
        """Which keys each query may count: bool, (T, S) or (B, 1, T, S)."""
        mask = layout.mask(causal=True)
        if mask is not None:
            return mask
        T, S = layout.query_length, layout.key_length
        return torch.ones(T, S, dtype=torch.bool, device=layout.key_positions.device).tril(S - T)

    def score(self, q: Tensor, k: Tensor, layout: Layout, state: Tensor, layer: int = 0) -> Tensor:
        """See `Scheme.score`."""
        logits = q @ repeat_heads(k, q.shape[1]).transpose(-2, -1) * self.head_dim**-0.5
        gates = at_least_float32(logits).sigmoid().masked_fill(~state, 0.0)
        last = self.table.shape[1] - 1
        counted = gates.flip(-1).cumsum(dim=-1).flip(-1).clamp(max=last)
        below = counted.floor().clamp(max=last - 1)  # the last whole number is then an upper end
        by_row = q @ self.table[layer].to(q.dtype).t()
        low, high = (by_row.gather(-1, rows.long()) for rows in (below, below + 1))
        return torch.lerp(low, high, (counted - below).to(q.dtype))

    def extra_repr(self) -> str:
        """Settings, for ``print(model)``."""
        return f"head_dim={self.head_dim}, num_positions={self.table.shape[1]}, num_layers={len(self.table)}"
