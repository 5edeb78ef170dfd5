"""Relative position vectors: one for each clipped relative position, met by queries, keys and values.

Source: Shaw et al. 2018 (arXiv:1803.02155), equations 3 to 5, with vectors of their own in
each layer, shared by its heads. Two settings make it BERT's: ``values=False`` is its
``relative_key``, and ``key_term=True`` besides its ``relative_key_query`` (Huang et al.
2020, arXiv:2009.13658). BERT counts ``i - j``, so its table is ours turned upside down.
"""

from typing import Any, Self, final

import torch
from torch import Tensor, nn

from tokenspace.errors import check_at_least, check_not_negative
from tokenspace.positions._heads import repeat_heads
from tokenspace.positions._layout import Layout
from tokenspace.positions._relative import RelativeIndex, clipped_index
from tokenspace.positions._scheme import ModelShape, Scheme


@final
class Shaw(Scheme):
    """Adds ``q_i · a[j - i] / sqrt(K)`` to the logits and ``sum_j p_ij b[j - i]`` to the values.

    Args:
        head_dim: Length K of a query.
        max_distance: Relative positions below ``-max_distance`` share its vector.
        max_ahead: Those above share this one's; None for `max_distance`.
        num_layers: Attention layers, each with its own vectors.
        values: Whether the attended values get vectors too.
        key_term: Whether keys meet the vectors too: ``k_j · a[j - i] / sqrt(K)``.
        std: Standard deviation of the first draw.

    Attributes:
        key_table: ``a``: (num_layers, max_distance + 1 + max_ahead, head_dim); row 0 is -max_distance.
        value_table: ``b``, of the same shape; None without `values`.

    Raises:
        SettingError: a size is out of range.

    Example:
        >>> scheme = Shaw(head_dim=4, max_distance=2)
        >>> q = torch.zeros(1, 2, 5, 4)
        >>> layout = Layout.contiguous(5)
        >>> scheme.score(q, q, layout, scheme.prepare(layout)).shape
        torch.Size([1, 2, 5, 5])
    """

    name = "shaw"

    def __init__(
        self,
        head_dim: int,
        max_distance: int,
        max_ahead: int | None = None,
        num_layers: int = 1,
        values: bool = True,
        key_term: bool = False,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        max_ahead = max_distance if max_ahead is None else max_ahead
        check_at_least(1, head_dim=head_dim, max_distance=max_distance, num_layers=num_layers)
        check_at_least(0, max_ahead=max_ahead)
        check_not_negative("Use 0.02", std=std)
        self.head_dim, self.max_distance, self.max_ahead = head_dim, max_distance, max_ahead
        self.needs_probs, self.key_term = values, key_term
        size = (num_layers, max_distance + 1 + max_ahead, head_dim)
        self.key_table = nn.Parameter(torch.empty(size))
        self.value_table = nn.Parameter(torch.empty(size)) if values else None
        for table in self.parameters():
            nn.init.normal_(table, std=std)

    @classmethod
    def for_model(cls, shape: ModelShape, **settings: Any) -> Self:
        """Vectors for each layer, to a distance of 64 or the context, backwards only where causal."""
        implied = {"head_dim": shape.head_dim, "max_distance": min(64, shape.context_length)}
        implied |= {"num_layers": shape.num_layers, "max_ahead": 0 if shape.causal else None}
        return cls(**{**implied, **settings})

    def prepare(self, layout: Layout) -> tuple[RelativeIndex, int]:
        """The row of each pair, and the first row that is read."""
        return clipped_index(layout, self.max_distance, self.max_ahead)

    def score(self, q: Tensor, k: Tensor, layout: Layout, state: tuple[RelativeIndex, int], layer: int = 0) -> Tensor:
        """See `Scheme.score`."""
        index, first = state
        vectors = self.key_table[layer, first : first + index.rows].to(q.dtype).t()
        added = index.to_keys(q @ vectors)
        if self.key_term:
            added = added + repeat_heads(index.to_queries(k @ vectors), q.shape[1])
        return added * self.head_dim**-0.5

    def value(self, probs: Tensor, layout: Layout, state: tuple[RelativeIndex, int], layer: int = 0) -> Tensor | None:
        """See `Scheme.value`."""
        if self.value_table is None:
            return None
        index, first = state
        return index.to_rows(probs) @ self.value_table[layer, first : first + index.rows].to(probs.dtype)

    def extra_repr(self) -> str:
        """Settings, for ``print(model)``."""
        sizes = f"head_dim={self.head_dim}, max_distance={self.max_distance}, max_ahead={self.max_ahead}"
        return f"{sizes}, num_layers={len(self.key_table)}, values={self.needs_probs}, key_term={self.key_term}"
