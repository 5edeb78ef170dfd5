"""A study's figures as rows: for a terminal, a page, CSV and JSON."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tokenspace.study.conclusions import conclusions
from tokenspace.study.student import Mean
from tokenspace.study.summary import CONFIDENCE, Measure, Summary

BEST = "*"
BARS = "Means over seeds; upright bars are their 95% intervals."
NOTE = f"Means over seeds ± half the 95% interval; {BEST} marks a best that the intervals allow to name."


def header(measures: Sequence[Measure]) -> list[str]:
    """Titles of the columns."""
    return ["scheme", *(measure.title for measure in measures)]


def rows(summary: Summary, measures: Sequence[Measure]) -> list[list[str]]:
    """A row for each scheme, the lowest loss first; the best of a column, where there is one, has a star."""
    best = {measure.name: measure.best() for measure in measures}
    return [
        [_row_title(summary, scheme), *(_cell(measure, scheme, best[measure.name] == scheme) for measure in measures)]
        for scheme in summary.schemes
    ]


def tables(summary: Summary) -> list[tuple[str, list[Measure]]]:
    """Titles and columns of the tables that show a study, narrow enough for a terminal."""
    beyond = [
        (f"Order probe {probe}, at the trained length and beyond", measures)
        for probe, measures in summary.probes.items()
        if len(measures) > 1
    ]
    return [
        ("Loss, in nats per token", [summary.loss, *summary.at_lengths]),
        ("Order probes: share of right answers", [measures[0] for measures in summary.probes.values()]),
        *beyond,
        ("Cost", [summary.speed, summary.memory, summary.parameters]),
    ]


def to_json(summary: Summary, figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything: plan, means, conclusions, and the figures of every run."""
    return {
        "plan": {"model": summary.plan.model, "training": summary.plan.training, **_settings(summary)},
        "seeds": summary.seeds,
        "confidence": CONFIDENCE,
        "schemes": {
            scheme: {measure.name: _mean(measure.mean(scheme)) for measure in summary.measures}
            for scheme in summary.schemes
        },
        "best": {measure.name: measure.best() for measure in summary.measures},
        "conclusions": conclusions(summary),
        "runs": list(figures),
    }


def to_csv(summary: Summary) -> str:
    """One line for each scheme, seed and measure."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["scheme", "seed", "measure", "value"])
    for scheme in summary.schemes:
        for measure in summary.measures:
            for seed, value in sorted(measure.values[scheme].items()):
                writer.writerow([scheme, seed, measure.name, repr(value)])
    return out.getvalue()


def _row_title(summary: Summary, scheme: str) -> str:
    number = len(summary.loss.values[scheme])
    return scheme if number == len(summary.seeds) else f"{scheme} ({number} of {len(summary.seeds)} seeds)"


def _cell(measure: Measure, scheme: str, is_best: bool) -> str:
    found = measure.mean(scheme)
    if found is None:
        return "–"
    text = f"{found.mean:,.{measure.digits}f}"
    if found.half_width or (found.half_width is not None and measure.digits > 1):  # costs may be equal by their nature
        text += f" ± {found.half_width:,.{measure.digits}f}"
    return f"{text} {BEST}" if is_best else text


def _mean(found: Mean | None) -> dict[str, Any] | None:
    return None if found is None else {"mean": found.mean, "half_width": found.half_width, "seeds": found.number}


def _settings(summary: Summary) -> dict[str, Any]:
    return {"study": asdict(summary.plan.settings), "corpus": summary.plan.corpus_identity}
