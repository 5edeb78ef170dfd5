"""Scheme: the contract between a way of encoding order and the model that uses it.

Position can enter a model at four places: the input embedding, the queries and keys,
the attention logits, and the attended values. A scheme overrides the places it uses;
the base class does nothing at all of them, and that *is* "no positions". A model
calls every place and never asks for a scheme's name; whatever else it must know, a
scheme declares as an attribute.

Axis letters: B batch, T query length, S key length, D d_model, H heads, K head_dim.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from tokenspace.errors import ShapeError
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
        logit_scale: Factor on ``q @ k``; None for the usual ``head_dim ** -0.5``.
        needs_probs: `value` needs the attention probabilities, so no fused attention.
        needs_raw_keys: A cache must hold unrotated keys.
        length_dependent: The encoding of a position depends on the length of the sequence.
        max_position: The largest position it can encode; None for no limit.
    """

    name: ClassVar[str]
    logit_scale: float | None = None
    needs_probs: bool = False
    needs_raw_keys: bool = False
    length_dependent: bool = False
    max_position: int | None = None

    @classmethod
    def for_model(cls, shape: ModelShape, **settings: Any) -> Self:
        """The scheme for a model of this shape; `settings` are those of its constructor."""
        return cls(**settings)

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

    def rotate(self, x_BHTK: Tensor, positions: Tensor, state: Any, layer: int) -> Tensor:
        """Let positions enter new queries or new keys; cached keys are never rotated again."""
        return x_BHTK

    def score(self, q: Tensor, k: Tensor, layout: Layout, state: Any, layer: int) -> Tensor | None:
        """What to add to the scaled logits, (B or 1, H, T, S), from unrotated q and k; None for nothing."""
        return None

    def value(self, probs: Tensor, layout: Layout, state: Any, layer: int) -> Tensor | None:
        """What to add to the attended values, (B, H, T, K); asked only where `needs_probs`."""
        return None

    def check(self, length: int, positions: Tensor | None) -> None:
        """Refuse positions this scheme cannot encode.

        Raises:
            ShapeError: with the largest position allowed and what to do.
        """
        if positions is not None:
            check_positions(positions, self.max_position)
        elif self.max_position is not None and length - 1 > self.max_position:
            next_step = "Shorten the sequence, or give the scheme a longer table"
            rule = f"be at most {self.max_position + 1} for {self.name!r} positions"
            raise ShapeError("length", rule, length, next_step)
