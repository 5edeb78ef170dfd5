"""What a ledger knows at one step, as plain vectors: the content of ``ledger.safetensors``.

Needs no torch to be read. How the numbers come about is told in `tokenspace.ledger.ledger`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tokenspace.errors import CheckpointError
from tokenspace.files import write_file

STATES = ("seen as input", "seen as target only", "never seen, yet moved", "never moved")
COUNTS = ("input_count", "target_count", "last_input", "last_target")
LENGTHS = ("path", "displacement", "norm_start", "norm_now")
_METADATA = "ledger"


@dataclass(frozen=True, kw_only=True)
class LedgerRecord:
    """What a ledger knows at one step. All vectors have one number a row, and are read-only.

    Attributes:
        step: Optimiser steps taken.
        every: Steps between two measurements of one row, for `path`.
        input_count: int64; how often the token was an input.
        target_count: int64; how often it was a target.
        last_input: int64; the step (from 1) in which it last was an input, 0 for never.
        last_target: int64; the same for targets.
        path: float64; length of the polygon from a row's start through the places where it was
            measured to where it is now: at most the length of its true path, and no less
            than `displacement`.
        displacement: float64; straight from the start to where it is now.
        norm_start: float64; length of the vector at the start.
        norm_now: float64; length of the vector now.
    """

    step: int
    every: int
    input_count: np.ndarray
    target_count: np.ndarray
    last_input: np.ndarray
    last_target: np.ndarray
    path: np.ndarray
    displacement: np.ndarray
    norm_start: np.ndarray
    norm_now: np.ndarray

    def __post_init__(self) -> None:
        for name in (*COUNTS, *LENGTHS):
            getattr(self, name).flags.writeable = False

    @property
    def vocab_size(self) -> int:
        """Rows of the table."""
        return len(self.input_count)

    @property
    def states(self) -> np.ndarray:
        """For every row an index into `STATES`; each row has exactly one of the four."""
        seen_as_input, seen_as_target = self.input_count > 0, self.target_count > 0
        moved = (self.displacement != 0) | (self.path != 0)  # also where they are no longer numbers
        return np.select([seen_as_input, seen_as_target, moved], [0, 1, 2], default=3)

    def save(self, path: str | Path) -> None:
        """Write the record to a file, whole or not at all.

        Raises:
            DiskError: the disk is full; what was there before still is.
        """
        vectors = {name: getattr(self, name) for name in (*COUNTS, *LENGTHS)}
        # one entry: the library writes several in an order of its own
        metadata = {_METADATA: json.dumps({"step": self.step, "every": self.every})}
        write_file(Path(path), save(vectors, metadata))

    @classmethod
    def load(cls, path: str | Path, vocab_size: int | None = None) -> Self:
        """The record in a ``ledger.safetensors``.

        Args:
            path: The file.
            vocab_size: Rows that it must have; None for any number.

        Raises:
            CheckpointError: the file is missing or damaged, or was made for another vocabulary.
        """
        path = Path(path)
        try:
            with safe_open(path, framework="numpy") as file:
                fields = json.loads((file.metadata() or {})[_METADATA])
                vectors = {name: file.get_tensor(name) for name in (*COUNTS, *LENGTHS)}
            record = cls(step=fields["step"], every=fields["every"], **vectors)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise CheckpointError(str(path), "be a ledger that can be read", error, "Train again") from error
        if vocab_size is not None and record.vocab_size != vocab_size:
            next_step = "Use the ledger that was written beside this table"
            raise CheckpointError(str(path), f"have {vocab_size:,} rows", record.vocab_size, next_step)
        return record
