"""Draws the pictures of this folder: what the token at position i sees of the token at position j.

Run ``python docs/positions/pictures.py`` (needs matplotlib); it draws ``pictures/NAME.svg`` for every
scheme, the same file each time with the same versions of torch and matplotlib. The numbers come from
the schemes themselves; what they learn is drawn at random with a fixed seed, or set as the label says.

Axis letters: B batch, H heads, T query length, S key length, K head_dim.
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor

from tokenspace import positions
from tokenspace.model import Prepared, attend
from tokenspace.positions import Layout, Scheme

FOLDER = Path(__file__).parent / "pictures"
GREY = {"color": "#888888", "linewidth": 1, "linestyle": "-"}  # for what a line is compared with
RELATIVE, KEY, QUERY = "relative position j − i", "key position j", "query position i"
ADDED, PRODUCT = "added to the logit", "q · k, at its largest 1"


def sheet(panels: int = 1, widths: tuple[float, ...] | None = None) -> list[Axes]:
    """The panels of a new picture, side by side."""
    return list(plt.subplots(1, panels, width_ratios=widths, squeeze=False)[1][0])


def label(axes: Axes, x: str, y: str, legend: str | None = None, **place: object) -> None:
    """Axis labels; the legend stands beside the panel, where it covers nothing, unless it has another place."""
    axes.set(xlabel=x, ylabel=y)
    if legend is not None:
        beside = {"loc": "upper left", "bbox_to_anchor": (1, 1.05)}
        axes.legend(title=legend, alignment="left", **(place or beside))


def heat(axes: Axes, numbers_TS: Tensor, first_key: int = 0, bar: str = ADDED) -> None:
    """Numbers of either sign for each pair of positions; the palest is 0, white is what is not seen."""
    T, S = numbers_TS.shape
    largest = float(numbers_TS.nan_to_num().abs().max())
    edges = (first_key - 0.5, first_key + S - 0.5, T - 0.5, -0.5)
    image = axes.imshow(numbers_TS, cmap="PuOr", vmin=-largest, vmax=largest, extent=edges)
    axes.grid(visible=False)
    label(axes, KEY, QUERY)
    axes.figure.colorbar(image, ax=axes, label=bar, shrink=0.9)


def products(scheme: Scheme, length: int, layer: int = 0) -> tuple[Tensor, Tensor]:
    """Relative positions, and what the last query has in common with each key if all vectors were alike before."""
    ones = torch.ones(1, 1, length, 64)
    layout = Layout.contiguous(length)
    q, k = scheme.rotate(ones, ones, layout, scheme.prepare(layout), layer)
    product_S = (q[..., -1:, :] @ k.transpose(-2, -1)).flatten()
    return torch.arange(1 - length, 1), product_S / product_S.abs().max()


def added(scheme: Scheme, length: int) -> tuple[Tensor, Tensor]:
    """Relative positions, and what the last query's logits get in each head: (S,) and (H, S)."""
    layout = Layout.contiguous(length)
    return torch.arange(1 - length, 1), scheme.prepare(layout)[0, :, -1]


def score(scheme: Scheme, q: Tensor, k: Tensor, layout: Layout) -> Tensor:
    """What the first head's logits get, (T, S)."""
    return scheme.score(q, k, layout, scheme.prepare(layout))[0, 0]


def drawn(name: str, **settings: object) -> Scheme:
    """A scheme with all that it learns drawn from N(0, 1)."""
    scheme = positions.get(name, **settings)
    for parameter in scheme.parameters():
        torch.nn.init.normal_(parameter)
    return scheme


def none() -> None:
    """Equal logits: only the causal mask tells where a query stands."""
    (axes,) = sheet()
    length = 48
    x = torch.zeros(1, 1, length, length)
    prepared = Prepared.of(positions.get("none"), Layout.contiguous(length))
    share_TS = attend(x, x, torch.eye(length)[None, None], prepared)[0, 0]
    for i in (7, 15, 47):
        axes.plot(range(i + 1), share_TS[i, : i + 1], label=f"i = {i}", drawstyle="steps-mid")
    axes.set_ylim(0)
    label(axes, KEY, "share of attention", "query")


def learned() -> None:
    """Rows of a table that nothing has trained."""
    table = positions.get("learned", num_positions=64, d_model=64).weight
    cosines(torch.nn.functional.normalize(table, dim=-1))


def sinusoidal() -> None:
    """Waves of all lengths."""
    cosines(positions.get("sinusoidal", d_model=64).waves(torch.arange(64)) / 32**0.5)


def cosines(vectors: Tensor) -> None:
    """Products of the vectors of all positions: as a map, and along one row of it."""
    left, right = sheet(2, (1.15, 1))
    product_TS, middle = vectors @ vectors.T, len(vectors) // 2
    heat(left, product_TS, bar="cosine")
    label(left, "position j", "position i")
    right.plot(range(-middle, len(vectors) - middle), product_TS[middle])
    label(right, RELATIVE, f"cosine, along i = {middle}")


def rotary() -> None:
    """Vectors that are all alike, turned at different speeds."""
    panels = sheet(2)
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    kinds = (
        {"theta 10,000": {}, "theta 500,000": {"theta": 500000.0}},
        {"linear, factor 4": {"scaling": {"rope_type": "linear", "factor": 4.0}}, "yarn, factor 4": {"scaling": yarn}},
    )
    for axes, lines in zip(panels, kinds, strict=True):
        for name, settings in lines.items():
            axes.plot(*products(positions.get("rotary", head_dim=64, **settings), 129), label=name)
        axes.set_ylim(0.2, 1.03)
        label(axes, RELATIVE, PRODUCT, "", loc="lower left", bbox_to_anchor=(0, 1))


def xpos() -> None:
    """The same as for rotary, with fading."""
    (axes,) = sheet()
    axes.plot(*products(positions.get("rotary", head_dim=64), 513), label="rotary", **GREY)
    for base in (512, 64):
        axes.plot(*products(positions.get("xpos", head_dim=64, scale_base=base), 513), label=f"xpos, scale_base {base}")
    label(axes, RELATIVE, PRODUCT, "head_dim 64")


def pope() -> None:
    """The learned angles choose the relative position that matches best."""
    (axes,) = sheet()
    axes.plot(*products(positions.get("rotary", head_dim=64), 129), label="rotary", **GREY)
    for best in (0, 40):
        scheme = positions.get("pope", num_heads=1, head_dim=64)
        speeds = scheme.theta ** (-torch.arange(64) / 64)
        scheme.bias.copy_(((best * speeds) % (2 * torch.pi) - 2 * torch.pi)[None])
        axes.plot(*products(scheme, 129), label=f"pope, angles\nfor distance {best}")
    label(axes, RELATIVE, PRODUCT, "head_dim 64")


def alibi() -> None:
    """Straight lines of different slopes."""
    (axes,) = sheet()
    scheme = positions.get("alibi", num_heads=8)
    relative, score_HS = added(scheme, 65)
    for head in (0, 1, 3, 7):
        axes.plot(relative, score_HS[head], label=f"{head}: slope 1/{1 / scheme.slopes[head]:.0f}")
    label(axes, RELATIVE, ADDED, "head, of 8")


def t5() -> None:
    """Steps: far positions share a number."""
    (axes,) = sheet()
    relative, score_HS = added(drawn("t5", num_heads=2), 161)
    for head, score_S in enumerate(score_HS):
        axes.plot(relative, score_S, label=f"head {head}", drawstyle="steps-mid")
    axes.axvline(-128, label="max_distance", **GREY)
    label(axes, RELATIVE, ADDED, "random table")


def kerple() -> None:
    """Both kernels, at strengths that training might choose."""
    (axes,) = sheet()
    for kernel, r1, r2 in (("log", 1.0, 0.1), ("log", 1.0, 1.0), ("log", 2.0, 1.0), ("power", 0.2, 0.75)):
        scheme = positions.get("kerple", num_heads=1, kernel=kernel)
        scheme.r1.fill_(r1)
        scheme.r2.fill_(r2)
        relative, score_HS = added(scheme, 129)
        axes.plot(relative, score_HS[0], label=f"{kernel}, {r1:g}, {r2:g}")
    label(axes, RELATIVE, ADDED, "kernel, r1, r2")


def fire() -> None:
    """One network, read over another width by every query beyond the threshold."""
    (axes,) = sheet()
    scheme = positions.get("fire", num_heads=1, threshold=128.0)
    for i in (64, 128, 256, 512):
        relative, score_HS = added(scheme, i + 1)
        axes.plot(relative, score_HS[0], label=f"i = {i}", linewidth=4 if i == 64 else None)
    label(axes, RELATIVE, ADDED, "query, threshold 128\n(random network)")


def cope() -> None:
    """Positions of keys, as three queries count them."""
    (axes,) = sheet()
    length, head_dim = 48, 8
    layout = Layout.contiguous(length)
    scheme = positions.get("cope", head_dim=head_dim, num_positions=length + 1)
    scheme.table[0, :, 0] = torch.arange(length + 1.0)  # a query whose first component is 1 then scores p_ij itself
    k = torch.randn(1, 1, length, head_dim)
    k[..., 0] = 0.0
    for name in "abc":
        q = 8 * torch.randn(1, 1, length, head_dim)
        q[..., 0] = 1.0
        axes.plot(range(length), score(scheme, q, k, layout)[-1], label=f"query {name}")
    axes.plot(range(length), range(length, 0, -1), label="if every\nkey counted", **GREY)
    label(axes, KEY, f"position p of key j,\nseen from i = {length - 1}", "random queries")


def shaw() -> None:
    """Every query with its own product; beyond max_distance all alike."""
    left, right = sheet(2, (1.15, 1))
    q = torch.randn(1, 1, 32, 16)
    score_TS = score(drawn("shaw", head_dim=16, max_distance=8), q, q, Layout.contiguous(32))
    heat(left, score_TS)
    right.plot(range(-16, 16), score_TS[16], drawstyle="steps-mid")
    label(right, RELATIVE, f"{ADDED}, along i = 16")


def nezha() -> None:
    """What a random query gets from the waves, clipped at max_distance."""
    (axes,) = sheet()
    length, middle = 65, 32
    layout, q = Layout.contiguous(length), torch.randn(1, 1, 1, 32).expand(1, 1, length, 32)
    for limit in (8, 24):
        score_S = score(positions.get("nezha", head_dim=32, max_distance=limit), q, q, layout)[middle]
        axes.plot(range(-middle, length - middle), score_S, label=f"max_distance {limit}")
    label(axes, RELATIVE, ADDED, "one random query")


def transformer_xl() -> None:
    """The terms with distances, over memory and the segment itself."""
    (axes,) = sheet()
    T, memory = 24, 24
    scheme = positions.get("transformer_xl", d_model=32, num_heads=1, head_dim=16)
    torch.nn.init.normal_(scheme.matrix, std=0.3)
    layout = Layout.contiguous(T).with_memory(memory)
    q, k = torch.randn(1, 1, T, 16), torch.randn(1, 1, T + memory, 16)
    score_TS = score(scheme, q, k, layout)
    heat(axes, score_TS.masked_fill(~layout.mask(), torch.nan), first_key=-memory)
    axes.axvline(-0.5, color="black", linewidth=1, linestyle="-")
    axes.set(xlabel="key: memory on the left, the segment on the right", ylabel="query of the segment")


def deberta() -> None:
    """Buckets that widen with the distance, and what one query and one key get from them."""
    left, right = sheet(2, (1, 1.3))
    length, middle = 129, 64
    layout = Layout.contiguous(length)
    q, k = (torch.randn(1, 1, 1, 16).expand(1, 1, length, 16) for _ in range(2))
    sizes = {"d_model": 4, "num_heads": 1, "head_dim": 16, "position_buckets": 8, "max_distance": 72}
    for term in ("c2p", "p2c"):
        scheme = drawn("deberta", **sizes, terms=[term])
        score_S = score(scheme, q, k, layout)[middle]
        right.plot(range(-middle, length - middle), score_S, label=term, drawstyle="steps-mid")
    relative = torch.arange(-middle, length - middle)
    left.plot(relative, scheme.bucket(-relative), drawstyle="steps-mid")
    label(left, RELATIVE, "bucket of i − j")
    label(right, RELATIVE, ADDED, "random table")


def compose() -> None:
    """Rotary in three layers of four, nothing in the fourth."""
    panels = sheet(4)
    scheme = positions.get("compose", members=[{"name": "rotary", "head_dim": 64, "layers": [0, 1, 2]}])
    for layer, axes in enumerate(panels):
        axes.plot(*products(scheme, 129, layer=layer))
        axes.set(ylim=(-0.05, 1.08), xlabel="j − i", title=f"layer {layer}")
        axes.tick_params(labelleft=layer == 0)
    panels[0].set_ylabel(PRODUCT)


PICTURES: tuple[Callable[[], None], ...] = (
    *(none, learned, sinusoidal, rotary, xpos, alibi, t5, shaw),
    *(nezha, transformer_xl, deberta, kerple, fire, cope, pope, compose),
)


def main() -> None:
    """Draw one picture for every scheme there is."""
    assert sorted(draw.__name__ for draw in PICTURES) == positions.available(), "a picture for each scheme"
    FOLDER.mkdir(exist_ok=True)
    mpl.use("svg")
    with plt.style.context(Path(__file__).with_suffix(".mplstyle")), torch.no_grad():
        for draw in PICTURES:
            torch.manual_seed(3)
            draw()
            plt.savefig(FOLDER / f"{draw.__name__}.svg", metadata={"Date": None, "Creator": None})
            plt.close()


if __name__ == "__main__":
    main()
