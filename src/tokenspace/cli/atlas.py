"""``tokenspace atlas``, and the bars of the work behind it."""

import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tokenspace.cli.flags import Json, Out
from tokenspace.cli.show import output, print_json, remarks
from tokenspace.files import check_absent

if TYPE_CHECKING:
    from tokenspace.checkpoint import Run


def atlas(
    run: Path,
    /,
    *,
    out: Out = Path("atlas.html"),
    projection: Literal["pca", "umap", "tsne"] = "pca",
    json: Json = False,
) -> None:
    """Write one HTML file that shows every token, the positions and the training; it needs no network.

    Parameters
    ----------
    run
        A run folder, or a folder of a GPT-2 that transformers saved.
    out
        The file to make.
    projection
        pca; umap or tsne, which need `pip install 'tokenspace[umap]'` or `'tokenspace[tsne]'`.
    json
        Print {"out", "bytes", "seconds", "tokens", "frames", "health", "notes"} when done.
    """
    fields = write_atlas(run, out, projection)
    if json:
        print_json(fields)
        return
    console = output()
    console.print(
        f"{fields['tokens']:,} tokens and {len(fields['frames'])} frames in {out} ({fields['bytes'] / 1e6:.1f} MB), "
        "made in {:.0f} s. Open it in a browser.".format(fields["seconds"]),
        soft_wrap=True,
    )
    for note in fields["notes"]:
        remarks().print(note, soft_wrap=True)


def write_atlas(source: "Path | Run", out: Path, projection: str = "pca") -> dict:
    """Make an atlas under progress bars; returns what there is to say of it.

    Raises:
        SettingError: something stands at `out` already.
    """
    from tokenspace.atlas import Atlas

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


class Bars:
    """One bar on stderr for the work that is being done; on a terminal only."""

    def __init__(self) -> None:
        console = remarks()
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        self._bars = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._task = self._bars.add_task("", total=None)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, task: str, done: int, total: int) -> None:
        """Show how much of a task is done; one that cannot tell (0 of 1) shows that it is under way."""
        self._bars.update(self._task, description=task, completed=done, total=total if done or total > 1 else None)
