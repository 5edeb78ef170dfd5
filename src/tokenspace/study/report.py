"""A study's report: one HTML file that needs no network and runs no script.

Its content security policy allows nothing but the style sheet inside, by its hash.
"""

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from tokenspace.study.charts import charts
from tokenspace.study.conclusions import conclusions
from tokenspace.study.drawing import line_chart
from tokenspace.study.summary import Measure, Summary
from tokenspace.study.tables import BARS, BEST, NOTE, header, rows, tables


def report_html(summary: Summary, title: str) -> str:
    """The page.

    Args:
        summary: Of the study.
        title: What was studied.
    """
    style = files("tokenspace.study").joinpath("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}: position schemes compared</title>",
            f"<style>{style}</style></head><body>",
            f"<h1>Position schemes on {escape(title)}</h1>",
            f'<p class="quiet">{escape(_about(summary))}</p>',
            "<h2>What can be concluded, and what not</h2>",
            *(f"<p>{escape(paragraph)}</p>" for paragraph in conclusions(summary)),
            *(_table(summary, *table) for table in tables(summary)),
            f'<p class="quiet">{NOTE}</p>',
            *_figures(summary),
            "</body></html>",
            "",
        ]
    )


def _about(summary: Summary) -> str:
    model, training = summary.plan.model, summary.plan.training
    sizes = ", ".join(f"{name} {model[name]}" for name in ("d_model", "num_layers", "num_heads") if name in model)
    asked = "the next token" if summary.plan.settings.objective == "causal" else "hidden tokens, seen from both sides"
    seeds = f"{len(summary.seeds)} {'seed' if len(summary.seeds) == 1 else 'seeds'}"
    return (
        f"{summary.num_runs} runs of {len(summary.schemes)} schemes with {seeds}; trained on {asked}, "
        f"{training['steps']:,} steps of {training['batch_size']} windows of {summary.plan.context_length} tokens"
        + (f"; {sizes}." if sizes else ".")
    )


def _table(summary: Summary, title: str, measures: Sequence[Measure]) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in header(measures))
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows(summary, measures))
    return f'<h2>{escape(title)}</h2>\n<div class="scroll"><table><tr>{cells}</tr>{body}</table></div>'


def _cell(text: str) -> str:
    is_best = text.endswith(f" {BEST}")
    return f'<td class="best">{escape(text)}</td>' if is_best else f"<td>{escape(text)}</td>"


def _figures(summary: Summary) -> list[str]:
    found = ["<h2>Curves</h2>", f'<p class="quiet">{BARS}</p>']
    for chart in charts(summary):
        lines = [line for line in chart.lines if line.points]
        drawn = line_chart(lines, chart.x_title, chart.y_title, chart.low, chart.high)
        drawn = f'<div class="scroll">{drawn}</div>'
        found.append(f"<figure><figcaption>{escape(chart.title)}</figcaption>\n{drawn}</figure>")
    return found
