"""Line charts as SVG text, without scripts or files of their own.

Colours are classes ``series-0`` … that the page's style sheet defines.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

NUM_COLOURS = 8
WIDTH, HEIGHT = 640, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 130, 14, 40
_TICKS = 5
_APART = 14  # between two labels


@dataclass(frozen=True)
class Line:
    """One series of a chart.

    Attributes:
        label: Its name.
        points: x and y.
        half_widths: Of the intervals at the points; None for none.
        series: Number of its colour; from `NUM_COLOURS` on they begin again, with dashes.
    """

    label: str
    points: Sequence[tuple[float, float]]
    half_widths: Sequence[float | None]
    series: int


def line_chart(
    lines: Sequence[Line], x_title: str, y_title: str, low: float | None = None, high: float | None = None
) -> str:
    """Lines over a common pair of axes, with their names at their ends.

    Args:
        lines: At least one, with at least one point in all.
        x_title: Below the x axis.
        y_title: Beside the y axis.
        low: Lower end of the y axis; what is below it is drawn at its edge. None for all of it.
        high: The same of the upper end.
    """
    xs = [x for line in lines for x, _ in line.points]
    lows = [y - (w or 0) for line in lines for (_, y), w in zip(line.points, line.half_widths, strict=True)]
    highs = [y + (w or 0) for line in lines for (_, y), w in zip(line.points, line.half_widths, strict=True)]
    ticks = nice_ticks(min(lows) if low is None else low, max(highs) if high is None else high)
    frame = _Frame(min(xs), max(xs), ticks[0], ticks[-1])
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_title)} by {escape(x_title)}">']
    for tick in ticks:
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="{_LEFT - 8}" y="{y + 4:.1f}">{tick:g}</text>')
    for tick in sorted(set(xs)) if len(set(xs)) <= _TICKS else nice_ticks(min(xs), max(xs)):
        if frame.low_x <= tick <= frame.high_x:
            parts.append(f'<text class="tick" x="{frame.x(tick):.1f}" y="{HEIGHT - _BOTTOM + 18}">{tick:g}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text class="title" x="{middle:.0f}" y="{HEIGHT - 4}">{escape(x_title)}</text>')
    parts.append(f'<text class="title" x="14" y="{HEIGHT / 2:.0f}" transform="rotate(-90 14 {HEIGHT / 2:.0f})">')
    parts.append(f"{escape(y_title)}</text>")
    for line in lines:
        parts += _drawn(line, frame)
    parts += _labels([line for line in lines if line.points], frame)
    return "\n".join([*parts, "</svg>"])


def nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers that enclose a range.

    Example:
        >>> nice_ticks(3.42, 4.9)
        [3.0, 3.5, 4.0, 4.5, 5.0]
    """
    spread = high - low or abs(high) or 1.0
    rough = spread / (_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True)
class _Frame:
    low_x: float
    high_x: float
    low_y: float
    high_y: float

    def x(self, value: float) -> float:
        share = (value - self.low_x) / (self.high_x - self.low_x or 1)
        return _LEFT + share * (WIDTH - _RIGHT - _LEFT)

    def y(self, value: float) -> float:
        share = (max(self.low_y, min(value, self.high_y)) - self.low_y) / (self.high_y - self.low_y)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _BOTTOM - _TOP)


def _drawn(line: Line, frame: _Frame) -> list[str]:
    places = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in line.points)
    colour, dashed = f"series-{line.series % NUM_COLOURS}", " dashed" * (line.series >= NUM_COLOURS)
    parts = [f'<polyline class="{colour}{dashed}" points="{places}"/>']
    for (x, y), width in zip(line.points, line.half_widths, strict=True):
        if width is None:
            continue
        told = f"{line.label}: {y:.3f} ± {width:.3f} at {x:g}"
        parts.append(f'<g class="{colour}"><title>{escape(told)}</title>')
        at, low, high = frame.x(x), frame.y(y - width), frame.y(y + width)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        parts.append(f'<circle cx="{at:.1f}" cy="{frame.y(y):.1f}" r="3"/></g>')
    return parts


def _labels(lines: Sequence[Line], frame: _Frame) -> list[str]:
    """Names beside the ends of the lines, moved apart where they would overlap."""
    ends = sorted(((frame.y(line.points[-1][1]), line) for line in lines), key=lambda end: end[0])
    parts, free = [], 0.0
    overflow = max(0.0, _TOP + _APART * len(ends) - (HEIGHT - _BOTTOM))
    for index, (y, line) in enumerate(ends):
        most = HEIGHT - _BOTTOM + overflow - _APART * (len(ends) - 1 - index)
        y = max(free, min(y, most))
        free = y + _APART
        place = f'x="{WIDTH - _RIGHT + 8}" y="{y + 4:.1f}"'
        parts.append(f'<text class="label series-{line.series % NUM_COLOURS}" {place}>{escape(line.label)}</text>')
    return parts
