"""Studies as a whole: begin one or go on with it, open one that is there."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tokenspace.corpus import Corpus
from tokenspace.errors import SettingError, check_above_0, check_at_least
from tokenspace.files import write_file
from tokenspace.study.estimating import Estimate, calibrate, steps_within
from tokenspace.study.own_models import Build, OwnModels
from tokenspace.study.plan import StudyPlan
from tokenspace.study.plots import write_pngs
from tokenspace.study.preparing import (
    MINUTES_A_RUN,
    Progress,
    Text,
    check_budget,
    check_same_study,
    check_schemes,
    make_plan,
    steps_for,
)
from tokenspace.study.report import report_html
from tokenspace.study.running import Watcher, do_run, has_figures, read_figures
from tokenspace.study.subjects import SchemeModels, Subjects
from tokenspace.study.summary import Summary, summarize
from tokenspace.study.tables import to_csv, to_json
from tokenspace.study.workers import do_runs
from tokenspace.training import free_path

SCHEMES = ("none", "learned", "sinusoidal", "rotary", "alibi", "t5", "shaw", "transformer_xl")


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
        schemes = dict.fromkeys(scheme for scheme, _, _ in done)
        return cls(folder, plan, tuple(schemes), tuple(sorted({int(seed) for _, _, seed in done})))

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Scheme and seed of every run, seed by seed: a study that is cut short has some of each scheme."""
        return [(scheme, seed) for seed in self.seeds for scheme in self.schemes]

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
        subjects = _subjects_of(self.folder, build, device)(self.plan)
        return all(do_run(self.folder, *run, device, watch, subjects) for run in left)

    def summary(self) -> Summary:
        """The runs that are done, joined.

        Raises:
            SettingError: there are none.
        """
        return summarize(self.plan, self.figures)

    def write(self) -> list[Path]:
        """Write ``report.html``, ``results.json``, ``runs.csv`` and, with matplotlib, a PNG for each chart.

        Returns:
            Their paths, in the study folder.

        Raises:
            SettingError: no run is done.
        """
        summary, sources = self.summary(), self.plan.asked["sources"]
        name = Path(sources[0]).name if sources else "a text"
        texts = {
            "report.html": report_html(summary, name),
            "results.json": json.dumps(to_json(summary, self.figures), indent=1, ensure_ascii=False) + "\n",
            "runs.csv": to_csv(summary),
        }
        for file, text in texts.items():
            write_file(self.folder / file, text.encode("utf-8", "replace"))
        return [*(self.folder / file for file in texts), *write_pngs(summary, self.folder)]


def compare(
    sources: str | Path | Sequence[str | Path] = (),
    *,
    documents: Sequence[str] | None = None,
    schemes: Sequence[str] = SCHEMES,
    seeds: int | Sequence[int] = 3,
    out: str | Path | None = None,
    build: Build | None = None,
    tokenizer: str | None = None,
    budget: float | None = None,
    workers: int = 1,
    force: bool = False,
    device: str = "auto",
    watch: Watcher | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Study:
    """Compare position schemes on a text: the same model with each of them, trained with several seeds.

    What was done before in the folder `out` is kept: a study that was stopped goes on, one that is done is
    returned, and more schemes or seeds may be added to it.

    Args:
        sources: Files, folders, …; or one corpus folder.
        documents: Text in memory, instead of `sources`.
        schemes: Names of schemes; with `build`, whatever it knows.
        seeds: How many, from 1; or which.
        out: The study folder; by default the first free name under ``studies``.
        build: ``build(scheme)`` gives the caller's own model, which maps token ids (B, T) and a `Layout` to
            logits (B, T, V). It is called with torch's generator at the run's seed: a model that draws its scheme
            last begins equal in all else.
        tokenizer: As of `train`; "train:2048" by default.
        budget: Seconds for all runs, on this machine; 10 minutes for each by default. What the steps cost is timed
            first. Not with ``steps``.
        workers: Runs at once.
        force: Take a budget in which the schemes will hardly be told apart.
        device: "auto", "cpu", "cuda", …
        watch: Called with `RunProgress`.
        progress: Called before the runs with a task, how much of it is done, and how much there is.
        **settings: Fields of `StudySettings`, `ModelConfig` and `TrainingConfig`; ``position_settings`` by scheme.

    Returns:
        The study; its `is_done` is False where it was interrupted.

    Raises:
        TokenspaceError: a scheme, setting or path breaks a rule, or the text is too short.
    """
    study = prepare(
        sources,
        documents=documents,
        schemes=schemes,
        seeds=seeds,
        out=out,
        build=build,
        tokenizer=tokenizer,
        budget=budget,
        workers=workers,
        force=force,
        device=device,
        progress=progress,
        **settings,
    )
    study.run(workers, device, watch, build)
    return study


def prepare(
    sources: str | Path | Sequence[str | Path] = (),
    *,
    documents: Sequence[str] | None = None,
    schemes: Sequence[str] = SCHEMES,
    seeds: int | Sequence[int] = 3,
    out: str | Path | None = None,
    build: Build | None = None,
    tokenizer: str | None = None,
    budget: float | None = None,
    workers: int = 1,
    force: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
    **settings: Any,
) -> Study:
    """A study folder with its corpus and its plan, and no run yet; or the one that is there. See `compare`."""
    progress = progress or (lambda task, done, total: None)
    text = _text(sources, documents, tokenizer)
    chosen = _seeds(seeds)
    check_at_least(1, workers=workers)
    check_schemes(schemes, own=build is not None)
    if build is not None and workers > 1:
        next_step = "Use 1; a model that is built by a function stays in its process"
        raise SettingError("workers", "be 1 with build", workers, next_step)
    folder = free_path(Path("studies"), text.name) if out is None else Path(out)
    if StudyPlan.exists(folder):
        plan = StudyPlan.open(folder)
        check_same_study(plan, text, settings, folder)
        return Study(folder, plan, tuple(schemes), chosen)
    if folder.exists() and any(path.name != "corpus" for path in folder.iterdir()):
        raise SettingError("out", "be a study, or not exist yet", str(folder), "Give another path")
    _check_steps(budget, settings)
    check_budget(budget, len(schemes) * len(chosen), workers, force)
    subjects_of = _subjects_of(folder, build, device)
    steps_of = steps_for(budget, schemes, len(chosen), workers, subjects_of, folder, device, progress)
    folder.mkdir(parents=True, exist_ok=True)
    plan = make_plan(text, folder, settings, progress, steps_of, own=build is not None)
    for scheme in schemes if build is None else ():
        plan.model_config(scheme)
    if build is not None:
        subjects_of(plan).check(schemes)
    plan.save(folder)
    return Study(folder, plan, tuple(schemes), chosen)


def estimate(
    sources: str | Path | Sequence[str | Path] = (),
    *,
    documents: Sequence[str] | None = None,
    schemes: Sequence[str] = SCHEMES,
    seeds: int | Sequence[int] = 3,
    build: Build | None = None,
    tokenizer: str | None = None,
    budget: float | None = None,
    workers: int = 1,
    device: str = "auto",
    progress: Progress | None = None,
    **settings: Any,
) -> Estimate:
    """How long `compare` would take here, from a few steps of each scheme; nothing stays on disk."""
    progress = progress or (lambda task, done, total: None)
    text, number = _text(sources, documents, tokenizer), len(_seeds(seeds))
    check_schemes(schemes, own=build is not None)
    _check_steps(budget, settings)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = make_plan(text, folder, settings, progress, None, own=build is not None)
        corpus, done = Corpus.open(folder / plan.corpus, "validation"), iter(range(len(schemes)))
        subjects = _subjects_of(folder, build, device)(plan)
        costs = calibrate(
            subjects, plan, corpus, schemes, device, lambda _: progress("timing", next(done), len(schemes))
        )
        del corpus
    if "steps" in settings or "minutes" in settings:
        steps = plan.training["steps"]
    else:
        steps = steps_within(budget or 60 * MINUTES_A_RUN * len(schemes) * number / workers, costs, number, workers)
    return Estimate(costs, steps, number, workers)


def _text(sources: str | Path | Sequence[str | Path], documents: Sequence[str] | None, tokenizer: str | None) -> Text:
    sources = [sources] if isinstance(sources, str | Path) else list(sources)
    if bool(sources) == (documents is not None):
        raise SettingError("sources", "be given, or documents instead", "neither or both", "Give one of the two")
    return Text(tuple(map(str, sources)), None if documents is None else tuple(documents), tokenizer)


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(seeds, int):
        check_at_least(1, seeds=seeds)
        return tuple(range(1, seeds + 1))
    for seed in seeds:
        check_at_least(0, seed=seed)
    if not seeds or len(set(seeds)) < len(seeds):
        raise SettingError("seeds", "be different numbers, at least one", list(seeds), "Give 3, say")
    return tuple(seeds)


def _check_steps(budget: float | None, settings: dict[str, Any]) -> None:
    if budget is None:
        return
    check_above_0("Give 2h, say", budget=budget)
    for name in ("steps", "minutes"):
        if name in settings:
            raise SettingError(name, "be left out with a budget, which decides it", settings[name], "Leave one out")


def _subjects_of(folder: Path, build: Build | None, device: str) -> Callable[[StudyPlan], Subjects]:
    if build is None:
        return lambda plan: SchemeModels(plan, folder / plan.corpus, device)
    return lambda plan: OwnModels(plan, folder / plan.corpus, build, device)
