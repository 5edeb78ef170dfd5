"""Transformer-XL: every query meets the waves of its distance to each key, through a learned matrix.

The logit of query i and key j has four terms: (a) content with content, (b) content with
distance, (c) a learned vector u with content, (d) a learned vector v with distance. Made for
segments with memory, where absolute positions would repeat.

Source: Dai et al. 2019, section 3.3 (arXiv:1901.02860). Term (a) is the attention's own; (c)
comes from adding u to the queries in `rotate`; (b) and (d) are the `score`.
"""

from typing import Any, ClassVar, NamedTuple, Self, final

import torch
from torch import Tensor, nn

from tokenspace.errors import check_at_least, check_not_negative
from tokenspace.positions._layout import Layout
from tokenspace.positions._relative import RelativeIndex, skew
from tokenspace.positions._scheme import ModelShape, Scheme
from tokenspace.positions._waves import waves


class _Distances(NamedTuple):
    """The waves of the distances of a layout, (R, D), and how their columns come to the keys."""

    waves: Tensor
    index: RelativeIndex | None  # None where keys are consecutive: `skew`


@final
class TransformerXL(Scheme):
    """Logits ``((q_i + u) · k_j + (q_i + v) · W r[i - j]) / sqrt(K)``.

    Args:
        d_model: Length D of the waves r; even.
        num_heads: Query heads.
        head_dim: Length K of a query.
        num_layers: Attention layers.
        share_matrix: Whether all layers share one matrix W.
        share_biases: Whether all layers share one u and one v, as in the released code by default.
        causal: Whether no query sees a key ahead of it; spares half of the products.
        std: Standard deviation of the first draw of W, u and v.

    Attributes:
        matrix: W: (num_layers or 1, num_heads * head_dim, d_model): ``r_net.weight`` of the released code.
        content_bias: u: (num_layers or 1, num_heads, head_dim): ``r_w_bias``.
        distance_bias: v, of the same shape: ``r_r_bias``.

    Raises:
        SettingError: a size is below 1, or `d_model` is odd.

    Example:
        >>> scheme = TransformerXL(d_model=8, num_heads=2, head_dim=4)
        >>> q, k = torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 5, 4)
        >>> layout = Layout.contiguous(3).with_memory(2)
        >>> scheme.score(q, k, layout, scheme.prepare(layout)).shape
        torch.Size([1, 2, 3, 5])
    """

    name = "transformer_xl"
    head_axes: ClassVar = {"matrix": 1, "content_bias": 1, "distance_bias": 1}

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        head_dim: int,
        num_layers: int = 1,
        share_matrix: bool = False,
        share_biases: bool = False,
        causal: bool = True,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        check_at_least(1, num_heads=num_heads, head_dim=head_dim, num_layers=num_layers)
        self.check_even(d_model=d_model)
        check_not_negative("Use 0.02", std=std)
        self.d_model, self.num_heads, self.head_dim, self.causal = d_model, num_heads, head_dim, causal
        bias_size = (1 if share_biases else num_layers, num_heads, head_dim)
        self.matrix = nn.Parameter(torch.empty(1 if share_matrix else num_layers, num_heads * head_dim, d_model))
        self.content_bias = nn.Parameter(torch.empty(bias_size))
        self.distance_bias = nn.Parameter(torch.empty(bias_size))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=std)
        self._kept: Tensor | None = None  # waves of the distances from _farthest down; see `_waves`
        self._farthest = 0

    @classmethod
    def for_model(cls, shape: ModelShape, **settings: Any) -> Self:
        """W, u and v for each layer."""
        sizes = {"d_model": shape.d_model, "num_heads": shape.num_heads, "head_dim": shape.head_dim}
        return cls(**{**sizes, "num_layers": shape.num_layers, "causal": shape.causal, **settings})

    def prepare(self, layout: Layout) -> _Distances:
        """The waves of the distances between a query and a key; away from consecutive keys, of those that occur."""
        device = layout.key_positions.device
        if layout.consecutive:
            ahead = 0 if self.causal else layout.query_length - 1
            return _Distances(self._waves(layout.key_length, ahead, device), None)
        relative = layout.relative_positions()
        if torch.compiler.is_compiling():  # there the number of columns may not depend on the positions
            farthest = layout.max_distance
            columns = torch.arange(-farthest, farthest + 1, device=device)
            rows = relative + farthest
        else:
            if self.causal:  # keys ahead may read any column
                relative = relative.tril(layout.key_length - layout.query_length)
            columns, rows = relative.unique(return_inverse=True)
        return _Distances(waves(-columns, self.d_model), RelativeIndex.of(rows, len(columns)))

    def rotate(self, q: Tensor, k: Tensor, layout: Layout, state: _Distances, layer: int = 0) -> tuple[Tensor, Tensor]:
        """Add u to the queries; keys stay. See `Scheme.rotate`."""
        self.check_heads(q)
        return q + _of_layer(self.content_bias, layer).to(q.dtype).unsqueeze(-2), k

    def score(self, q: Tensor, k: Tensor, layout: Layout, state: _Distances, layer: int = 0) -> Tensor:
        """The terms with distances; see `Scheme.score`. Any number where `causal` forbids to look."""
        self.check_heads(q)
        scale = self.head_dim**-0.5
        q = (q + _of_layer(self.distance_bias, layer).to(q.dtype).unsqueeze(-2)) * scale
        matrix_HKD = _of_layer(self.matrix, layer).to(q.dtype).unflatten(0, (self.num_heads, self.head_dim))
        r_DR = state.waves.to(q.dtype).t()
        few_queries = q.shape[0] * q.shape[2] < self.head_dim  # then it is cheaper to bring them to the waves
        by_relative = (q @ matrix_HKD) @ r_DR if few_queries else q @ (matrix_HKD @ r_DR)
        return skew(by_relative, layout.key_length) if state.index is None else state.index.to_keys(by_relative)

    def _waves(self, behind: int, ahead: int, device: torch.device) -> Tensor:
        """Waves of the distances behind … -ahead, (R, D), cut out of those kept from calls before."""
        if torch.compiler.is_compiling():
            return waves(torch.arange(behind, -ahead - 1, -1, device=device), self.d_model)
        if self._kept is None or self._kept.device != device or self._farthest < behind:
            farthest = 2 * behind  # so that growing by one token seldom makes them anew
            last = 0 if self.causal else -farthest
            with torch.inference_mode(False):  # else no later training could use them
                kept = waves(torch.arange(farthest, last - 1, -1, device=device), self.d_model)
            self._kept, self._farthest = kept, farthest
        return self._kept[self._farthest - behind : self._farthest + ahead + 1]

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets: all but the kept waves."""
        return {**self.__dict__, "_kept": None}

    def extra_repr(self) -> str:
        """Settings, for ``print(model)``."""
        sizes = f"d_model={self.d_model}, num_heads={self.num_heads}, head_dim={self.head_dim}"
        return f"{sizes}, matrices={len(self.matrix)}, biases={len(self.content_bias)}, causal={self.causal}"


def _of_layer(parameter: Tensor, layer: int) -> Tensor:
    """The part of one layer; of a shared parameter, the only part."""
    return parameter[0 if len(parameter) == 1 else layer]
