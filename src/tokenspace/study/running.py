"""One run of a study from its first step to its figures, and all of them one after another.

A run that was stopped goes on where it stopped; one whose figures are there is done. Of two
processes that are at the same run, one waits for the other.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenspace.corpus import Corpus
from tokenspace.errors import CheckpointError
from tokenspace.files import read_sealed_json, sealed_json, write_file
from tokenspace.study.measuring import Measurer
from tokenspace.study.plan import StudyPlan, run_name
from tokenspace.study.subjects import SchemeModels, Subjects
from tokenspace.training.records import Record, StepRecord


@dataclass(frozen=True)
class RunProgress:
    """How far one run of a study is.

    Attributes:
        run: Its name.
        task: What is being done.
        done: How much of it.
        total: How much there is.
        loss: Of the last training step; None outside training.
    """

    run: str
    task: str
    done: int
    total: int
    loss: float | None = None


WAITING = "waiting for another process that is at it"
Watcher = Callable[[RunProgress], None]


def do_run(folder: Path, scheme: str, seed: int, device: str, watch: Watcher, subjects: Subjects | None = None) -> bool:
    """Train and measure one run of the study in `folder`, or what is left of it.

    Args:
        folder: Of the study.
        scheme: Of the run.
        seed: Of the run.
        device: "auto", "cpu", "cuda", …
        watch: Called as it goes on.
        subjects: Whose models are compared; None for this package's.

    Returns:
        Whether it is done; False where it was interrupted.
    """
    name = run_name(scheme, seed)
    with _alone(_figures_path(folder, scheme, seed), lambda: watch(RunProgress(name, WAITING, 0, 1))):
        if has_figures(folder, scheme, seed):
            return True
        return _do_run(folder, scheme, seed, device, watch, subjects)


def _do_run(folder: Path, scheme: str, seed: int, device: str, watch: Watcher, subjects: Subjects | None) -> bool:
    plan, name = StudyPlan.open(folder), run_name(scheme, seed)
    corpus = folder / plan.corpus
    subjects = subjects or SchemeModels(plan, corpus, device)
    path, steps = folder / "runs" / name, plan.training["steps"]

    def heard(record: Record) -> None:
        if isinstance(record, StepRecord):
            watch(RunProgress(name, "training", record.step, steps, record.loss))

    watch(RunProgress(name, "training", 0, steps))
    model = subjects.train(path, scheme, seed, heard)
    if model is None:
        return False
    measurer = Measurer(plan, subjects, Corpus.open(corpus, "validation"), device)
    figures = measurer.figures(
        model,
        scheme,
        seed,
        path / "metrics.jsonl",
        lambda task, done, total: watch(RunProgress(name, task, done, total)),
    )
    figures |= {"corpus": plan.corpus_identity, "plan": plan.digest}
    write_file(_figures_path(folder, scheme, seed), sealed_json(figures))
    return True


@contextlib.contextmanager
def _alone(path: Path, waits: Callable[[], None]) -> Iterator[None]:
    """Keep other processes from what makes the file `path`; a process that ends, however, lets go. Not on Windows."""
    path.parent.mkdir(exist_ok=True)
    if os.name == "nt":
        yield
        return
    import fcntl

    with path.with_name(f".{path.stem}.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def has_figures(folder: Path, scheme: str, seed: int) -> bool:
    """Whether a run is done."""
    return _figures_path(folder, scheme, seed).exists()


def read_figures(folder: Path, scheme: str, seed: int) -> dict:
    """The figures of a run that is done.

    Raises:
        CheckpointError: they were altered, or are of another study.
    """
    path = _figures_path(folder, scheme, seed)
    figures, plan = read_sealed_json(path), StudyPlan.open(folder)
    found = (figures["scheme"], figures["seed"], figures["corpus"], figures.get("plan", plan.digest))  # once without it
    if found != (scheme, seed, plan.corpus_identity, plan.digest):
        raise CheckpointError(str(path), "be of this study", "of another one", "Remove it; the run is measured anew")
    return figures


def _figures_path(folder: Path, scheme: str, seed: int) -> Path:
    return folder / "figures" / f"{run_name(scheme, seed)}.json"
