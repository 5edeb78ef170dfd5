"""Whose models are compared: this package's, by the name of their scheme.

`measuring` and `estimating` know a subject only by what `Subjects` says; the caller's own
models are in `own_models`.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from tokenspace import training
from tokenspace.checkpoint import Run
from tokenspace.errors import CheckpointError
from tokenspace.model import LanguageModel
from tokenspace.study.plan import StudyPlan
from tokenspace.study.tasks import NUM_IDS
from tokenspace.training.objective import Objective, objective_of
from tokenspace.training.records import Record

Watcher = Callable[[Record], None]


class Subjects(Protocol):
    """The models of a study: one for each scheme and seed."""

    def check(self, scheme: str) -> None:
        """Refuse a scheme of which no such model can be made."""

    def fresh(self, scheme: str, seed: int) -> nn.Module:
        """The model before training, on the CPU."""

    def fresh_for_tasks(self, scheme: str, seed: int, window: int) -> tuple[nn.Module, Objective]:
        """A model to be trained on windows of `window` tokens of the trained probes."""

    def objective(self) -> Objective:
        """What the models are asked about text."""

    def vocab_size(self) -> int:
        """Logits at each place."""

    def train(self, folder: Path, scheme: str, seed: int, watch: Watcher) -> nn.Module | None:
        """Train, or go on training, in a run folder; None where it was stopped before its end."""


class SchemeModels:
    """`LanguageModel` with each scheme.

    Args:
        plan: Of the study.
        corpus: The corpus folder.
        device: Where they are trained.
    """

    def __init__(self, plan: StudyPlan, corpus: Path, device: str = "auto") -> None:
        self._plan, self._corpus, self._device = plan, corpus, device

    def check(self, scheme: str) -> None:
        """See `Subjects`.

        Raises:
            SettingError: the scheme's settings, or the model's sizes, do not suit it.
        """
        self.fresh(scheme, 0)

    def fresh(self, scheme: str, seed: int) -> nn.Module:
        """See `Subjects`."""
        return seeded(seed, lambda: LanguageModel(self._plan.model_config(scheme)))

    def fresh_for_tasks(self, scheme: str, seed: int, window: int) -> tuple[nn.Module, Objective]:
        """See `Subjects`; with a vocabulary as small as the tasks are, and one token that hides others."""
        config = replace(
            self._plan.model_config(scheme), vocab_size=NUM_IDS + 1, context_length=window, memory_length=0, dropout=0.0
        )
        return seeded(seed, lambda: LanguageModel(config)), objective_of(config)

    def objective(self) -> Objective:
        """See `Subjects`."""
        return objective_of(self._plan.model_config("none"))

    def vocab_size(self) -> int:
        """See `Subjects`."""
        return self._plan.model["vocab_size"]

    def train(self, folder: Path, scheme: str, seed: int, watch: Watcher) -> nn.Module | None:
        """See `Subjects`.

        Raises:
            CheckpointError: the folder is that of another training.
        """
        model, steps = asdict(self._plan.model_config(scheme)), asdict(self._plan.training_config(seed))
        if folder.exists():
            run = Run.open(folder)
            self._check_same(run, {"model": model, "training": steps})
            run = training.resume(run, device=self._device, watch=watch)
        else:
            run = training.train(
                self._corpus, out=folder, device=self._device, watch=watch, model=model, training=steps
            )
        return run.model() if run.step >= steps["steps"] else None

    def _check_same(self, run: Run, expected: dict[str, dict[str, Any]]) -> None:
        found = {**run.config, "corpus": run.config["corpus"]["identity"]}
        for name, value in {**expected, "corpus": self._plan.corpus_identity}.items():
            if found.get(name) != value:
                rule = f"be a run of this study, with its [{name}]"
                next_step = "Move it away, or give another --out"
                raise CheckpointError(str(run.path), rule, "a run of another one", next_step)


def seeded(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` draws when torch's generator starts from `seed`; the caller's generator is left alone."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return build()
