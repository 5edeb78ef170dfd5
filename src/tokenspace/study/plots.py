"""The charts of a study as PNG files, where matplotlib is installed (the extra ``study``)."""

import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tokenspace.study.charts import Chart, charts
from tokenspace.study.summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INCHES, _DPI = (7.2, 4.2), 150
_COLOURS = 10  # of matplotlib's own cycle
_TICKS = 8


def write_pngs(summary: Summary, folder: Path) -> list[Path]:
    """Write one file for each chart; returns their paths, none without matplotlib."""
    if find_spec("matplotlib") is None:
        return []
    written = []
    for chart in charts(summary):
        written.append(folder / f"{chart.name}.png")
        drawn(chart).savefig(written[-1])
    return written


def drawn(chart: Chart) -> "Figure":
    """A chart as matplotlib draws it."""
    from matplotlib.figure import Figure  # not pyplot, which keeps figures and asks for a screen

    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    axes = figure.add_subplot(title=chart.title, xlabel=chart.x_title, ylabel=chart.y_title)
    for line in chart.lines:
        if line.points:
            xs, ys = zip(*line.points, strict=True)
            look = {"color": f"C{line.series % _COLOURS}", "linestyle": "--" if line.series >= _COLOURS else "-"}
            widths = [math.nan if width is None else width for width in line.half_widths]
            axes.errorbar(xs, ys, widths, label=line.label, capsize=2, **look)
            if len(xs) <= _TICKS:
                axes.set_xticks(xs)
    axes.set_ylim(chart.low, chart.high)
    axes.grid(alpha=0.3)
    figure.legend(fontsize="small", loc="outside right upper")  # inside, it would hide what it names
    return figure
