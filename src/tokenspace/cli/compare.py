"""``tokenspace compare``."""

import re
import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from tokenspace.cli.flags import Config, Out, Sources, check_sources
from tokenspace.cli.show import counted, output, print_rows, remarks
from tokenspace.cli.train import read_settings
from tokenspace.errors import SettingError

if TYPE_CHECKING:
    from tokenspace.study import Estimate, Study

_FLAGS = {"schemes", "positions", "seeds", "budget", "force", "workers", "out"}  # what --config cannot hold
_IN_PYTHON = {"build", "documents", "progress", "settings", "sources", "text"}
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600}


def compare(
    *sources: Sources,
    positions: str | None = None,
    seeds: int = 3,
    context: int | None = None,
    extend: int | None = None,
    objective: Literal["causal", "masked"] | None = None,
    budget: str | None = None,
    estimate: Annotated[bool, Parameter(negative="")] = False,
    force: Annotated[bool, Parameter(negative="")] = False,
    workers: int = 1,
    out: Out | None = None,
    config: Config = (),
) -> None:
    """Compare position schemes on a text: the same model with each, trained with several seeds.

    The same command with the same --out goes on with a study that was stopped; more seeds or schemes are added to it.

    Parameters
    ----------
    sources
        Files, folders, URLs, JSONL, Parquet, compressed or not; "-" for standard input; or one corpus folder.
    positions
        Names of schemes, with commas. Default: none,learned,sinusoidal,rotary,alibi,t5,shaw,transformer_xl.
    seeds
        Runs of each scheme.
    context
        Tokens of a training window, at least 8. Default: what suits the text.
    extend
        Measure the loss up to so many times the trained length. Default: 4.
    objective
        causal for the next token (the default), or masked for hidden tokens that are seen from both sides.
    budget
        Time for all runs here: 2h, 90m. It decides the steps. Default: 10 minutes a run.
    estimate
        Say how long it will take here, or what is left of it in --out, and stop.
    force
        Take a budget under 5 minutes a run, in which the schemes will hardly be told apart.
    workers
        Runs at once.
    out
        The study folder. Default: the first free name under studies/.
    config
        A TOML file, or NAME=VALUE (steps=1200, d_model=128, tokenizer=gpt2, device=cuda); may be repeated.
    """
    from tokenspace import study
    from tokenspace.cli.watch_study import StudyWatcher

    check_sources(sources)
    settings = read_settings(config, context_length=context, extend=extend, objective=objective)
    for name in sorted((_FLAGS | _IN_PYTHON) & settings.keys()):
        next_step = "Use it in Python" if name in _IN_PYTHON else f"Use --{name.replace('schemes', 'positions')}"
        raise SettingError(name, "be left out of --config", settings[name], next_step)
    request = {
        "schemes": study.SCHEMES if positions is None else tuple(name.strip() for name in positions.split(",")),
        "seeds": seeds,
        "budget": None if budget is None else seconds_of(budget),
        "workers": workers,
        "tokenizer": settings.pop("tokenizer", None),
        "device": settings.pop("device", "auto"),
    }
    with StudyWatcher() as watch:
        comparison = study.Comparison.of(sources, **request, **settings, force=force, progress=watch.prepare)
        if estimate:
            found = comparison.estimate(out)
        else:
            made = study.prepare(comparison, out)
            watch.begin(made)
            done = made.run(workers, comparison.device, watch)
    if estimate:
        _print_estimate(found)
        return
    if not done:
        again = shlex.join(["tokenspace", *sys.argv[1:], *([] if out is not None else ["--out", str(made.folder)])])
        console = remarks()
        console.print(f"stopped; all of it is saved in {made.folder}. This goes on with it:")
        console.print(f"  {again}", soft_wrap=True)
        sys.exit(130)
    _print_study(made)


def seconds_of(text: str) -> float:
    """A time such as 2h, 90m or 45s.

    Raises:
        SettingError: it is none.

    Example:
        >>> seconds_of("1.5h")
        5400.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)", text.strip())
    if found is None:
        raise SettingError("budget", "be a time such as 2h, 90m or 45s", text, "Give a number and a unit")
    return float(found[1]) * _UNITS[found[2]]


def _print_estimate(found: "Estimate") -> None:
    rows = [
        [scheme, f"{cost.step:.3f}", f"{cost.rest:.0f}", f"{found.run_seconds(scheme) / 60:.1f}"]
        for scheme, cost in found.costs.items()
    ]
    print_rows(["scheme", "seconds a step", "seconds of measures", "minutes a run"], rows, "Timed here")
    runs = f"{counted(len(found.runs), 'run')} of {counted(found.steps, 'step')}, {found.workers} at once"
    output().print(f"{runs}: about {_time(found.seconds)}." if found.runs else "All runs are done.")


def _print_study(made: "Study") -> None:
    from tokenspace.study.conclusions import conclusions
    from tokenspace.study.tables import NOTE, header, rows, tables

    written = made.write()
    summary, console = made.with_done().summary(), output()
    for title, measures in tables(summary):
        print_rows(header(measures), rows(summary, measures), title)
    console.print(f"{NOTE}\n")
    for paragraph in conclusions(summary):
        console.print(f"{paragraph}\n")
    console.print(f"The study is in {made.folder}: {', '.join(path.name for path in written)}")
    if not any(path.suffix == ".png" for path in written):
        remarks().print("no PNG files: they need matplotlib (pip install 'tokenspace[study]')")


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
