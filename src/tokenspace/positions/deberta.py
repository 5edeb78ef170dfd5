"""DeBERTa's disentangled attention: content meets position, and position meets content.

One table of relative vectors for all layers; each layer projects them to keys, which the
queries meet (c2p), and to queries, which the keys meet (p2c). Far positions share
logarithmic buckets.

Source: He et al. 2020, section 3.1 (arXiv:2006.03654), with the buckets of its version 2.
The published models project positions with the attention's own matrices: `bind` does that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenspace.errors import SettingError, check_at_least
from tokenspace.positions._heads import repeat_heads
from tokenspace.positions._layout import Layout
from tokenspace.positions._relative import RelativeIndex
from tokenspace.positions._scheme import ModelShape, Scheme

_TERMS = ("c2p", "p2c")
_FEW = 4  # queries up to which going by pairs, not by rows of the table, costs less


@final
class Deberta(Scheme):
    """Logits ``(q_i · k_j + q_i · kr[i - j] + k_j · qr[i - j]) / sqrt(3 K)``.

    Args:
        d_model: Length of a relative vector.
        num_heads: Query heads.
        head_dim: Length K of a query.
        num_layers: Attention layers, each with its own projections.
        position_buckets: Rows of the table for either direction; 0 for one for each distance.
        max_distance: Distances beyond it are clipped (transformers' ``max_relative_positions``).
        terms: Which of "c2p" and "p2c" are used; the root holds one more than their number.
        norm: Whether the table passes a LayerNorm first (transformers' ``norm_rel_ebd``).

    Attributes:
        table: (2 * rows of one direction, d_model); the middle row is distance 0.
        key_weight, key_bias: Projections to keys, (num_layers, num_heads * head_dim, d_model) and
            without d_model; there for "c2p".
        query_weight, query_bias: To queries; there for "p2c".

    Raises:
        SettingError: a size is out of range, or a term is unknown.

    Example:
        >>> scheme = Deberta(d_model=8, num_heads=2, head_dim=4, position_buckets=8, max_distance=32)
        >>> q = torch.zeros(1, 2, 5, 4)
        >>> layout = Layout.contiguous(5)
        >>> scheme.score(q, q, layout, scheme.prepare(layout)).shape
        torch.Size([1, 2, 5, 5])
    """

    name = "deberta"
    head_axes: ClassVar = {"key_weight": 1, "key_bias": 1, "query_weight": 1, "query_bias": 1}

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        head_dim: int,
        num_layers: int = 1,
        position_buckets: int = 256,
        max_distance: int = 512,
        terms: Sequence[str] = _TERMS,
        norm: bool = False,
    ) -> None:
        super().__init__()
        check_at_least(1, d_model=d_model, num_heads=num_heads, head_dim=head_dim, num_layers=num_layers)
        check_at_least(0, position_buckets=position_buckets)
        check_at_least(max(2, position_buckets // 2 + 2), max_distance=max_distance)
        if position_buckets % 2 or not set(terms) <= set(_TERMS) or not terms:
            wrong = ("terms", "hold 'c2p', 'p2c' or both", list(terms), "Use both, as the paper does")
            odd = ("position_buckets", "be even", position_buckets, f"Use {position_buckets + 1}")
            raise SettingError(*(odd if position_buckets % 2 else wrong))
        self.num_heads, self.head_dim, self.terms = num_heads, head_dim, tuple(terms)
        self.position_buckets, self.max_distance = position_buckets, max_distance
        self.span = position_buckets or max_distance
        self.logit_scale = (head_dim * (1 + len(self.terms))) ** -0.5
        self.table = nn.Parameter(torch.empty(2 * self.span, d_model))
        self.norm = nn.LayerNorm(d_model, eps=1e-7) if norm else nn.Identity()
        nn.init.normal_(self.table, std=0.02)
        for role, term in (("key", "c2p"), ("query", "p2c")):
            used = term in self.terms
            weight = nn.Parameter(torch.empty(num_layers, num_heads * head_dim, d_model)) if used else None
            self.register_parameter(f"{role}_weight", weight)
            self.register_parameter(f"{role}_bias", nn.Parameter(torch.zeros(weight.shape[:2])) if used else None)
            if used:
                nn.init.normal_(weight, std=0.02)
        self._bound: dict[int, tuple[nn.Linear, nn.Linear]] = {}  # a plain dict: they belong to the attention

    @classmethod
    def for_model(cls, shape: ModelShape, **settings: Any) -> Self:
        """Projections of its own for each layer."""
        sizes = {"d_model": shape.d_model, "num_heads": shape.num_heads, "head_dim": shape.head_dim}
        return cls(**{**sizes, "num_layers": shape.num_layers, **settings})

    def bind(self, query_proj: nn.Linear, key_proj: nn.Linear, layer: int = 0) -> None:
        """Project a layer's positions with its attention's own matrices (``share_att_key``).

        The matrices stay the attention's: they are neither parameters nor state of this scheme.

        Raises:
            SettingError: a matrix has another size than `d_model` to the heads.
        """
        size = (self.num_heads * self.head_dim, self.table.shape[1])
        for name, proj in (("query_proj", query_proj), ("key_proj", key_proj)):
            if tuple(proj.weight.shape) != size:
                raise SettingError(name, f"have a weight of shape {size}", tuple(proj.weight.shape), "Bind full heads")
        self._bound[layer] = (query_proj, key_proj)

    def local_heads(self, offset: int, count: int) -> Self:
        """The scheme of some heads alone, to which their own projections can then be bound.

        Raises:
            SettingError: projections of all heads are bound already.
        """
        if self._bound:
            rule = "be called before bind, with projections of the local heads"
            raise SettingError("local_heads", rule, "called after it", "Cut the scheme first, then bind")
        return super().local_heads(offset, count)

    def prepare(self, layout: Layout) -> "_Reachable":
        """The row of each pair of query and key, and the rows that there can be."""
        T, S, farthest = layout.query_length, layout.key_length, layout.max_distance
        behind, ahead = (S - 1, T - 1) if layout.consecutive else (farthest, farthest)
        first, end = max(0, self.span - ahead), min(2 * self.span, self.span + behind + 1)
        row = self.bucket(-layout.relative_positions()) + self.span
        return _Reachable(
            index=RelativeIndex.of(row.clamp(first, end - 1) - first, end - first),
            table=self.norm(self.table[first:end]),
        )

    def bucket(self, distance: Tensor) -> Tensor:
        """The bucket of each distance ``i - j``, of either sign: int64 of the same shape.

        Example:
            >>> scheme = Deberta(d_model=2, num_heads=1, head_dim=2, position_buckets=8, max_distance=32)
            >>> scheme.bucket(torch.tensor([-30, -2, 0, 4, 5, 9, 30])).tolist()
            [-7, -2, 0, 4, 5, 6, 7]
        """
        if not self.position_buckets:
            return distance
        middle = self.position_buckets // 2  # the rounding of each operation is that of the released code
        steps = torch.log(torch.tensor((self.max_distance - 1) / middle))
        far = torch.ceil(torch.log(distance.abs().clamp(min=1) / middle) / steps * (middle - 1)) + middle
        return torch.where(distance.abs() <= middle, distance, far.long() * distance.sign())

    def score(self, q: Tensor, k: Tensor, layout: Layout, state: "_Reachable", layer: int = 0) -> Tensor:
        """See `Scheme.score`."""
        self.check_heads(q)
        added = 0
        if "c2p" in self.terms:
            added = state.index.to_keys(self._meet_keys(q, state.table, layer))
        if "p2c" in self.terms:
            k = repeat_heads(k, self.num_heads)
            rows_HKR = self._projected(state.table, "query", layer).to(q.dtype)
            few = q.shape[2] <= _FEW
            added = added + (_meet_at(k, rows_HKR, state.index) if few else state.index.to_queries(k @ rows_HKR))
        return added * self.logit_scale

    def _meet_keys(self, q: Tensor, table: Tensor, layer: int) -> Tensor:
        """Each query times each relative vector as a key, (B, H, T, R), in the order that costs less."""
        if layer in self._bound or q.shape[2] > _FEW:
            return q @ self._projected(table, "key", layer).to(q.dtype)
        weight_HKD = self.key_weight[layer].unflatten(0, (self.num_heads, -1)).to(q.dtype)
        bias_HK1 = self.key_bias[layer].unflatten(0, (self.num_heads, -1, 1)).to(q.dtype)
        return (q @ weight_HKD) @ table.t().to(q.dtype) + q @ bias_HK1

    def _projected(self, table: Tensor, role: str, layer: int) -> Tensor:
        """The relative vectors as keys or queries of every head: (H, K, R)."""
        if layer in self._bound:
            query_proj, key_proj = self._bound[layer]
            rows = (key_proj if role == "key" else query_proj)(table)
        else:
            rows = F.linear(table, getattr(self, f"{role}_weight")[layer], getattr(self, f"{role}_bias")[layer])
        return rows.view(-1, self.num_heads, self.head_dim).permute(1, 2, 0)

    def extra_repr(self) -> str:
        """Settings, for ``print(model)``."""
        sizes = f"num_heads={self.num_heads}, head_dim={self.head_dim}, position_buckets={self.position_buckets}"
        return f"{sizes}, max_distance={self.max_distance}, terms={self.terms}"


@dataclass(frozen=True, eq=False)
class _Reachable:
    """What `Deberta` makes ready once a forward pass.

    Attributes:
        index: Of each pair's row within `table`.
        table: The rows that a pair can read, after their LayerNorm, (R, D).
    """

    index: RelativeIndex
    table: Tensor


def _meet_at(k: Tensor, rows_HKR: Tensor, index: RelativeIndex) -> Tensor:
    """Each key times the one row that it has for each query, (B, H, T, S): for few queries."""
    vectors = rows_HKR.permute(2, 0, 1)[index.index].movedim(-2, -4)  # (H, T, S, K), or (B, 1, H, T, S, K)
    return (k.unsqueeze(2) * (vectors.squeeze(1) if vectors.dim() == 6 else vectors)).sum(-1)
