"""Which lines a study's charts have; `report` and `plots` draw the same ones."""

import itertools
from dataclasses import dataclass

from tokenspace.study.drawing import Line
from tokenspace.study.summary import Measure, Summary

_POSITIONS_A_POINT = 16  # points of the chart by position: single positions are noisy
_WORST = 2.0  # nats above the best; what is farther off would press the others together
_MARGIN, _LEAST_MARGIN = 0.15, 0.05  # below and above the means: of what they span, and nats


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        name: Of its file.
        title: Above it.
        lines: One a scheme.
        x_title: Of the x axis.
        y_title: Of the y axis.
        low: Lower end of the y axis; what is below it is drawn at its edge. None for all of it.
        high: The same of the upper end.
    """

    name: str
    title: str
    lines: list[Line]
    x_title: str
    y_title: str
    low: float | None = None
    high: float | None = None


def charts(summary: Summary) -> list[Chart]:
    """All charts of a study."""
    found = [_by_position(summary)]
    if len(summary.at_lengths) > 1:
        title = "Loss on the same final tokens, by what stands before them"
        lines = _across(summary, summary.at_lengths)
        ys = [y for line in lines for _, y in line.points]  # means alone: an interval of two seeds may be vast
        low, high = min(ys), min(max(ys), min(ys) + _WORST)
        beside = _MARGIN * (high - low) or _LEAST_MARGIN
        x_title, ends = "tokens in the window", (low - beside, high + beside)
        found.append(Chart("loss_by_length", title, lines, x_title, "nats per token", *ends))
    for probe, measures in summary.probes.items():
        if len(measures) > 1:
            lines = _across(summary, measures, [*summary.plan.multiples])
            x_title = "times the trained length"
            found.append(Chart(f"probe_{probe}", f"Order probe: {probe}", lines, x_title, "right answers", 0.0, 1.0))
    return found


def _by_position(summary: Summary) -> Chart:
    T = summary.plan.context_length
    points = min(_POSITIONS_A_POINT, T)
    cuts = [T * i // points for i in range(points + 1)]
    lines = []
    for series, scheme in enumerate(summary.schemes):
        found = []
        for low, high in itertools.pairwise(cuts):
            values = [value for value in summary.by_position[scheme][low:high] if value is not None]
            if values:
                found.append(((low + high + 1) / 2, sum(values) / len(values)))
        lines.append(Line(scheme, found, [None] * len(found), series))
    title = "Loss by position in the window, at the trained length"
    return Chart("loss_by_position", title, lines, "position", "nats per token")


def _across(summary: Summary, measures: list[Measure], xs: list[int] | None = None) -> list[Line]:
    xs = xs or [multiple * summary.plan.context_length for multiple in summary.plan.multiples]
    lines = []
    for series, scheme in enumerate(summary.schemes):
        found = [(x, measure.mean(scheme)) for x, measure in zip(xs, measures, strict=True)]
        found = [(x, mean) for x, mean in found if mean is not None]
        points = [(float(x), mean.mean) for x, mean in found]
        lines.append(Line(scheme, points, [mean.half_width for _, mean in found], series))
    return lines
