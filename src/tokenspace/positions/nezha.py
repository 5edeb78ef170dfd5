"""NEZHA: fixed waves for each clipped relative position, met by queries and values.

Source: Wei et al. 2019, "NEZHA: Neural Contextualized Representation for Chinese Language
Understanding" (arXiv:1909.00204), section 2. `shaw` with sine and cosine for its vectors,
so nothing is learned and all layers are alike. As in the released models, the waves count
from the farthest position behind: that of relative position 0 is ``max_distance``.
"""

from typing import Any, Self, final

import torch
from torch import Tensor

from tokenspace.errors import check_above_0, check_at_least
from tokenspace.positions._layout import Layout
from tokenspace.positions._relative import RelativeIndex, clipped_index
from tokenspace.positions._scheme import ModelShape, Scheme
from tokenspace.positions._waves import waves


@final
class Nezha(Scheme):
    """Adds ``q_i · r[j - i] / sqrt(K)`` to the logits and ``sum_j p_ij r[j - i]`` to the values.

    ``r[d]`` are the waves at ``d + max_distance``, d clipped to ±max_distance.

    Args:
        head_dim: Length K of a query; even.
        max_distance: Relative positions are clipped to ±max_distance.
        theta: The longest wave is ``2 * pi * theta`` tokens long.

    Raises:
        SettingError: a size is below 1, `head_dim` is odd, or `theta` is not above 0.

    Example:
        >>> scheme = Nezha(head_dim=4, max_distance=2)
        >>> index, vectors = scheme.prepare(Layout.contiguous(5))
        >>> vectors.shape
        torch.Size([5, 4])
    """

    name = "nezha"
    needs_probs = True

    def __init__(self, head_dim: int, max_distance: int = 64, theta: float = 10000.0) -> None:
        super().__init__()
        check_at_least(1, max_distance=max_distance)
        self.check_even(head_dim=head_dim)
        check_above_0("Use 10000.0, as the paper does", theta=theta)
        self.head_dim, self.max_distance, self.theta = head_dim, max_distance, float(theta)

    @classmethod
    def for_model(cls, shape: ModelShape, **settings: Any) -> Self:
        """Waves for the model's heads."""
        if "head_dim" not in settings:
            cls.check_pairs(shape)
        return cls(**{"head_dim": shape.head_dim, **settings})

    def prepare(self, layout: Layout) -> tuple[RelativeIndex, Tensor]:
        """The row of each pair, and the vectors that are read: float32, (R, K)."""
        index, first = clipped_index(layout, self.max_distance, self.max_distance)
        rows = torch.arange(first, first + index.rows, device=index.index.device)
        return index, waves(rows, self.head_dim, self.theta, "interleaved")

    def score(
        self, q: Tensor, k: Tensor, layout: Layout, state: tuple[RelativeIndex, Tensor], layer: int = 0
    ) -> Tensor:
        """See `Scheme.score`."""
        index, vectors = state
        return index.to_keys(q @ vectors.to(q.dtype).t()) * self.head_dim**-0.5

    def value(self, probs: Tensor, layout: Layout, state: tuple[RelativeIndex, Tensor], layer: int = 0) -> Tensor:
        """See `Scheme.value`."""
        index, vectors = state
        return index.to_rows(probs) @ vectors.to(probs.dtype)

    def extra_repr(self) -> str:
        """Settings, for ``print(model)``."""
        return f"head_dim={self.head_dim}, max_distance={self.max_distance}, theta={self.theta}"
