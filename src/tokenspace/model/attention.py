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
from tokenspace.positions import Layout, ModelShape, Scheme


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
        B, H, T, K = k_BHTK.shape
        stop = self.length + T
        if stop > self.capacity:
            raise ShapeError(
                "cache", f"hold at most {self.capacity} tokens", stop, "Make the cache larger, or start anew"
            )
        if layer not in self._layers:
            self._layers[layer] = (k_BHTK.new_empty(B, H, self.capacity, K), v_BHTK.new_empty(B, H, self.capacity, K))
        keys, values = self._layers[layer]
        keys[:, :, self.length : stop] = k_BHTK
        values[:, :, self.length : stop] = v_BHTK
        return keys[:, :, :stop], values[:, :, :stop]


@dataclass(frozen=True, eq=False)
class Prepared:
    """What all layers of one forward pass share: a scheme with its state, a layout with its mask.

    Attributes:
        scheme: The position scheme.
        layout: Where queries and keys stand.
        state: What `scheme.prepare` returned for this layout.
        mask: What `layout.mask` returned.
        causal: Whether queries see only what came before.
    """

    scheme: Scheme
    layout: Layout
    state: Any
    mask: Tensor | None
    causal: bool

    @classmethod
    def of(cls, scheme: Scheme, layout: Layout, causal: bool = True) -> Self:
        """Do once a forward pass what need not be done once a layer."""
        return cls(scheme, layout, scheme.prepare(layout), layout.mask(causal), causal)


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
        k_BHSK: Keys, likewise.
        v_BHSK: Values.
        prepared: The scheme and the layout of this forward pass.
        layer: Index of the layer, from 0.
        dropout: Share of attention probabilities set to 0.
        raw: Queries and keys before `Scheme.rotate`, for `Scheme.score`; None where they are the same.

    Returns:
        (B, H, T, K). A query that sees no key gives 0.

    Example:
        >>> from tokenspace.positions import get
        >>> q = torch.zeros(1, 2, 5, 4)
        >>> attend(q, q, q, Prepared.of(get("none"), Layout.contiguous(5))).shape
        torch.Size([1, 2, 5, 4])
    """
    scheme, layout, mask = prepared.scheme, prepared.layout, prepared.mask
    bias = scheme.score(*(raw or (q_BHTK, k_BHSK)), layout, prepared.state, layer)
    scale = scheme.logit_scale if scheme.logit_scale is not None else q_BHTK.shape[-1] ** -0.5
    T, S = layout.query_length, layout.key_length
    is_causal = prepared.causal and mask is None and T == S
    if bias is None and not scheme.needs_probs:
        return F.scaled_dot_product_attention(
            q_BHTK, k_BHSK, v_BHSK, attn_mask=mask, dropout_p=dropout, is_causal=is_causal, scale=scale
        )
    if is_causal:
        mask = torch.ones(T, S, dtype=torch.bool, device=q_BHTK.device).tril()
    bias = torch.zeros((), device=q_BHTK.device) if bias is None else bias
    if not scheme.needs_probs:
        if mask is not None:
            bias = bias.masked_fill(~mask, -math.inf)
        return F.scaled_dot_product_attention(
            q_BHTK, k_BHSK, v_BHSK, attn_mask=bias.to(q_BHTK.dtype), dropout_p=dropout, scale=scale
        )
    logits = (q_BHTK @ k_BHSK.transpose(-2, -1)) * scale + bias
    if mask is not None:  # not -inf: a query without keys would make NaN, which anomaly detection reports
        logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    probs = logits.float().softmax(dim=-1)
    if mask is not None:
        probs = probs.masked_fill(~mask, 0.0)
    probs = F.dropout(probs.to(v_BHSK.dtype), dropout)
    attended = probs @ v_BHSK
    added = scheme.value(probs, layout, prepared.state, layer)
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

    def forward(self, x_BTD: Tensor, prepared: Prepared, layer: int, cache: KeyValueCache | None) -> Tensor:
        """(B, T, D) to (B, T, D); see `attend`."""
        B, T, _ = x_BTD.shape
        raw_q, k, v = (
            part.view(B, T, self.num_heads, self.head_dim).transpose(1, 2) for part in self.qkv(x_BTD).chunk(3, dim=-1)
        )
        scheme, layout, state = prepared.scheme, prepared.layout, prepared.state
        q = scheme.rotate(raw_q, layout.query_positions, state, layer)
        if not scheme.needs_raw_keys:
            k = scheme.rotate(k, layout.query_positions, state, layer)
        if cache is not None:
            k, v = cache.append(layer, k, v)
        raw_k = k
        if scheme.needs_raw_keys:
            k = scheme.rotate(k, layout.key_positions, state, layer)
        y = attend(q, k, v, prepared, layer, self.dropout if self.training else 0.0, raw=(raw_q, raw_k))
        y = self.out(y.transpose(1, 2).reshape(B, T, -1))
        return F.dropout(y, self.dropout, self.training)
