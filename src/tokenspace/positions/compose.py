"""Several schemes at once, each in all layers or in some.

A composition is a scheme like any other. It refuses members that contradict each other:
two ways to scale the logits, or two that change the queries and keys of one layer.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self, final

from torch import Tensor, nn

from tokenspace.errors import SettingError
from tokenspace.positions._layout import Layout
from tokenspace.positions._scheme import ModelShape, Scheme


@final
class Compose(Scheme):
    """The sum of its members: each enters where it would alone.

    Args:
        members: Schemes; or tables with a ``name`` or a ``scheme``, the scheme's settings, and
            ``layers``: the indices of the layers it enters, from 0. Without ``layers`` it enters all.

    Raises:
        SettingError: there is no member, members contradict each other, or one that enters the
            token vectors has `layers`.

    Example:
        >>> rotary = {"name": "rotary", "head_dim": 8, "layers": [0, 1, 2]}  # none in the fourth
        >>> Compose([rotary, {"name": "learned", "num_positions": 32, "d_model": 16}]).max_position
        31
    """

    name = "compose"

    def __init__(self, members: Sequence[Scheme | Mapping[str, Any]]) -> None:
        super().__init__()
        built = [_member(member, None) for member in members]
        if not built:
            raise SettingError("members", "hold at least one scheme", list(members), "Use 'none' for no positions")
        self.members = nn.ModuleList(scheme for scheme, _ in built)
        self.layers = [layers for _, layers in built]
        self._check_members()
        self.logit_scale = built[0][0].logit_scale
        self._declare()

    @classmethod
    def for_model(cls, shape: ModelShape, members: Sequence[Scheme | Mapping[str, Any]] = ()) -> Self:
        """Members for a model of this shape; their own settings override what it implies."""
        built = [_member(member, shape) for member in members]
        return cls([{"scheme": scheme, **({} if layers is None else {"layers": layers})} for scheme, layers in built])

    @property
    def max_position(self) -> int | None:
        """The least of the members' limits."""
        limits = [member.max_position for member in self.members if member.max_position is not None]
        return min(limits, default=None)

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
        for member, layers in zip(self.members, self.layers, strict=True):
            if member.logit_scale != self.members[0].logit_scale:
                rule = f"scale the logits like {self.members[0].name!r}"
                raise SettingError("members", rule, member.name, "Compose schemes of one scale")
            if layers is not None and member.enters_input:
                rule = "have no layers where it enters the token vectors"
                raise SettingError(f"member {member.name!r}", rule, layers, "Remove layers")
        turning = [(m, lay) for m, lay in zip(self.members, self.layers, strict=True) if _overrides(m, "rotate")]
        for number, (member, layers) in enumerate(turning):
            for other, others in turning[:number]:
                if layers is None or others is None or set(layers) & set(others):
                    rule = f"change no queries and keys that {other.name!r} changes"
                    raise SettingError(f"member {member.name!r}", rule, "in the same layer", "Give them other layers")

    def _declare(self) -> None:
        """What a model must know of the members, taken together."""
        members = list(self.members)
        for fact in ("needs_probs", "needs_raw_keys", "length_dependent", "enters_input"):
            setattr(self, fact, any(getattr(member, fact) for member in members))
        rotates, scores = (any(_overrides(member, place) for member in members) for place in ("rotate", "score"))
        self.needs_raw_keys |= rotates and scores  # what one member rotates, another reads unrotated

    def extra_repr(self) -> str:
        """Layers of each member, for ``print(model)``."""
        return f"layers={self.layers}"


def _member(member: Scheme | Mapping[str, Any], shape: ModelShape | None) -> tuple[Scheme, list[int] | None]:
    """A member's scheme and its layers."""
    from tokenspace.positions import for_model, get  # the registry finds this file

    if isinstance(member, Scheme):
        return member, None
    settings = dict(member)
    layers = settings.pop("layers", None)
    if isinstance(settings.get("scheme"), Scheme):
        return settings["scheme"], layers
    name = settings.pop("name", None)
    return (get(name, **settings) if shape is None else for_model(name, shape, **settings)), layers


def _overrides(member: Scheme, place: str) -> bool:
    return getattr(type(member), place) is not getattr(Scheme, place)


def _sum(parts: Any) -> Tensor | None:
    total = None
    for part in parts:
        if part is not None:
            total = part if total is None else total + part
    return total
