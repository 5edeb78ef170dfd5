"""The file of a training's records, as a checkpoint left it."""

from pathlib import Path
from typing import BinaryIO

from tokenspace.errors import CheckpointError


def open_metrics(path: Path, end: int) -> BinaryIO:
    """Open ``metrics.jsonl`` to go on after its first `end` bytes; what stands beyond is cut off.

    Raises:
        CheckpointError: the file cannot be written, is shorter, or has no end of a line there.
    """
    try:
        size = path.stat().st_size
        file = path.open("rb+")
    except OSError as error:
        rule = "be a file that can be written"
        raise CheckpointError(str(path), rule, error.strerror or str(error), "Restore the file") from error
    file.seek(max(0, end - 1))
    if size < end or (end and file.read(1) != b"\n"):
        file.close()
        rule = f"hold the {end} bytes of records that the checkpoint counted"
        raise CheckpointError(str(path), rule, "shorter" if size < end else "altered", "Restore the file")
    file.truncate(end)
    return file
