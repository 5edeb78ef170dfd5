"""Attention that any position scheme can enter, and the cache of its keys and values.

`attend` calls a scheme's hooks in their places and leaves the work to torch's fused
attention unless the scheme needs the probabilities. It knows no scheme by name.

Axis letters: B batch, T query length, S key length, H heads, K head_dim.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenspace.errors import ShapeError
from tokenspace.positions import Layout, ModelShape, Scheme, repeat_heads


class KeyValueCache:
    """Keys and values of the tokens a model has read, for every layer.

    Args:
        capacity: Tokens it can hold.

    Attributes:
        layout: Where the kept keys stand; None while the cache is empty.

    Example:
        >>> KeyValueCache(capacity=16).length
        0
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.layout: Layout | None = None
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def length(self) -> int:
        """Tokens held."""
        return 0 if self.layout is None else self.layout.key_length

    def append(self, layer: int, k_BHTK: Tensor, v_BHTK: Tensor) -> tuple[Tensor, Tensor]:
        """Keep new keys and values of a layer; returns all of that layer, (B, H, S, K).

        Raises:
            ShapeError: they do not fit into the capacity.
        """
        stop = self.length + k_BHTK.shape[2]
        if stop > self.capacity:
            raise ShapeError(
                "cache", f"hold at most {self.capacity} tokens", stop, "Make the cache larger, or start anew"
            )
        if layer not in self._layers:
            self._layers[layer] = tuple(_room(new, self.capacity) for new in (k_BHTK, v_BHTK))
        for kept, new in zip(self._layers[layer], (k_BHTK, v_BHTK), strict=True):
            kept[:, :, self.length : stop] = new
        keys, values = self._layers[layer]
        return keys[:, :, :stop], values[:, :, :stop]


def _room(first_BHTK: Tensor, capacity: int) -> Tensor:
    B, H, _, K = first_BHTK.shape
    return first_BHTK.new_empty(B, H, capacity, K)


@dataclass(eq=False)
class Prepared:
    """What all layers of one forward pass share: a scheme with its state, a layout with its mask.

    Attributes:
        scheme: The position scheme.
        layout: Where queries and keys stand.
        state: What `scheme.prepare` returned for this layout; a score that all layers share is masked.
        mask: What `layout.mask` returned.
        plainly_causal: Whether each query sees the keys up to its own, of as many as there are queries.
    """

    scheme: Scheme
    layout: Layout
    state: Any
    mask: Tensor | None
    plainly_causal: bool = False

    @classmethod
    def of(cls, scheme: Scheme, layout: Layout, causal: bool = True) -> Self:
        """Do once a forward pass what need not be done once a layer.

        Raises:
            ShapeError: the layout has memory, but the scheme enters the token vectors, which memory keeps.
        """
        if layout.memory_length and scheme.enters_input:
            rule = f"have no memory with {scheme.name!r} positions, which memory would keep"
            raise ShapeError("layout", rule, f"memory of {layout.memory_length}", "Use a relative scheme")
        prepared = cls(scheme, layout, scheme.prepare(layout), layout.mask(causal))
        if causal and prepared.mask is None and layout.query_length == layout.key_length:
            prepared.plainly_causal = True  # set in a branch: compiled, the comparison alone is no bool
        if scheme.shares_score:  # masked here, once for all layers
            prepared.state = prepared.masked(prepared.state)
        return prepared

    def seen(self) -> Tensor | None:
        """The mask, written out where it is plainly causal; None where every query sees every key."""
        if not self.plainly_causal:
            return self.mask
        T, device = self.layout.query_length, self.layout.query_positions.device
        return torch.ones(T, T, dtype=torch.bool, device=device).tril()

    def masked(self, score: Tensor) -> Tensor:
        """A score with -inf where nothing may be seen."""
        seen = self.seen()
        return score if seen is None else score.masked_fill(~seen, -math.inf)


def attend(
    q_BHTK: Tensor,
    k_BHSK: Tensor,
    v_BHSK: Tensor,
    prepared: Prepared,
    layer: int = 0,
    dropout: float = 0.0,
    raw: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Scaled dot-product attention with a scheme's additions to logits and values.

    Args:
        q_BHTK: Queries, as `Scheme.rotate` left them.
        k_BHSK: Keys, likewise; of as many heads as the queries, or of fewer that divide them.
        v_BHSK: Values.
        prepared: The scheme and the layout of this forward pass.
        layer: Index of the layer, from 0.
        dropout: Share of attention probabilities set to 0.
        raw: Queries and keys before `Scheme.rotate`, for `Scheme.score` and the scale; None where it left them.

    Returns:
        (B, H, T, K). A query that sees no key gives 0.

    Example:
        >>> from tokenspace.positions import get
        >>> q = torch.zeros(1, 2, 5, 4)
        >>> attend(q, q, q, Prepared.of(get("none"), Layout.contiguous(5))).shape
        torch.Size([1, 2, 5, 4])
    """
    scheme, layout, state = prepared.scheme, prepared.layout, prepared.state
    raw_q, raw_k = raw or (q_BHTK, k_BHSK)
    scale = scheme.scale_of(layer)
    scale = raw_q.shape[-1] ** -0.5 if scale is None else scale
    score = scheme.score(raw_q, raw_k, layout, state, layer)
    if not scheme.needs_probs:
        is_causal = score is None and prepared.plainly_causal
        mask = prepared.mask
        if score is not None:
            mask = (score if scheme.shares_score else prepared.masked(score)).to(q_BHTK.dtype)
        K = v_BHSK.shape[-1]
        if q_BHTK.shape[-1] > K:  # the fused kernels want one length
            v_BHSK = F.pad(v_BHSK, (0, q_BHTK.shape[-1] - K))
        fewer = q_BHTK.shape[1] != k_BHSK.shape[1]
        attended = F.scaled_dot_product_attention(
            q_BHTK, k_BHSK, v_BHSK, mask, dropout, is_causal, scale=scale, enable_gqa=fewer
        )
        return attended[..., :K]
    k_BHSK, v_BHSK = (repeat_heads(x, q_BHTK.shape[1]) for x in (k_BHSK, v_BHSK))
    logits = (q_BHTK @ k_BHSK.transpose(-2, -1)) * scale
    logits = logits if score is None else logits + score
    seen = prepared.seen()
    if seen is not None:  # not -inf: a query without keys would make NaN, which anomaly detection reports
        logits = logits.masked_fill(~seen, torch.finfo(logits.dtype).min)
    probs = logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    if seen is not None:
        probs = probs.masked_fill(~seen, 0.0)
    probs = F.dropout(probs.to(v_BHSK.dtype), dropout)
    added = scheme.value(probs, layout, state, layer)
    attended = probs @ v_BHSK
    return attended if added is None else attended + added


class SelfAttention(nn.Module):
    """GPT-2's multi-head self-attention with a position scheme (Radford et al. 2019).

    Args:
        shape: Sizes of the model.
        dropout: Share of attention probabilities and of outputs set to 0 in training.
    """

    def __init__(self, shape: ModelShape, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.dropout = shape.num_heads, shape.head_dim, dropout
        self.qkv = nn.Linear(shape.d_model, 3 * shape.num_heads * shape.head_dim)
        self.out = nn.Linear(shape.num_heads * shape.head_dim, shape.d_model)

    def forward(
        self,
        x_BTD: Tensor,
        prepared: Prepared,
        layer: int,
        cache: KeyValueCache | None,
        memory_BMD: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D); `memory_BMD` has keys and values, but no queries. See `attend`."""
        B, T, _ = x_BTD.shape
        q, k, v = self.qkv(x_BTD).chunk(3, dim=-1)
        if memory_BMD is not None:
            width = q.shape[-1]
            kept = F.linear(memory_BMD, self.qkv.weight[width:], self.qkv.bias[width:])
            k, v = (torch.cat([old, new], dim=1) for old, new in zip(kept.chunk(2, dim=-1), (k, v), strict=True))
        q, k, v = (part.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for part in (q, k, v))
        scheme, layout, state = prepared.scheme, prepared.layout, prepared.state
        raw_q = q
        if not scheme.needs_raw_keys:
            q, k = scheme.rotate(q, k, layout, state, layer)
        if cache is not None:
            k, v = cache.append(layer, k, v)
        raw_k = k
        if scheme.needs_raw_keys:
            q, k = scheme.rotate(q, k, layout, state, layer)
        y = attend(q, k, v, prepared, layer, self.dropout if self.training else 0.0, raw=(raw_q, raw_k))
        y = self.out(y.transpose(1, 2).reshape(B, T, -1))
        return F.dropout(y, self.dropout, self.training)
