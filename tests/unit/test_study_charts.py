"""Charts of a study stay readable where intervals are wide or the screen is narrow."""

import math
import re

import pytest

from tokenspace.study import Measure, StudyPlan, Summary
from tokenspace.study.charts import charts
from tokenspace.study.drawing import HEIGHT, Line, line_chart
from tokenspace.study.plan import StudySettings
from tokenspace.study.plots import drawn
from tokenspace.study.report import report_html

VAST = {"a": {1: 3.0, 2: 5.0}, "b": {1: 3.1, 2: 5.2}}  # intervals of some ±12
SHARES = {"a": {1: 0.2, 2: 1.0}, "b": {1: 0.1, 2: 0.9}}


def summary():
    loss = Measure("loss", "loss", VAST)
    shares = [Measure("copy", "copy", SHARES, lower_is_better=False, chance=1 / 16)] * 2
    plan = StudyPlan(
        asked={},
        settings=StudySettings(extend=2),
        corpus="corpus",
        corpus_identity="x",
        model={"context_length": 8},
        training={"steps": 1, "batch_size": 1},
    )
    by_position = {"a": [4.0] * 8, "b": [4.1] * 8}
    return Summary(plan, ["a", "b"], [1, 2], 4, loss, [loss, loss], {"copy": shares}, loss, loss, loss, by_position, [])


def chart_of(name):
    (chart,) = (chart for chart in charts(summary()) if chart.name == name)
    return chart


def test_shares_are_drawn_from_0_to_1():
    chart = chart_of("probe_copy")
    assert (chart.low, chart.high) == (0.0, 1.0)
    svg = line_chart(chart.lines, chart.x_title, chart.y_title, chart.low, chart.high)
    assert re.findall(r'class="tick end"[^>]*>([^<]*)<', svg) == ["0", "0.25", "0.5", "0.75", "1"]


def test_the_range_of_losses_is_that_of_their_means():
    chart = chart_of("loss_by_length")
    assert 3.9 < chart.low < 4.0 and 4.15 < chart.high < 4.3


def test_intervals_end_at_the_edges_of_the_chart():
    svg = line_chart([Line("a", [(1.0, 0.5), (2.0, 0.6)], [9.0, 9.0], 0)], "x", "y", 0.0, 1.0)
    ends = [float(end) for pair in re.findall(r'<g .*?y1="([^"]*)" y2="([^"]*)"', svg, re.DOTALL) for end in pair]
    assert len(ends) == 4 and all(0 < end < HEIGHT for end in ends)


def test_charts_scroll_on_a_narrow_screen():
    page = report_html(summary(), "a text")
    assert page.count('<div class="scroll"><svg') == page.count("<svg") == 3
    assert re.search(r"svg \{[^}]*min-width", page)


def test_more_schemes_than_colours_are_told_apart_by_dashes():
    lines = [Line(f"s{i}", [(1.0, 0.1 * i), (2.0, 0.2 * i)], [None, 0.1], i) for i in range(10)]
    svg = line_chart(lines, "x", "y")
    looks = re.findall(r'<polyline class="([^"]*)"', svg)
    assert len(set(looks)) == 10 and looks[9] == "series-1 dashed"
    page = report_html(summary(), "a text")
    assert ".dashed" in page and set(re.findall(r"series-\d+", svg)) == {f"series-{i}" for i in range(8)}


def test_the_scheme_stays_in_sight_when_a_table_is_scrolled():
    assert re.search(r"td:first-child \{[^}]*sticky", report_html(summary(), "a text"))


def test_bars_are_explained():
    assert "upright bars are their 95% intervals" in report_html(summary(), "a text")


def test_pngs_have_the_lengths_below_and_the_names_beside_them():
    pytest.importorskip("matplotlib")
    figure = drawn(chart_of("loss_by_length"))
    assert figure.axes[0].get_xticks().tolist() == [8, 16]
    assert figure.legends and figure.axes[0].get_legend() is None  # beside the lines


def test_pngs_have_no_bars_where_there_is_no_interval():
    pytest.importorskip("matplotlib")

    def ends(chart):
        (_, caps, _), *_ = drawn(chart).axes[0].containers
        return [float(y) for cap in caps for y in cap.get_ydata()]

    assert not any(map(math.isfinite, ends(chart_of("loss_by_position"))))
    assert any(map(math.isfinite, ends(chart_of("loss_by_length"))))


def test_tables_are_explained_once():
    assert report_html(summary(), "a text").count("half the 95% interval") == 1
