"""Runs of a study in several processes, each of which takes the next run when it is done with one.

The processes are started as ``python -m tokenspace.study.worker``: runs go in as lines of
JSON, progress comes out. They end with their stdin, so that none outlives this process.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tokenspace.errors as errors
from tokenspace.study.running import RunProgress, Watcher


def do_runs(folder: Path, runs: Sequence[tuple[str, int]], workers: int, device: str, watch: Watcher) -> bool:
    """Train and measure runs in `workers` processes; the processors are shared evenly.

    Args:
        folder: Of the study.
        runs: Scheme and seed of each, in the order in which they are begun.
        workers: Processes.
        device: "auto", "cpu", "cuda", …
        watch: Called with the progress of all.

    Returns:
        Whether all are done; False where one was interrupted.

    Raises:
        TokenspaceError: what a run raised.
        ProcessError: a process ended.
    """
    waiting, messages = list(reversed(runs)), queue.Queue()
    pool = [_Worker(folder, device, worker_threads(workers), messages) for _ in range(min(workers, len(runs)))]
    busy = 0
    try:
        for worker in pool:
            worker.begin(*waiting.pop())
            busy += 1
        while busy:
            worker, message = messages.get()
            match message:
                case {"progress": fields}:
                    watch(RunProgress(**fields))
                case {"done": True}:
                    busy -= 1
                    if waiting:
                        worker.begin(*waiting.pop())
                        busy += 1
                case {"done": False}:
                    return False
                case {"error": kind, "args": args}:
                    raise getattr(errors, kind)(*args)
                case _:
                    next_step = "Look above for what it said, and go on with the same command"
                    raise errors.ProcessError("worker", "go on", f"ended (status {worker.status()})", next_step)
    except KeyboardInterrupt:
        return False
    finally:
        for worker in pool:
            worker.end()
    return True


def worker_threads(workers: int) -> int:
    """Processors of each worker."""
    return max(1, (os.cpu_count() or 1) // workers)


class _Worker:
    """One process, heard by a thread."""

    def __init__(self, folder: Path, device: str, threads: int, messages: queue.Queue) -> None:
        command = [sys.executable, "-m", "tokenspace.study.worker", str(folder), device, str(threads)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, **pipes, process_group=0)  # Ctrl-C reaches it through `end` alone
        self._messages = messages
        threading.Thread(target=self._hear, daemon=True).start()

    def begin(self, scheme: str, seed: int) -> None:
        """Give it a run."""
        try:
            self._process.stdin.write(json.dumps([scheme, seed]).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, which the thread tells

    def status(self) -> int:
        """With which it ended."""
        return self._process.wait()

    def end(self) -> None:
        """Let it end after its step at hand; its runs go on another time."""
        self._process.terminate()
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _hear(self) -> None:
        for line in self._process.stdout:
            self._messages.put((self, json.loads(line)))
        self._messages.put((self, {"ended": True}))


def progress_message(progress: RunProgress) -> dict[str, Any]:
    """What a worker sends of its progress."""
    return {"progress": asdict(progress)}
