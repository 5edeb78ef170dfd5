"""Frames: the tables as they were on the way, for whoever wants to see them move.

    frames/<step>.safetensors         the input embedding's tables: float32 at step 0, later float16
    frames/projections.safetensors    when the run has ended: every frame's token table on 16 axes, float16

While a training goes on its frames are whole. When it ends, most of them are replaced by
their projections onto the first principal components of the last table; the first, the
last and a few between stay whole. Which steps are kept, `tokenspace.training` decides.

Axis letters: F frames, V vocabulary, D d_model, K components.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from tokenspace.checkpoint.components import Basis, principal_components
from tokenspace.errors import CheckpointError, SettingError
from tokenspace.files import write_file

_WHOLE = 5  # frames that stay whole: the first, the last and these between
_TABLE, _PROJECTIONS = "token.weight", "projections.safetensors"


@dataclass(frozen=True, eq=False)
class Projections:
    """The token table at every frame, on one basis: that of the last.

    Attributes:
        steps: Optimiser steps of the frames, in order.
        points: Where the rows stood, float16, (F, V, K); float32 holds nothing more of use to a picture.
        basis: The centre and the axes.
    """

    steps: list[int]
    points: Tensor
    basis: Basis


def frame_steps(folder: Path) -> list[int]:
    """The steps whose tables are kept whole, in order."""
    return sorted(int(path.stem) for path in (folder / "frames").glob("*.safetensors") if path.stem.isdigit())


def save_frame(folder: Path, step: int, embedding: nn.Module, dtype: torch.dtype | None = None) -> None:
    """Keep an input embedding's tables as they are, whole or not at all.

    Args:
        folder: The run.
        step: Optimiser steps taken.
        embedding: Rows that lag behind their optimiser are written as they stand.
        dtype: Of the floats on disk; None for their own.

    Raises:
        DiskError: the disk is full.
    """
    (folder / "frames").mkdir(exist_ok=True)
    tables = {
        name: tensor.to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
        for name, tensor in embedding.state_dict().items()
    }
    write_file(frame_path(folder, step), save(tables))


def load_frame(folder: Path, step: int) -> dict[str, Tensor]:
    """The tables of a frame that is kept whole.

    Raises:
        SettingError: there is none of this step.
        CheckpointError: the file is damaged, or that of step 0, which every run has, was removed.
    """
    path, steps = frame_path(folder, step), frame_steps(folder)
    if step == 0 and step not in steps:
        raise CheckpointError(str(path), "stay in the run folder", "missing", "Restore it")
    if step not in steps:
        raise SettingError("step", f"be one of {steps}", step, "Take one of these")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(str(path), "be whole", error, "Restore it" if step == 0 else "Remove it") from error


def frame_path(folder: Path, step: int) -> Path:
    """The file of a frame."""
    return folder / "frames" / f"{step:08d}.safetensors"


def projections_path(folder: Path) -> Path:
    """The file of the projections."""
    return folder / "frames" / _PROJECTIONS


def project_frames(folder: Path, steps: list[int], now_VD: Tensor, step: int) -> Projections:
    """The frames of these steps, which are kept whole, and the table of now, on the principal components of that.

    Args:
        folder: The run.
        steps: Of the frames, in order.
        now_VD: The token table at `step`, which is put last unless a frame of this step was kept.
        step: None of `steps` is above it.
    """
    basis = principal_components(now_VD)
    points = [basis.project(table_of_frame(folder, kept, now_VD)).half() for kept in steps]
    if step not in steps:
        steps, points = [*steps, step], [*points, basis.project(now_VD).half()]
    return Projections(steps, torch.stack(points), basis)


def table_of_frame(folder: Path, step: int, like: Tensor) -> Tensor:
    """The token table of a frame that is kept whole.

    Args:
        folder: The run.
        step: Of the frame.
        like: A table of the same run, for the shape.

    Raises:
        SettingError: there is none of this step.
        CheckpointError: the file is damaged, or of another table.
    """
    found = load_frame(folder, step).get(_TABLE)
    if found is None or found.shape != like.shape:
        rule, value = f"hold a {_TABLE} of shape {list(like.shape)}", None if found is None else list(found.shape)
        next_step = "Restore it" if step == 0 else "Remove it"
        raise CheckpointError(str(frame_path(folder, step)), rule, value, next_step)
    return found


def reduce_frames(folder: Path, last_VD: Tensor, step: int) -> None:
    """Put projections in the place of most frames; when killed on the way, call it again.

    Args:
        folder: A run that has ended.
        last_VD: Its token table.
        step: Its last.
    """
    if not projections_path(folder).exists():
        found = project_frames(folder, frame_steps(folder), last_VD, step)
        basis = {"mean": found.basis.mean, "components": found.basis.components, "explained": found.basis.explained}
        tensors = {"points": found.points, **basis}
        write_file(projections_path(folder), save(tensors, {"steps": json.dumps(found.steps)}))
    steps = load_projections(folder).steps
    whole = {steps[place] for place in np.linspace(0, len(steps) - 1, _WHOLE).round().astype(int)}
    for step in set(steps) - whole:
        frame_path(folder, step).unlink(missing_ok=True)


def load_projections(folder: Path) -> Projections:
    """What `reduce_frames` wrote.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = projections_path(folder)
    try:
        with safe_open(path, framework="pt") as file:
            steps = json.loads(file.metadata()["steps"])
            points, *basis = (file.get_tensor(name) for name in ("points", "mean", "components", "explained"))
        if len(points) != len(steps) or points.dim() != 3:
            raise ValueError(f"{len(steps)} steps with points of shape {tuple(points.shape)}")
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(str(path), "be whole", error, "Remove it") from error
    return Projections(steps, points, Basis(*basis))
