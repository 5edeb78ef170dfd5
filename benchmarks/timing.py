"""What the benchmarks share: functions that take turns, medians, and one line about the machine.

No statistics beyond the median, and nothing is printed here.
"""

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch


def machine() -> str:
    """Date, system, cores and versions, in one line."""
    return (
        f"{datetime.date.today()}, {platform.platform()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, torch {torch.__version__} with {torch.get_num_threads()} threads"
    )


def medians(functions: dict[str, Callable[[], object]], rounds: int, warmup: int = 3) -> dict[str, float]:
    """Median seconds of each function; they take turns, and every other round in reverse order."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(warmup + rounds):
        for name in sorted(functions, reverse=bool(number % 2)):
            begin = time.perf_counter()
            result = functions[name]()
            took = time.perf_counter() - begin
            del result  # given back outside the time of whoever made it, and before the next allocates
            if number >= warmup:
                seconds[name].append(took)
    return {name: statistics.median(times) for name, times in seconds.items()}


def markdown_row(*cells: object) -> str:
    """One line of a Markdown table; floats are milliseconds with two digits."""
    return f"| {' | '.join(f'{cell:.2f}' if isinstance(cell, float) else str(cell) for cell in cells)} |"
