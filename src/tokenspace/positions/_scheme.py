"""Scheme: the contract between a way of encoding order and the model that uses it.

Position can enter a model at four places: the input embedding, the queries and keys,
the attention logits, and the attended values. A scheme overrides the places it uses;
the base class does nothing at all of them, and that *is* "no positions". A model
calls every place and never asks for a scheme's name; whatever else it must know, a
scheme declares as an attribute. Key heads may be fewer than query heads: query head ``h``
of H reads key head ``h // (H / key heads)``.

Axis letters: B batch, T query length, S key length, D d_model, H heads, K head_dim.
"""

import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from tokenspace.errors import SettingError, ShapeError, check_at_least
from tokenspace.positions._layout import Layout, check_positions


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The sizes of a model that a scheme may depend on.

    Attributes:
        d_model: Length of a token vector.
        num_heads: Attention heads a layer.
        head_dim: Length of one head's query.
        num_layers: Attention layers.
        context_length: Tokens of a training window.
        causal: Whether queries see only what came before.
    """

    d_model: int
    num_heads: int
    head_dim: int
    num_layers: int
    context_length: int
    causal: bool = True


class Scheme(nn.Module):
    """A position scheme; the base class encodes no order.

    Class attributes, which subclasses or their instances override:
        name: How `positions.get` finds it: the name of its file.
        logit_scale: Factor on ``q @ k``; None for the usual ``head_dim ** -0.5``. A model asks `scale_of`.
        needs_probs: `value` needs the attention probabilities, so no fused attention.
        needs_raw_keys: A cache must hold the keys as they were before `rotate`, which then gets all
            of them each time.
        length_dependent: The encoding of a position depends on the length of the sequence.
        shares_score: `score` is what `prepare` returned, in every layer, whatever queries and keys hold.
        enters_input: `embed` changes the token vectors; memory of them would keep old positions.
        max_position: The largest position it can encode; None for no limit.
        num_heads: Query heads it was built for; None where it does not matter.
        head_axes: Which axis of which parameter goes by heads, for `local_heads`.
    """

    name: ClassVar[str]
    logit_scale: float | None = None
    needs_probs: bool = False
    needs_raw_keys: bool = False
    length_dependent: bool = False
    shares_score: bool = False
    enters_input: bool = False
    max_position: int | None = None
    num_heads: int | None = None
    head_axes: ClassVar[dict[str, int]] = {}

    @classmethod
    def for_model(cls, shape: ModelShape, **settings: Any) -> Self:
        """The scheme for a model of this shape; `settings` are those of its constructor."""
        return cls(**settings)

    @property
    def places(self) -> frozenset[str]:
        """Where it enters a model: some of "embed", "rotate", "score" and "value"."""
        hooks = ("embed", "rotate", "score", "value")
        return frozenset(hook for hook in hooks if getattr(type(self), hook) is not getattr(Scheme, hook))

    @classmethod
    def token_scale(cls, d_model: int) -> float:
        """Factor on token vectors that the scheme is added to."""
        return 1.0

    def scale_of(self, layer: int) -> float | None:
        """`logit_scale` in this layer."""
        return self.logit_scale

    def reset_tables(self, std: float) -> None:
        """Draw anew, with this standard deviation, what is added to the token vectors and learned."""

    def prepare(self, layout: Layout) -> Any:
        """What all layers share in one forward pass (angles, buckets), in float32."""
        return None

    def embed(self, x_BTD: Tensor, positions: Tensor | None = None) -> Tensor:
        """Let positions enter the input embedding.

        Args:
            x_BTD: Fresh token vectors, any float dtype; may be overwritten.
            positions: int64, (T,) or (B, T); None for 0 … T-1.

        Returns:
            Vectors of the same shape and dtype; possibly `x_BTD` itself.

        Raises:
            ShapeError: a position lies outside the scheme's range.
        """
        return x_BTD

    def rotate(self, q: Tensor, k: Tensor, layout: Layout, state: Any, layer: int = 0) -> tuple[Tensor, Tensor]:
        """Let positions enter queries and keys.

        Args:
            q: Queries, (B, H, T, K).
            k: The keys that it has not seen, (B, H or fewer, S - layout.rotated, K).
            layout: Where they stand.
            state: What `prepare` returned for this layout.
            layer: Index of the layer, from 0.

        Returns:
            Queries and keys of the same dtypes, possibly longer than K.
        """
        return q, k

    def score(self, q: Tensor, k: Tensor, layout: Layout, state: Any, layer: int = 0) -> Tensor | None:
        """What to add to the scaled logits.

        Args:
            q: Queries before `rotate`, (B, H, T, K).
            k: All keys before `rotate`, (B, H or fewer, S, K).
            layout: Where they stand.
            state: What `prepare` returned for this layout.
            layer: Index of the layer, from 0.

        Returns:
            (B or 1, H, T, S); None for nothing.

        Raises:
            ShapeError: `q` has other heads than the scheme.
        """
        return None

    def value(self, probs: Tensor, layout: Layout, state: Any, layer: int = 0) -> Tensor | None:
        """What to add to the attended values, (B, H, T, K), from (B, H, T, S); asked only where `needs_probs`."""
        return None

    def local_heads(self, offset: int, count: int) -> Self:
        """The scheme of query heads `offset` … `offset` + `count` - 1 alone (tensor parallelism).

        Returns:
            A copy with its own share of the parameters; equal to this scheme where no head
            differs from another.

        Raises:
            SettingError: there are no such heads.
        """
        check_at_least(0, offset=offset)
        check_at_least(1, count=count)
        if self.num_heads is not None and offset + count > self.num_heads:
            rule = f"be at most the {self.num_heads} heads of the scheme"
            raise SettingError("offset + count", rule, offset + count, "Build the scheme for all heads of the model")
        local = copy.deepcopy(self)
        for name, axis in self.head_axes.items():
            parameter = getattr(local, name)
            if parameter is not None:
                width = parameter.shape[axis] // self.num_heads
                share = parameter.detach().narrow(axis, offset * width, count * width)
                setattr(local, name, nn.Parameter(share.clone(), parameter.requires_grad))
        local.num_heads = None if self.num_heads is None else count
        return local

    @classmethod
    def check_causal(cls, shape: ModelShape, instead: str) -> None:
        """Refuse a model that is not causal.

        Raises:
            SettingError: names a scheme to take `instead`.
        """
        if not shape.causal:
            rule = "be of another kind where the model is not causal"
            raise SettingError("positions", rule, cls.name, f"Use {instead!r}")

    @classmethod
    def check_pairs(cls, shape: ModelShape) -> None:
        """Refuse a model whose heads cannot be cut into pairs, in the words of its settings.

        Raises:
            SettingError: the model's head_dim is odd.
        """
        if shape.head_dim % 2:
            twice = 2 * shape.num_heads
            rule = f"be a multiple of {twice}, twice num_heads, for {cls.name} positions"
            next_step = f"Use {-(-shape.d_model // twice) * twice}, or other num_heads"
            raise SettingError("d_model", rule, shape.d_model, next_step)

    def check_even(self, **sizes: int) -> None:
        """Refuse sizes that cannot be cut into pairs, by name.

        Raises:
            SettingError: a size is below 2 or odd.
        """
        check_at_least(2, **sizes)
        for name, size in sizes.items():
            if size % 2:
                raise SettingError(name, f"be even for {self.name} positions", size, f"Use {size + 1}")

    def check_heads(self, q: Tensor) -> None:
        """Refuse queries of other heads than the scheme was built for.

        Raises:
            ShapeError: names both numbers.
        """
        if q.shape[1] != self.num_heads:
            rule = f"have the {self.num_heads} heads that {self.name!r} positions were built for"
            raise ShapeError("q", rule, q.shape[1], "Set num_heads to the heads of the model, or use local_heads")

    def check(self, length: int, positions: Tensor | None) -> None:
        """Refuse positions this scheme cannot encode.

        Raises:
            ShapeError: with the largest position allowed and what to do.
        """
        if positions is not None:
            check_positions(positions, self.max_position)
        elif self.max_position is not None and length - 1 > self.max_position:
            next_step = "Shorten the sequence, or lengthen the table with its `resized`"
            rule = f"be at most {self.max_position + 1} for {self.name!r} positions"
            raise ShapeError("length", rule, length, next_step)
