"""``tokenspace atlas``."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tokenspace.cli.flags import Json, Out
from tokenspace.cli.show import counted, output, print_json, remarks

if TYPE_CHECKING:
    from tokenspace.checkpoint import ForeignModel, Run


def atlas(
    model: str,
    /,
    *,
    out: Out = Path("atlas.html"),
    projection: Literal["pca", "umap", "tsne"] = "pca",
    table: str | None = None,
    json: Json = False,
) -> None:
    """Write one HTML file that shows every token, the positions and the training; it needs no network.

    Parameters
    ----------
    model
        A run, a model folder, a file of vectors, or a name in the local Hugging Face cache.
    out
        The file to make.
    projection
        pca; umap or tsne, which need `pip install 'tokenspace[umap]'` or `'tokenspace[tsne]'`.
    table
        Name of the token table's tensor, where it cannot be found by itself.
    json
        Print {"out", "bytes", "seconds", "tokens", "frames", "health", "notes"} when done.
    """
    from tokenspace import Run

    fields = write_atlas(Run.open(model, table=table), out, projection)
    if json:
        print_json(fields)
        return
    console = output()
    console.print(
        f"{counted(fields['tokens'], 'token')} and {counted(len(fields['frames']), 'frame')} in {out} "
        f"({fields['bytes'] / 1e6:.1f} MB), "
        "made in {:.0f} s. Open it in a browser.".format(fields["seconds"]),
        soft_wrap=True,
    )
    for note in fields["notes"]:
        remarks().print(note, soft_wrap=True)


def write_atlas(source: "Run | ForeignModel", out: Path, projection: str = "pca") -> dict[str, Any]:
    """Make an atlas under progress bars; returns what there is to say of it.

    Raises:
        SettingError: something stands at `out` already.
    """
    from tokenspace.atlas import Atlas
    from tokenspace.cli.bars import Bars
    from tokenspace.files import check_absent

    check_absent(out)
    begin = time.perf_counter()
    with Bars() as bars:
        made = Atlas.of(source, projection=projection, progress=bars)
        bars("writing the page", 0, 1)
        made.save(out)
        bars("writing the page", 1, 1)
    meta = made.data.meta
    return {
        "out": str(out),
        "bytes": out.stat().st_size,
        "seconds": time.perf_counter() - begin,
        "tokens": meta["vocab_size"],
        "frames": meta["frames"],
        "health": meta["health"],
        "notes": meta["notes"],
    }
