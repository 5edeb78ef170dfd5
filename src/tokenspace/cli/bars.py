"""A bar for work that tells how much of which task is done."""

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tokenspace.cli.show import remarks


class Bars:
    """One bar on stderr for the work that is being done; on a terminal only."""

    def __init__(self) -> None:
        console = remarks()
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        self._bars = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._task = self._bars.add_task("", total=None)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, task: str, done: int, total: int) -> None:
        """Show how much of a task is done; one that cannot tell (0 of 1) shows that it is under way."""
        self._bars.update(self._task, description=task, completed=done, total=total if done or total > 1 else None)
