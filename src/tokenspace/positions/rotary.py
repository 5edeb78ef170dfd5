"""Rotary positions: queries and keys turn by angles that grow with their position.

The product of a query and a key then depends on how far apart they stand. Pairs of
components turn at speeds from 1 down to 1 / theta radians a token; scalings for longer texts
change the speeds (`_rotary_scaling`).

Source: Su et al. 2021, "RoFormer" (arXiv:2104.09864), section 3. Two orders are in use:
``halves`` (GPT-NeoX, Llama) pairs component i with i + K/2, ``interleaved`` (RoFormer, GPT-J)
pairs 2i with 2i + 1. Weights made for one order are wrong in the other.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self, final

import torch
from torch import Tensor

from tokenspace.errors import SettingError, check_above_0
from tokenspace.positions._layout import Layout
from tokenspace.positions._rotary_scaling import Scaling
from tokenspace.positions._scheme import ModelShape, Scheme
from tokenspace.positions._turn import Angles, Order, check_shape, for_heads, turn


class _State(NamedTuple):
    """Angles of the queries and of the keys that `Rotary.rotate` gets."""

    queries: Angles
    keys: Angles


@final
class Rotary(Scheme):
    """Turns pair i of a query or key at position p by ``p / theta^(2i/rotary_dim)`` radians.

    Args:
        head_dim: Length K of a query.
        theta: The slowest pair turns once in about ``2 * pi * theta`` tokens.
        rotary_dim: Components that turn, the first ones; None for all.
        order: "halves" or "interleaved".
        scaling: What transformers calls ``rope_scaling`` or ``rope_parameters``: a table with ``rope_type``
            ("linear", "dynamic", "yarn", "longrope", "llama3", "proportional") and that type's numbers.
            ``rope_theta`` and ``partial_rotary_factor`` in it stand for `theta` and `rotary_dim`.

    Raises:
        SettingError: `head_dim` or `rotary_dim` is odd or out of range, the scaling lacks a number, or
            it contradicts `theta` or `rotary_dim`.

    Example:
        >>> rotary = Rotary(head_dim=64, theta=10000.0)
        >>> layout = Layout.contiguous(5)
        >>> q, k = rotary.rotate(torch.ones(1, 2, 5, 64), torch.ones(1, 2, 5, 64), layout, rotary.prepare(layout))
        >>> q.shape
        torch.Size([1, 2, 5, 64])
    """

    name = "rotary"

    def __init__(
        self,
        head_dim: int,
        theta: float = 10000.0,
        rotary_dim: int | None = None,
        order: Order = "halves",
        scaling: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(scaling, Mapping | None):
            raise SettingError("scaling", "be a table with rope_type", scaling, "Take it from the model's config")
        scaling = dict(scaling or {"rope_type": "default"})
        scaling.setdefault("rope_type", scaling.pop("type", None))  # its older name
        theta = _agreed("theta", theta, scaling.pop("rope_theta", None), 10000.0)
        if scaling["rope_type"] != "proportional" and "partial_rotary_factor" in scaling:
            rotary_dim = _agreed("rotary_dim", rotary_dim, int(head_dim * scaling.pop("partial_rotary_factor")), None)
        rotary_dim = head_dim if rotary_dim is None else rotary_dim
        self.check_even(head_dim=head_dim)
        self.check_even(rotary_dim=rotary_dim)
        if rotary_dim > head_dim:
            raise SettingError("rotary_dim", f"be at most head_dim = {head_dim}", rotary_dim, "Lower it")
        check_above_0("Use 10000.0, as the paper does", theta=theta)
        if order not in ("halves", "interleaved"):
            raise SettingError("order", "be 'halves' or 'interleaved'", order, "Use 'halves', as Llama does")
        self.head_dim, self.rotary_dim, self.theta, self.order = head_dim, rotary_dim, float(theta), order
        self.scaling = Scaling.of(scaling, rotary_dim)
        self.length_dependent = self.needs_raw_keys = self.scaling.length_dependent

    @classmethod
    def for_model(cls, shape: ModelShape, **settings: Any) -> Self:
        """Angles for the model's heads; a scaling without an original length gets the model's context."""
        scaling = settings.get("scaling")
        if scaling:
            settings["scaling"] = {"original_max_position_embeddings": shape.context_length, **scaling}
        if "head_dim" not in settings:
            cls.check_pairs(shape)
        return cls(**{"head_dim": shape.head_dim, **settings})

    def prepare(self, layout: Layout) -> _State:
        """Cosines and sines of every position and pair."""
        lengths = _lengths(layout) if self.length_dependent else None
        if layout.key_length - layout.rotated == layout.query_length and not isinstance(lengths, Tensor):
            new = self._angles(layout.query_positions, lengths)
            return _State(new, new)
        keys = self._angles(layout.key_positions, lengths)
        first_query = layout.key_length - layout.query_length
        return _State(_from(keys, first_query), _from(keys, layout.rotated))

    def rotate(self, q: Tensor, k: Tensor, layout: Layout, state: _State, layer: int = 0) -> tuple[Tensor, Tensor]:
        """See `Scheme.rotate`."""
        check_shape("q", q, state.queries.cos.shape[-2], self.head_dim)
        check_shape("k", k, state.keys.cos.shape[-2], self.head_dim)
        return turn(q, state.queries, self.order), turn(k, state.keys, self.order)

    def _angles(self, positions: Tensor, lengths: int | Tensor | None) -> Angles:
        speeds = self.scaling.speeds(self.theta, lengths, positions.device)
        angles = for_heads(positions.unsqueeze(-1).float() * speeds)
        factor = self.scaling.attention_factor
        return Angles(angles.cos() * factor, angles.sin() * factor)

    def extra_repr(self) -> str:
        """Settings, for ``print(model)``."""
        sizes = f"head_dim={self.head_dim}, theta={self.theta}, rotary_dim={self.rotary_dim}"
        return f"{sizes}, order={self.order!r}, scaling={self.scaling.kind!r}"


def _agreed(setting: str, given: Any, in_table: Any, default: Any) -> Any:
    """The setting, which may stand beside the scaling or in its table, but not with two values."""
    if in_table is None:
        return given
    if given not in (default, in_table):
        raise SettingError(setting, f"be {in_table}, as its scaling says", given, "Give it once")
    return in_table


def _from(angles: Angles, first: int) -> Angles:
    return Angles(angles.cos[..., first:, :], angles.sin[..., first:, :])


def _lengths(layout: Layout) -> int | Tensor:
    """How long each key's document is, its last position + 1: one number, or one a key, (S,) or (B, S).

    By row and document, never by the longest row of a batch: neighbours must not change a text.
    """
    positions, documents = layout.key_positions, layout.key_documents
    if documents is None and positions.dim() == 1:
        return layout.max_position + 1
    if documents is None:
        return (positions.amax(dim=-1, keepdim=True) + 1).expand(positions.shape)
    _, numbers = torch.unique(documents, return_inverse=True)
    longest = positions.new_zeros(*positions.shape[:-1], int(numbers.max()) + 1)
    return longest.scatter_reduce(-1, numbers, positions, "amax").gather(-1, numbers) + 1
