"""A study as it is seen on a terminal: a bar for each run at work, a line for each that is done."""

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tokenspace.cli.show import counted, remarks
from tokenspace.study import RunProgress, Study
from tokenspace.study.running import WAITING


class StudyWatcher:
    """Shows the progress of a study on stderr; use it as a context manager."""

    def __init__(self) -> None:
        self._console = remarks()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[info]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._at: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._bars.stop()

    def prepare(self, task: str, done: int, total: int | None) -> None:
        """Show work before the runs."""
        self._show(task, task, done, total, "")

    def begin(self, study: Study) -> None:
        """Say what is going to be done."""
        self._clear()
        plan, done = study.plan, len(study.figures)
        training = plan.training
        of = f"{counted(len(study.schemes), 'scheme')}, {counted(len(study.seeds), 'seed')}"
        steps, windows = counted(training["steps"], "step"), counted(training["batch_size"], "window")
        self._console.print(
            f"{counted(len(study.runs), 'run')} ({of}), {done} done; "
            f"each {steps} of {windows} of {plan.context_length} tokens",
            soft_wrap=True,
        )

    def __call__(self, progress: RunProgress) -> None:
        """Show how far a run is."""
        if self._at.get(progress.run) != progress.task:
            self._at[progress.run] = progress.task
            if progress.task in ("training", "loss by position", WAITING):
                self._console.print(f"{progress.run}: {progress.task}")
        info = progress.task if progress.loss is None else f"loss {progress.loss:.3f}"
        self._show(progress.run, progress.run, progress.done, progress.total, info)

    def _show(self, key: str, description: str, done: int, total: int | None, info: str) -> None:
        self._bars.start()
        if key not in self._tasks:
            if len(self._tasks) > 7:  # those begun first are done
                first = next(iter(self._tasks))
                self._bars.remove_task(self._tasks.pop(first))
            self._tasks[key] = self._bars.add_task(description, total=total, info=info)
        self._bars.update(self._tasks[key], completed=done, total=total, info=info)

    def _clear(self) -> None:
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._tasks.clear()
