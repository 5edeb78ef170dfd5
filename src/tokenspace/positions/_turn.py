"""Turning pairs of components by given cosines and sines, with a backward pass of its own.

What rotary embeddings do to queries and keys. Autograd would keep the halves and their
products; the derivative of a turn is the turn back, which needs nothing but the angles.
Where the angles come from is the schemes' matter.

Axis letters: B batch, H heads, T length, K head_dim.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from tokenspace.errors import ShapeError
from tokenspace.positions._precision import at_least_float32

Order = Literal["halves", "interleaved"]


class Angles(NamedTuple):
    """Cosines and sines for every position and pair: float32, (T, pairs) or (B, 1, T, pairs)."""

    cos: Tensor
    sin: Tensor


def turn(x_BHTK: Tensor, angles: Angles, order: Order) -> Tensor:
    """Each pair (a, b) of components becomes (a cos - b sin, b cos + a sin).

    Args:
        x_BHTK: Queries or keys, any float dtype; computed in float32 at least, rounded once.
        angles: For the first ``2 * pairs`` components; the others stay.
        order: "halves" pairs component i with i + pairs, "interleaved" 2i with 2i + 1.

    Example:
        >>> quarter = Angles(torch.tensor([[0.0]]), torch.tensor([[1.0]]))
        >>> turn(torch.tensor([[[[1.0, 0.0, 5.0]]]]), quarter, "halves").flatten().tolist()
        [0.0, 1.0, 5.0]
    """
    if torch.compiler.is_compiling():  # the compiler fuses it with what is around it
        return _turned(x_BHTK, angles.cos, angles.sin, order)
    return _Turn.apply(x_BHTK, angles.cos, angles.sin, order)


def for_heads(by_position: Tensor) -> Tensor:
    """(T, n) as it is, (B, T, n) as (B, 1, T, n): so that it meets (B, H, T, n)."""
    return by_position if by_position.dim() == 2 else by_position.unsqueeze(1)


def check_shape(which: str, x: Tensor, length: int, head_dim: int) -> None:
    """Refuse queries or keys that stand elsewhere than the angles, or have another length.

    Raises:
        ShapeError: names both shapes.
    """
    if x.shape[-2:] != (length, head_dim):
        rule = f"end in the shape ({length}, {head_dim}) of layout and head_dim"
        raise ShapeError(which, rule, tuple(x.shape), "Prepare the scheme for this layout")


def _turned(x: Tensor, cos: Tensor, sin: Tensor, order: Order) -> Tensor:
    wide = at_least_float32(x)
    pairs = cos.shape[-1]
    if order == "halves":
        first, second, both = slice(pairs), slice(pairs, 2 * pairs), torch.cat([cos, cos], dim=-1)
    else:
        first, second, both = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2), cos.repeat_interleave(2, dim=-1)
    if 2 * pairs < x.shape[-1]:
        both = torch.cat([both, both.new_ones(*both.shape[:-1], x.shape[-1] - 2 * pairs)], dim=-1)
    turned = wide * both
    turned[..., first].addcmul_(wide[..., second], sin.to(wide.dtype), value=-1)
    turned[..., second].addcmul_(wide[..., first], sin.to(wide.dtype))
    return turned.to(x.dtype)


def _turned_as_complex(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The same for interleaved pairs, which lie in memory as complex numbers do: one product, no second pass."""
    wide, turning = at_least_float32(x), 2 * cos.shape[-1]
    pairs = wide[..., :turning].unflatten(-1, (-1, 2))
    if any(stride % 2 for stride in (*pairs.stride()[:-1], pairs.storage_offset())) or pairs.stride(-1) != 1:
        pairs = pairs.contiguous()
    turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(cos, sin)).flatten(-2)
    if turning < x.shape[-1]:
        turned = torch.cat([turned, wide[..., turning:]], dim=-1)
    return turned.to(x.dtype)


class _Turn(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, cos: Tensor, sin: Tensor, order: Order) -> Tensor:
        return _turned_as_complex(x, cos, sin) if order == "interleaved" else _turned(x, cos, sin, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Order], output: Tensor) -> None:
        _, cos, sin, ctx.order = inputs
        ctx.save_for_backward(cos, sin)
        ctx.save_for_forward(cos, sin)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return _Turn.apply(tangent, *ctx.saved_tensors, ctx.order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        return _Turn.apply(gradient, cos, -sin, ctx.order), None, None, None
