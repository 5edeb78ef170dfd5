"""Ctrl-C and SIGTERM as a wish to stop after the step at hand, instead of in the middle of it.

SIGTERM is what torchrun, Slurm and Kubernetes send some seconds before they kill.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether Ctrl-C was pressed, or SIGTERM sent, inside the block.

    A second one interrupts at once. Outside the main thread, where Python allows no
    signal handlers, the function always says no.

    Example:
        >>> with stop_on_interrupt() as stopped:
        ...     stopped()
        False
    """
    pressed = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if pressed.is_set():
            signal.default_int_handler(number, frame)
        pressed.set()

    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield pressed.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
