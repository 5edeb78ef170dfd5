"""Results on a terminal: tables, heat maps, and JSON for machines."""

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from torch import Tensor

    from tokenspace.inspection import Shown

_SHADES = "·░▒▓█"


def output() -> Console:
    """Where data goes: stdout."""
    return Console(highlight=False, markup=False)


def remarks() -> Console:
    """Where progress and remarks go: stderr."""
    return Console(stderr=True, highlight=False, markup=False)


def counted(number: int, name: str) -> str:
    """A number of things, as one says it.

    Example:
        >>> counted(1, "frame"), counted(1200, "token")
        ('1 frame', '1,200 tokens')
    """
    return f"{number:,} {name}" if number == 1 else f"{number:,} {name}s"


def in_first_process() -> bool:
    """Whether this process is alone, or the first of those that torchrun started."""
    return "WORLD_SIZE" not in os.environ or os.environ.get("RANK", "0") == "0"


def print_json(fields: Any) -> None:
    """One JSON value on stdout."""
    print(json.dumps(fields, ensure_ascii=False))


def print_table(result: "Shown", title: str | None = None) -> None:
    """A result of `tokenspace.inspection` as a table on stdout."""
    print_rows(result.header(), result.rows(), title)


def print_rows(header: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """A table on stdout; cells are data, never markup."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold underline")
    for cell in header:
        table.add_column(Text(cell), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = output()
    if title:
        console.print(title, style="bold")
    console.print(table)
    console.print()


def print_heat_map(values_PP: "Tensor", labels: Sequence[int], title: str) -> None:
    """A matrix of cosines: one shade a cell, from 0 or less (light) to 1 (full)."""
    console = output()
    console.print(title, style="bold")
    width = len(str(labels[-1]))
    for label, row in zip(labels, values_PP.tolist(), strict=True):
        cells = "".join(_shade(value) * 2 for value in row)
        console.print(f"{label:>{width}} {cells}")
    bounds = ("0 or less", "to 1/4", "to 1/2", "to 3/4", "to 1")
    legend = "   ".join(f"{shade} {bound}" for shade, bound in zip(_SHADES, bounds, strict=True))
    console.print(f"{'':>{width}} {legend}")


def _shade(cosine: float) -> str:
    return _SHADES[max(0, min(4, -int(-cosine * 4 // 1)))]
