"""The table of position schemes that the shared suite runs, and one attention step to run them in."""

from dataclasses import dataclass, field
from typing import Any

import torch

from tokenspace import positions
from tokenspace.model import Prepared, attend
from tokenspace.positions import Layout, Scheme

D, H, K, LAYERS, LIMIT = 16, 4, 4, 2, 32  # sizes of the suite; positions of a learned table
ORIGINAL = 12  # length that length-dependent scalings were "trained" on


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row: a scheme with settings.

    Attributes:
        name: Of the scheme.
        settings: It is built from these.
        other: Other settings, which must give another encoding; None where it has none.
        relative: Whether moving a whole text changes nothing.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    other: dict[str, Any] | None = None
    relative: bool = True


def rotary(**scaling):
    return Case(name="rotary", settings={"head_dim": K, "scaling": scaling}, other={"head_dim": K})


HEADS = {"num_heads": H}
MODEL = {"d_model": D, "num_heads": H, "head_dim": K, "num_layers": LAYERS}
VECTORS = {"head_dim": K, "max_distance": 5, "num_layers": LAYERS}
LENGTH = {"original_max_position_embeddings": ORIGINAL}

CASES = {
    "none": Case(name="none"),
    "learned": Case(
        name="learned",
        settings={"num_positions": LIMIT, "d_model": D, "std": 1.0},
        other={"num_positions": LIMIT, "d_model": D, "std": 5.0},
        relative=False,
    ),
    "sinusoidal": Case(name="sinusoidal", settings={"d_model": D}, other={"d_model": D, "theta": 9.0}, relative=False),
    "rotary": Case(name="rotary", settings={"head_dim": K}, other={"head_dim": K, "theta": 100.0}),
    "rotary, interleaved and partial": Case(
        name="rotary",
        settings={"head_dim": K, "order": "interleaved", "rotary_dim": 2},
        other={"head_dim": K, "order": "interleaved"},
    ),
    "rotary, linear": rotary(rope_type="linear", factor=4.0),
    "rotary, yarn": rotary(rope_type="yarn", factor=4.0, beta_fast=2.0, **LENGTH),
    "rotary, llama3": rotary(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, **LENGTH),
    "rotary, proportional": rotary(rope_type="proportional", partial_rotary_factor=0.5),
    "rotary, dynamic": Case(
        name="rotary",
        settings={"head_dim": K, "scaling": {"rope_type": "dynamic", "factor": 2.0, **LENGTH}},
        other={"head_dim": K, "theta": 9.0},
        relative=False,
    ),
    "rotary, longrope": Case(
        name="rotary",
        settings={
            "head_dim": K,
            "scaling": {
                "rope_type": "longrope",
                "short_factor": [1.0, 1.5],
                "long_factor": [2.0, 7.0],
                "factor": 4.0,
                **LENGTH,
            },
        },
        other={"head_dim": K},
        relative=False,
    ),
    "xpos": Case(name="xpos", settings={"head_dim": K, "scale_base": 16.0}, other={"head_dim": K, "scale_base": 4.0}),
    "pope": Case(name="pope", settings={**HEADS, "head_dim": K}, other={**HEADS, "head_dim": K, "theta": 3.0}),
    "alibi": Case(name="alibi", settings=HEADS, other={**HEADS, "max_bias": 2.0}),
    "t5": Case(
        name="t5",
        settings={**HEADS, "num_buckets": 8, "max_distance": 16},
        other={**HEADS, "num_buckets": 8, "max_distance": 5},
    ),
    "t5, bidirectional": Case(
        name="t5", settings={**HEADS, "num_buckets": 8, "max_distance": 16, "bidirectional": True}
    ),
    "kerple": Case(name="kerple", settings=HEADS),
    "kerple, power": Case(name="kerple", settings={**HEADS, "kernel": "power"}, other=HEADS),
    "fire": Case(name="fire", settings={**HEADS, "threshold": 6.0}, other={**HEADS, "threshold": 1.0}, relative=False),
    "cope": Case(
        name="cope",
        settings={"head_dim": K, "num_positions": 6, "num_layers": LAYERS},
        other={"head_dim": K, "num_positions": 3, "num_layers": LAYERS},
    ),
    "shaw": Case(name="shaw", settings=VECTORS),
    "shaw, keys": Case(name="shaw", settings={**VECTORS, "values": False, "key_term": True, "max_ahead": 1}),
    "nezha": Case(name="nezha", settings={"head_dim": K, "max_distance": 5}, other={"head_dim": K, "max_distance": 2}),
    "transformer_xl": Case(name="transformer_xl", settings=MODEL),
    "transformer_xl, shared": Case(
        name="transformer_xl", settings={**MODEL, "share_matrix": True, "share_biases": True, "causal": False}
    ),
    "deberta": Case(
        name="deberta",
        settings={**MODEL, "position_buckets": 8, "max_distance": 20},
        other={**MODEL, "position_buckets": 8, "max_distance": 7},
    ),
    "deberta, plain": Case(
        name="deberta", settings={**MODEL, "position_buckets": 0, "max_distance": 6, "norm": True, "terms": ["p2c"]}
    ),
    "compose": Case(
        name="compose",
        settings={"members": [{"name": "rotary", "head_dim": K, "layers": [0]}, {"name": "alibi", **HEADS}]},
        other={"members": [{"name": "rotary", "head_dim": K, "layers": [1]}, {"name": "alibi", **HEADS}]},
    ),
}


def build(case: str, settings: dict[str, Any] | None = None, wide: bool = True) -> Scheme:
    """The scheme of a row; `wide` draws its parameters so large that every one of them matters."""
    torch.manual_seed(7)
    scheme = positions.get(CASES[case].name, **(CASES[case].settings if settings is None else settings))
    if wide and CASES[case].name != "learned":
        for parameter in scheme.parameters():
            torch.nn.init.uniform_(parameter, 0.2, 1.2) if parameter.dim() < 2 else torch.nn.init.normal_(parameter)
    return scheme.requires_grad_(False)


def limit(scheme: Scheme, positions_if_none: int) -> int:
    """The largest position to try."""
    return positions_if_none if scheme.max_position is None else scheme.max_position


def vectors(batch: int = 2, length: int = 6, dtype: torch.dtype = torch.float32, seed: int = 3) -> torch.Tensor:
    """Token vectors, (B, T, D)."""
    return torch.randn(batch, length, D, generator=torch.Generator().manual_seed(seed)).to(dtype)


# To queries, keys and values; fewer key heads use the first columns.
_MATRICES = 0.4 * torch.randn(3, D, H * K, generator=torch.Generator().manual_seed(1))


def attention(
    scheme: Scheme,
    x: torch.Tensor,
    layout: Layout | None = None,
    queries: int | None = None,
    layer: int = 0,
) -> torch.Tensor:
    """One causal attention over token vectors, with the scheme in all its places: (B, H, T, K).

    The last `queries` vectors ask; all are keys, as with memory or a cache of unrotated keys.
    """
    layout = layout or Layout.contiguous(x.shape[1])
    x = scheme.embed(x.clone(), layout.key_positions)
    q, k, v = ((x @ matrix.to(x.dtype)).unflatten(-1, (H, K)).transpose(1, 2) for matrix in _MATRICES)
    return attended(scheme, q if queries is None else q[:, :, -queries:], k, v, layout, layer)


def attended(
    scheme: Scheme,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    layout: Layout | None = None,
    layer: int = 0,
) -> torch.Tensor:
    """Causal attention of queries, keys and values that are no longer (B, T, D)."""
    prepared = Prepared.of(scheme, layout or Layout.contiguous(q.shape[2]), causal=True)
    turned = scheme.rotate(q, k, prepared.layout, prepared.state, layer)
    return attend(*turned, v, prepared, layer, raw=(q, k))


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal but for the order of float32 sums."""
    torch.testing.assert_close(actual, expected, rtol=2e-5, atol=2e-5)
