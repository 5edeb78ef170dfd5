"""What is asked of a study, checked; from it a plan in a folder, or an estimate."""

import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from tokenspace import positions
from tokenspace.corpus import Corpus
from tokenspace.errors import SettingError, TokenspaceError, check_above_0, check_at_least
from tokenspace.study.estimating import Cost, Estimate, calibrate, rounds_of, steps_within
from tokenspace.study.own_models import Build, OwnModels
from tokenspace.study.plan import StudyPlan, runs_of
from tokenspace.study.preparing import Progress, Text, check_same_study, make_plan
from tokenspace.study.running import has_figures
from tokenspace.study.subjects import SchemeModels, Subjects
from tokenspace.study.workers import worker_threads
from tokenspace.training import free_path
from tokenspace.training.processes import choose_device

SCHEMES = ("none", "learned", "sinusoidal", "rotary", "alibi", "t5", "shaw", "transformer_xl")
MINUTES_A_RUN = 10.0  # where nobody says how long
LEAST_MINUTES_A_RUN = 5.0  # a pilot on two cores needed twice as much to tell the schemes apart


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is asked of a study.

    Attributes:
        text: What is studied.
        schemes: Names of schemes; with `build`, whatever it knows.
        seeds: Of the runs of each scheme.
        build: Gives the caller's own models; see `compare`.
        budget: Seconds for all runs, on this machine; None for 10 minutes each. It decides the steps, once what they
            cost has been timed; not with ``steps``. A study that goes on keeps the steps it has.
        workers: Runs at once.
        force: Take a budget in which the schemes will hardly be told apart.
        device: "auto", "cpu", "cuda", …
        progress: Called before the runs with a task, how much of it is done, and how much there is.
        settings: Fields of `StudySettings`, `ModelConfig` and `TrainingConfig`.

    Raises:
        SettingError: a scheme is unknown, or a value is out of range.
    """

    text: Text
    schemes: tuple[str, ...] = SCHEMES
    seeds: tuple[int, ...] = (1, 2, 3)
    build: Build | None = None
    budget: float | None = None
    workers: int = 1
    force: bool = False
    device: str = "auto"
    progress: Progress = lambda task, done, total: None
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        sources: str | Path | Sequence[str | Path] = (),
        *,
        documents: Sequence[str] | None = None,
        tokenizer: str | Path | None = None,
        seeds: int | Sequence[int] = 3,
        **asked: Any,
    ) -> Self:
        """What a caller's words ask for.

        Args:
            sources: Files, folders, …; or one corpus folder.
            documents: Text in memory, instead of `sources`.
            tokenizer: As of `train`; "train:2048" by default.
            seeds: How many, from 1; or which.
            **asked: Other fields, and flat what `settings` holds.

        Raises:
            SettingError: as of the class.
        """
        sources = [sources] if isinstance(sources, str | Path) else list(sources)
        if bool(sources) == (documents is not None):
            raise SettingError("sources", "be given, or documents instead", "neither or both", "Give one of the two")
        if isinstance(documents, str):
            raise SettingError("documents", "be a list of texts", documents, "Write [text]")
        if not isinstance(tokenizer, str | Path | None):
            next_step = "Save it, and give the path"
            raise SettingError("tokenizer", "be 'gpt2', 'train:2048' or a path", type(tokenizer).__name__, next_step)
        tokenizer = None if tokenizer is None else str(tokenizer)
        text = Text(tuple(map(str, sources)), None if documents is None else tuple(documents), tokenizer)
        names = {one.name for one in fields(cls)} & asked.keys() - {"text", "settings"}
        own = {name: asked.pop(name) for name in names}
        if "schemes" in own:
            schemes = own["schemes"]
            own["schemes"] = (schemes,) if isinstance(schemes, str) else tuple(schemes)
        return cls(text=text, seeds=_seeds(seeds), **own, settings=asked)

    def __post_init__(self) -> None:
        check_at_least(1, workers=self.workers)
        choose_device(self.device)  # before the work, not after it
        _check_schemes(self.schemes, own=self.build is not None)
        if self.build is not None and not callable(self.build):
            raise SettingError("build", "be a function of a scheme's name", self.build, "Give one that returns a model")
        if self.build is not None and self.workers > 1:
            next_step = "Use 1; a model that is built by a function stays in its process"
            raise SettingError("workers", "be 1 with build", self.workers, next_step)
        if self.budget is not None:
            check_above_0("Give 7200.0 for two hours, say", budget=self.budget)
            if math.isinf(self.budget):
                raise SettingError("budget", "end", self.budget, "Give 7200.0 for two hours, say")
            for name in ("steps", "minutes"):
                if name in self.settings:
                    rule = "be left out with a budget, which decides it"
                    raise SettingError(name, rule, self.settings[name], "Leave one of them out")

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Scheme and seed of every run, in the order in which they are begun."""
        return runs_of(self.schemes, self.seeds)

    def prepare(self, out: Path | None) -> tuple[Path, StudyPlan]:
        """The folder of the study, made and planned, or found as it is.

        Raises:
            SettingError: `out` is the folder of something else or of another study, the budget is too small, or the
                text too short; nothing is left behind.
        """
        folder = free_path(Path("studies"), self.text.name) if out is None else out
        if StudyPlan.exists(folder):
            plan = StudyPlan.open(folder)
            check_same_study(plan, self.text, self.settings, self._is_own, folder)
            self._check_models(folder, plan, self._left(folder))
            return folder, plan
        if folder.exists() and (not folder.is_dir() or any(path.name != "corpus" for path in folder.iterdir())):
            raise SettingError("out", "be a study, or not exist yet", str(folder), "Give another path")
        self._check_budget()
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            plan = make_plan(self.text, folder, self.settings, self.progress, self._steps_in(folder), self._is_own)
            self._check_models(folder, plan, self.schemes)
        except TokenspaceError:
            if is_new:
                shutil.rmtree(folder)
            raise
        if StudyPlan.exists(folder):  # made by another process meanwhile
            return self.prepare(folder)
        plan.save(folder)
        return folder, plan

    def estimate(self, out: Path | None) -> Estimate:
        """How long the study takes here, or what is left of the one in `out`; nothing stays on disk.

        Raises:
            SettingError: the budget is too small, or the text too short.
        """
        if out is not None and StudyPlan.exists(out):
            plan = StudyPlan.open(out)
            check_same_study(plan, self.text, self.settings, self._is_own, out)
            left = self._left(out)
            costs = self._costs(out, plan, list(dict.fromkeys(left)))
            return Estimate(costs, plan.training["steps"], left, self.workers)
        self._check_budget()
        with tempfile.TemporaryDirectory() as name:
            plan = make_plan(self.text, Path(name), self.settings, self.progress, None, self._is_own)
            costs = self._costs(Path(name), plan, self.schemes)
        given = "steps" in self.settings or "minutes" in self.settings
        steps = plan.training["steps"] if given else self._steps(costs)
        return Estimate(costs, steps, [scheme for scheme, _ in self.runs], self.workers)

    @property
    def _is_own(self) -> bool:
        return self.build is not None

    def _subjects(self, folder: Path, plan: StudyPlan) -> Subjects:
        corpus = folder / plan.corpus
        if self.build is None:
            return SchemeModels(plan, corpus, self.device)
        return OwnModels(plan, corpus, self.build, self.device)

    def _steps_in(self, folder: Path) -> Callable[[StudyPlan], int]:
        return lambda plan: self._steps(self._costs(folder, plan, self.schemes))

    def _left(self, folder: Path) -> list[str]:
        """The scheme of each run that is not done."""
        return [scheme for scheme, seed in self.runs if not has_figures(folder, scheme, seed)]

    def _check_models(self, folder: Path, plan: StudyPlan, schemes: Sequence[str]) -> None:
        """Make each model once, so that none is refused after hours."""
        subjects = self._subjects(folder, plan)
        for scheme in dict.fromkeys(schemes):
            subjects.check(scheme)

    def _costs(self, folder: Path, plan: StudyPlan, schemes: Sequence[str]) -> dict[str, Cost]:
        corpus, number = Corpus.open(folder / plan.corpus, "validation"), iter(range(len(schemes)))
        self._check_models(folder, plan, schemes)

        def timing(scheme: str) -> None:
            self.progress("timing a few steps of each", next(number), len(schemes))

        threads = worker_threads(self.workers) if self.workers > 1 else None
        return calibrate(self._subjects(folder, plan), plan, corpus, schemes, self.device, threads, timing)

    def _steps(self, costs: dict[str, Cost]) -> int:
        seconds = self.budget or 60 * MINUTES_A_RUN * rounds_of(len(self.runs), self.workers)
        return steps_within(seconds, costs, [scheme for scheme, _ in self.runs], self.workers)

    def _check_budget(self) -> None:
        """Refuse a time in which no run can tell schemes apart, unless forced."""
        least = 60 * LEAST_MINUTES_A_RUN * rounds_of(len(self.runs), self.workers)
        if self.budget is not None and self.budget < least and not self.force:
            rule = f"give each of {len(self.runs)} runs {LEAST_MINUTES_A_RUN:.0f} minutes, {least / 60:.0f} in all"
            next_step = "Raise it, compare fewer schemes or seeds, or add --force (force=True)"
            raise SettingError("budget", rule, f"{self.budget / 60:.1f} minutes", next_step)


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    if not isinstance(seeds, Iterable):
        check_at_least(1, seeds=seeds)
        return tuple(range(1, seeds + 1))
    given = tuple(seeds)
    for seed in given:
        check_at_least(0, seed=seed)
    if not given or len(set(given)) < len(given):
        raise SettingError("seeds", "be different numbers, at least one", list(given), "Give 3, say")
    return given


def _check_schemes(schemes: Sequence[str], own: bool) -> None:
    """Refuse names that are no schemes, twice the same, or none at all."""
    if not schemes:
        raise SettingError("schemes", "name at least one", "none", "Give 'none' and 'rotary', say")
    for scheme in schemes:
        if schemes.count(scheme) > 1:
            raise SettingError("schemes", "name each once", scheme, "Leave out the second")
        if not isinstance(scheme, str):
            raise SettingError("schemes", "be names", scheme, "Give 'none' and 'rotary', say")
        if own and not scheme.replace("-", "_").isidentifier():
            rule = "be letters, digits, - and _, as they name folders"
            raise SettingError("schemes", rule, scheme, "Call it otherwise")
        if not own and scheme not in positions.available():
            positions.get(scheme)  # says which there are
