"""``python -m tokenspace.study.worker STUDY DEVICE THREADS``: does the runs that come in on stdin.

The other end of `workers`. Each line in is a scheme and a seed; each line out is progress, the
end of a run, or an error.
"""

import json
import sys
import time
from pathlib import Path
from typing import BinaryIO

import torch

from tokenspace.errors import TokenspaceError
from tokenspace.study.running import RunProgress, do_run
from tokenspace.study.workers import progress_message

_SECONDS_BETWEEN = 0.2


def main(folder: Path, device: str, threads: int, runs: BinaryIO, messages: BinaryIO) -> None:
    """Serve until `runs` ends."""
    torch.set_num_threads(threads)
    sent = 0.0

    def send(**message: object) -> None:
        messages.write(json.dumps(message).encode() + b"\n")
        messages.flush()

    def watch(progress: RunProgress) -> None:
        nonlocal sent
        if time.monotonic() - sent > _SECONDS_BETWEEN:
            sent = time.monotonic()
            send(**progress_message(progress))

    try:
        for line in runs:
            scheme, seed = json.loads(line)
            send(done=do_run(folder, scheme, seed, device, watch))
    except TokenspaceError as error:
        name, rule, value, next_step = error.args
        send(error=type(error).__name__, args=[name, rule, str(value), next_step])
    except (BrokenPipeError, KeyboardInterrupt):
        pass  # the driver is gone, or was interrupted too


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.stdin.buffer, sys.stdout.buffer)
