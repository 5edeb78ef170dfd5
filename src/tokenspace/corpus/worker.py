"""``python -m tokenspace.corpus.worker``: runs the tasks that come in on stdin.

The other end of `engines.LocalEngine`. Each line in is JSON, the place of a corpus and the number of a
task. So is each line out: bytes and tokens since the last, the number of a task that is done, or an
error. It ends when stdin does, so that none outlives its driver.
A process made in this way needs no main module that can be imported, as `multiprocessing` does.
"""

import importlib
import json
import sys
import time
from typing import Any, BinaryIO

from tokenspace.corpus.task import Job
from tokenspace.errors import TokenspaceError
from tokenspace.store import Store

_SECONDS_BETWEEN = 0.1


def main(tasks: BinaryIO, messages: BinaryIO) -> None:
    """Serve until `tasks` ends."""
    importlib.import_module("pyarrow.parquet")  # needed at the end of a task; the first is still being planned
    line, job = _Line(messages), None
    try:
        for task in tasks:
            place, index = json.loads(task)
            if job is None or job.store.place != place:
                job = Job.open(Store.of(place))
            job.run(index, line.advance)
            line.flush()
            line.send(done=index)
    except TokenspaceError as error:
        line.send(error=type(error).__name__, args=[*error.args[:2], str(error.args[2]), error.args[3]])
    except BrokenPipeError:
        pass  # the driver is gone


class _Line:
    """Sends messages; counts are gathered, for a source may be a file of a few bytes."""

    def __init__(self, messages: BinaryIO) -> None:
        self._messages = messages
        self._bytes = self._tokens = 0
        self._sent = time.monotonic()

    def advance(self, num_bytes: int, num_tokens: int) -> None:
        self._bytes += num_bytes
        self._tokens += num_tokens
        if time.monotonic() - self._sent > _SECONDS_BETWEEN:
            self.flush()

    def flush(self) -> None:
        self.send(bytes=self._bytes, tokens=self._tokens)
        self._bytes = self._tokens = 0
        self._sent = time.monotonic()

    def send(self, **message: Any) -> None:
        self._messages.write(json.dumps(message).encode() + b"\n")
        self._messages.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
