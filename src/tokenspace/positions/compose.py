"""Several schemes at once, each in all layers or in some.

A composition is a scheme like any other; one within another is taken apart into its members.
It refuses members that contradict each other: scores for logits of another scale in one
layer, or two that change the queries and keys of one layer.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self, final

from torch import Tensor, nn

from tokenspace.errors import SettingError, check_at_least
from tokenspace.positions._layout import Layout
from tokenspace.positions._scheme import ModelShape, Scheme


@final
class Compose(Scheme):
    """The sum of its members: each enters where it would alone.

    Args:
        members: Schemes; names of such that need no settings; or tables with a ``name`` and its settings, or a
            ``scheme``, and with ``layers``: the indices of those it enters, from 0. Without ``layers`` it enters all.

    Raises:
        SettingError: there is no member, one is no scheme, members contradict each other, or one that
            enters the token vectors has `layers`.

    Example:
        >>> rotary = {"name": "rotary", "head_dim": 8, "layers": [0, 1, 2]}  # none in the fourth
        >>> Compose([rotary, {"name": "learned", "num_positions": 32, "d_model": 16}]).max_position
        31
    """

    name = "compose"

    def __init__(self, members: Sequence[Scheme | str | Mapping[str, Any]]) -> None:
        super().__init__()
        parts = [part for member in _sequence(members) for part in _parts(member, None)]
        if not parts:
            raise SettingError("members", "hold at least one scheme", list(members), "Use 'none' for no positions")
        self.members = nn.ModuleList(scheme for scheme, _ in parts)
        self.layers = [layers for _, layers in parts]
        self._check_members()
        self._declare()

    @classmethod
    def for_model(cls, shape: ModelShape, members: Sequence[Scheme | str | Mapping[str, Any]] = ()) -> Self:
        """Members for a model of this shape; their own settings override what it implies."""
        parts = [part for member in _sequence(members) for part in _parts(member, shape)]
        return cls([{"scheme": scheme, **({} if layers is None else {"layers": layers})} for scheme, layers in parts])

    @property
    def places(self) -> frozenset[str]:
        """Wherever a member enters."""
        return frozenset().union(*(member.places for member in self.members))

    @property
    def max_position(self) -> int | None:
        """The least of the members' limits."""
        limits = [member.max_position for member in self.members if member.max_position is not None]
        return min(limits, default=None)

    def scale_of(self, layer: int) -> float | None:
        """That of the members whose score this layer adds."""
        scoring = [m for m, _ in self._entering([None] * len(self.members), layer) if "score" in m.places]
        return scoring[0].logit_scale if scoring else None

    def reset_tables(self, std: float) -> None:
        """Draw anew what members add to the token vectors; see `Scheme.reset_tables`."""
        for member in self.members:
            member.reset_tables(std)

    def prepare(self, layout: Layout) -> list[Any]:
        """The state of each member."""
        return [member.prepare(layout) for member in self.members]

    def embed(self, x_BTD: Tensor, positions: Tensor | None = None) -> Tensor:
        """Every member in turn; see `Scheme.embed`."""
        for member in self.members:
            x_BTD = member.embed(x_BTD, positions)
        return x_BTD

    def rotate(self, q: Tensor, k: Tensor, layout: Layout, state: list[Any], layer: int = 0) -> tuple[Tensor, Tensor]:
        """The one member that does so in this layer; see `Scheme.rotate`."""
        for member, own in self._entering(state, layer):
            q, k = member.rotate(q, k, layout, own, layer)
        return q, k

    def score(self, q: Tensor, k: Tensor, layout: Layout, state: list[Any], layer: int = 0) -> Tensor | None:
        """The sum of the members' scores; see `Scheme.score`."""
        return _sum(member.score(q, k, layout, own, layer) for member, own in self._entering(state, layer))

    def value(self, probs: Tensor, layout: Layout, state: list[Any], layer: int = 0) -> Tensor | None:
        """The sum of what members add; see `Scheme.value`."""
        return _sum(
            member.value(probs, layout, own, layer)
            for member, own in self._entering(state, layer)
            if member.needs_probs
        )

    def local_heads(self, offset: int, count: int) -> Self:
        """The composition of its members' local schemes; see `Scheme.local_heads`."""
        local = super().local_heads(offset, count)
        local.members = nn.ModuleList(member.local_heads(offset, count) for member in self.members)
        return local

    def _entering(self, state: list[Any], layer: int) -> list[tuple[Scheme, Any]]:
        members = zip(self.members, self.layers, state, strict=True)
        return [(member, own) for member, layers, own in members if layers is None or layer in layers]

    def _check_members(self) -> None:
        for number, (member, layers) in enumerate(zip(self.members, self.layers, strict=True)):
            if layers is not None and member.enters_input:
                rule = "have no layers where it enters the token vectors"
                raise SettingError(f"member {member.name!r}", rule, layers, "Remove layers")
            for other, others in zip(self.members[:number], self.layers[:number], strict=True):
                meet = layers is None or others is None or bool(set(layers) & set(others))
                if meet and "rotate" in member.places & other.places:
                    rule = f"change no queries and keys that {other.name!r} changes"
                    raise SettingError(f"member {member.name!r}", rule, "in the same layer", "Give them other layers")
                if meet and "score" in member.places & other.places and member.logit_scale != other.logit_scale:
                    rule = f"have a score for logits of the scale of {other.name!r}"
                    raise SettingError(f"member {member.name!r}", rule, "of another scale", "Give them other layers")

    def _declare(self) -> None:
        """What a model must know of the members, taken together."""
        members = list(self.members)
        for fact in ("needs_probs", "needs_raw_keys", "length_dependent", "enters_input"):
            setattr(self, fact, any(getattr(member, fact) for member in members))
        rotates = any("rotate" in member.places for member in members)
        reads_keys = any("score" in member.places and not member.shares_score for member in members)
        self.needs_raw_keys |= rotates and reads_keys  # what one member rotates, another reads unrotated

    def extra_repr(self) -> str:
        """Layers of each member, for ``print(model)``."""
        return f"layers={self.layers}"


def _sequence(members: Any) -> Sequence[Any]:
    if not isinstance(members, Sequence) or isinstance(members, str):
        raise SettingError("members", "be a list of schemes", members, "Write [{name = …}, …]")
    return members


def _parts(member: Any, shape: ModelShape | None) -> list[tuple[Scheme, list[int] | None]]:
    """A member as schemes that are no compositions, and the layers of each."""
    if not isinstance(member, Scheme | str | Mapping):
        raise SettingError("member", "be a scheme, a name or a table", member, "Write {name = …, layers = […]}")
    settings = {"scheme": member} if isinstance(member, Scheme) else {"name": member}
    settings = dict(member) if isinstance(member, Mapping) else settings
    layers = _checked(settings.pop("layers", None), shape)
    scheme = _built(settings, shape)
    if not isinstance(scheme, Compose):
        return [(scheme, layers)]
    inner = zip(scheme.members, scheme.layers, strict=True)
    return [(one, _both(layers, its_layers)) for one, its_layers in inner]


def _built(settings: dict[str, Any], shape: ModelShape | None) -> Scheme:
    from tokenspace.positions import for_model, get  # the registry finds this file

    scheme = settings.pop("scheme", None)
    if scheme is None:
        name = settings.pop("name", None)
        return get(name, **settings) if shape is None else for_model(name, shape, **settings)
    if not isinstance(scheme, Scheme):
        raise SettingError("scheme", "be a Scheme", scheme, "Give its name as name = …")
    if settings:
        raise SettingError("member with a scheme", "have no other settings", sorted(settings)[0], "Remove it")
    return scheme


def _checked(layers: Any, shape: ModelShape | None) -> list[int] | None:
    if layers is None:
        return None
    if not isinstance(layers, Sequence) or isinstance(layers, str) or not layers or len(set(layers)) < len(layers):
        raise SettingError("layers", "be a list of different layers", layers, "Write layers = [0, 1]")
    for layer in layers:
        check_at_least(0, layers=layer)
        if shape is not None and layer >= shape.num_layers:
            rule = f"be below the model's {shape.num_layers}, counted from 0"
            raise SettingError("layers", rule, layer, "Leave it out, or give the model more layers")
    return list(layers)


def _both(some: list[int] | None, others: list[int] | None) -> list[int] | None:
    if some is None or others is None:
        return some if others is None else others
    return [layer for layer in some if layer in others]


def _sum(parts: Any) -> Tensor | None:
    total = None
    for part in parts:
        if part is not None:
            total = part if total is None else total + part
    return total
