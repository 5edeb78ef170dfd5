"""Keeps frames of a training: the tables as they are at some steps, more of them early, when most moves.

Looks only: nothing here changes what follows. A killed training that goes on writes the same frames again.
"""

from pathlib import Path

import torch

from tokenspace.checkpoint.frames import frame_path, frame_steps, projections_path, reduce_frames, save_frame
from tokenspace.embedding import InputEmbedding


class FrameKeeper:
    """Writes the frames of one training; only the process that writes checkpoints has one.

    What a killed training left beyond its latest checkpoint is removed.

    Args:
        folder: The run.
        embedding: What is kept of the model.
        frames: How many, the last step's among them, beside that of step 0.
        steps: Of the whole training.
        step: Where it goes on.
    """

    def __init__(self, folder: Path, embedding: InputEmbedding, frames: int, steps: int, step: int) -> None:
        self._folder, self._embedding = folder, embedding
        self._due, self._last = set(steps_of_frames(steps, frames)), steps
        leftovers = [*(folder / "frames").glob(".*.part")]
        leftovers += [frame_path(folder, kept) for kept in frame_steps(folder) if kept > step]
        leftovers += [projections_path(folder)] if step < steps else []
        for path in leftovers:
            path.unlink(missing_ok=True)

    def keep(self, step: int) -> None:
        """Write a frame if one is due at this step.

        Raises:
            DiskError: the disk is full.
        """
        if step in self._due:
            save_frame(self._folder, step, self._embedding, torch.float16)

    def finish(self, step: int) -> None:
        """When the training has ended and its checkpoint is on the disk: make the frames small."""
        if step == self._last and self._due:
            reduce_frames(self._folder, self._embedding.state_dict()["token.weight"].cpu(), step)


def steps_of_frames(steps: int, frames: int) -> list[int]:
    """After which steps a frame is kept; the gaps between them grow evenly.

    Args:
        steps: Of the training.
        frames: How many; fewer where there are fewer steps. The last step is always one of them.

    Example:
        >>> steps_of_frames(1000, 8)
        [16, 63, 141, 250, 391, 563, 766, 1000]
        >>> steps_of_frames(3, 24)
        [1, 2, 3]
    """
    frames = min(frames, steps)
    return [max(number, int(steps * (number / frames) ** 2 + 0.5)) for number in range(1, frames + 1)]
