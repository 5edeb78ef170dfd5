"""Studies as a whole: begin one or go on with it, open one that is there."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from tokenspace.files import write_file
from tokenspace.study.comparison import SCHEMES, Comparison
from tokenspace.study.estimating import Estimate
from tokenspace.study.own_models import Build, OwnModels
from tokenspace.study.plan import StudyPlan, runs_of
from tokenspace.study.plots import write_pngs
from tokenspace.study.report import report_html
from tokenspace.study.running import Watcher, do_run, has_figures, read_figures
from tokenspace.study.summary import Summary, summarize
from tokenspace.study.tables import to_csv, to_json
from tokenspace.study.workers import do_runs


@dataclass(frozen=True)
class Study:
    """A study on disk, finished or not.

    Attributes:
        folder: Where it is.
        plan: What its runs share.
        schemes: Which are compared.
        seeds: Of the runs of each.
    """

    folder: Path
    plan: StudyPlan
    schemes: tuple[str, ...]
    seeds: tuple[int, ...]

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """The study in a folder, with the runs that are done.

        Raises:
            CheckpointError: the folder is no study.
        """
        folder = Path(folder)
        plan = StudyPlan.open(folder)
        done = [path.stem.rpartition("-") for path in sorted((folder / "figures").glob("*.json"))]
        done = [(scheme, int(seed)) for scheme, _, seed in done if scheme and seed.isdecimal()]
        schemes = dict.fromkeys(scheme for scheme, _ in done)
        return cls(folder, plan, tuple(schemes), tuple(sorted({seed for _, seed in done})))

    def with_done(self) -> Self:
        """The same with all schemes and seeds of which a run is done, asked for now or before."""
        done = Study.open(self.folder)
        schemes = tuple(dict.fromkeys(self.schemes + done.schemes))
        return replace(self, schemes=schemes, seeds=tuple(sorted({*self.seeds, *done.seeds})))

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Scheme and seed of every run, in the order in which they are begun."""
        return runs_of(self.schemes, self.seeds)

    @property
    def figures(self) -> list[dict[str, Any]]:
        """Those of the runs that are done."""
        return [read_figures(self.folder, *run) for run in self.runs if has_figures(self.folder, *run)]

    @property
    def is_done(self) -> bool:
        """Whether all runs are."""
        return all(has_figures(self.folder, *run) for run in self.runs)

    def run(
        self, workers: int = 1, device: str = "auto", watch: Watcher | None = None, build: Build | None = None
    ) -> bool:
        """Do the runs that are not done; returns whether all are, False where they were interrupted.

        Args:
            workers: Runs at once, each in a process of its own; 1 for this process.
            device: "auto", "cpu", "cuda", …
            watch: Called with `RunProgress`.
            build: See `compare`.
        """
        watch = watch or (lambda progress: None)
        left = [run for run in self.runs if not has_figures(self.folder, *run)]
        if workers > 1 and len(left) > 1:
            return do_runs(self.folder, left, workers, device, watch)
        subjects = None if build is None else OwnModels(self.plan, self.folder / self.plan.corpus, build, device)
        try:
            return all(do_run(self.folder, *run, device, watch, subjects) for run in left)
        except KeyboardInterrupt:  # outside a training, which stops by itself
            return False

    def summary(self) -> Summary:
        """The runs that are done, joined.

        Raises:
            SettingError: there are none.
        """
        return summarize(self.plan, self.figures)

    def write(self) -> list[Path]:
        """Write ``report.html``, ``results.json``, ``runs.csv`` and, with matplotlib, a PNG for each chart.

        They are of all runs that are done in the folder, those of other schemes and seeds too.

        Returns:
            Their paths, in the study folder.

        Raises:
            SettingError: no run is done.
        """
        whole, sources = self.with_done(), self.plan.asked["sources"]
        summary = whole.summary()
        name = Path(sources[0]).name if sources else "a text"
        name += f" and {len(sources) - 1} more" if len(sources) > 1 else ""
        texts = {
            "report.html": report_html(summary, name),
            "results.json": json.dumps(to_json(summary, whole.figures), indent=1, ensure_ascii=False) + "\n",
            "runs.csv": to_csv(summary),
        }
        for file, text in texts.items():
            write_file(self.folder / file, text.encode("utf-8", "replace"))
        return [*(self.folder / file for file in texts), *write_pngs(summary, self.folder)]


def compare(
    sources: str | Path | Sequence[str | Path] = (),
    *,
    schemes: Sequence[str] = SCHEMES,
    seeds: int | Sequence[int] = 3,
    out: str | Path | None = None,
    build: Build | None = None,
    watch: Watcher | None = None,
    **asked: Any,
) -> Study:
    """Compare position schemes on a text: the same model with each of them, trained with several seeds.

    What was done before in the folder `out` is kept: a study that was stopped goes on, one that is done is
    returned, and more schemes or seeds may be added to it.

    Args:
        sources: Files, folders, …; or one corpus folder.
        schemes: Names of schemes; with `build`, whatever it knows.
        seeds: How many, from 1; or which.
        out: The study folder; by default the first free name under ``studies``.
        build: ``build(scheme)`` gives the caller's own model, which maps token ids (B, T) and a `Layout` to
            logits (B, T, V). It is called with torch's generator at the run's seed: a model that draws its scheme
            last begins equal in all else.
        watch: Called with `RunProgress`.
        **asked: Other fields of `Comparison` (``documents``, ``tokenizer``, ``budget``, ``workers``, …), of
            `StudySettings` (``extend``, ``objective``, …), `ModelConfig` and `TrainingConfig` (``d_model``, ``steps``,
            …); ``position_settings`` by scheme.

    Returns:
        The study; its `is_done` is False where it was interrupted.

    Raises:
        TokenspaceError: a scheme, setting or path breaks a rule, or the text is too short.
    """
    comparison = Comparison.of(sources, schemes=schemes, seeds=seeds, build=build, **asked)
    study = prepare(comparison, out)
    study.run(comparison.workers, comparison.device, watch, build)
    return study


def prepare(comparison: Comparison, out: str | Path | None = None) -> Study:
    """A study folder with its corpus and its plan, and no run yet; or the one that is there.

    Raises:
        TokenspaceError: as of `compare`.
    """
    folder, plan = comparison.prepare(None if out is None else Path(out))
    return Study(folder, plan, comparison.schemes, comparison.seeds)


def estimate(
    sources: str | Path | Sequence[str | Path] = (), *, out: str | Path | None = None, **asked: Any
) -> Estimate:
    """How long `compare` would take here, from a few steps of each scheme; nothing stays on disk.

    Args:
        sources: As of `compare`.
        out: As of `compare`: of a study that is there, what is left is estimated, runs that were begun as a whole.
        **asked: As of `compare`.

    Raises:
        TokenspaceError: as of `compare`.
    """
    return Comparison.of(sources, **asked).estimate(None if out is None else Path(out))
