"""Studies as a whole: begin one or go on with it, open one that is there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tokenspace.errors import SettingError, check_at_least
from tokenspace.study.plan import StudyPlan
from tokenspace.study.preparing import (
    Text,
    check_budget,
    check_same_study,
    check_schemes,
    make_plan,
    scheme_models,
    steps_for,
)
from tokenspace.study.running import RunProgress, do_run, has_figures, read_figures
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
