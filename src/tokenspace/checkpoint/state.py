"""Checkpoints: everything a training needs to go on as if it had never stopped.

A checkpoint is a folder ``checkpoints/<step>/`` with ``model.safetensors``,
``training.safetensors`` (tensors of optimiser, ledger and memory, random generators) and ``state.json``
(the numbers, and a checksum of each file). It is written aside and renamed; the file
``checkpoints/latest``, replaced last, says which one counts. Nothing is pickled.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tokenspace.errors import CheckpointError
from tokenspace.files import file_sha256, new_folder, read_sealed_json, sealed_json, write_file

_MODEL, _TRAINING, _STATE, _LATEST = "model.safetensors", "training.safetensors", "state.json", "latest"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint holds beyond the tensors of model and optimiser, which go to their owners.

    Attributes:
        step: Optimiser steps taken.
        loader: The loader's state: what was consumed, not what was prefetched.
        metrics_bytes: Length of ``metrics.jsonl`` when the checkpoint was made.
        generators: State of the random generators, uint8, by device.
        memory: What a model with memory looks back on, by layer.
        ledger: State of the ledger; empty where there is none.
    """

    step: int
    loader: dict[str, Any]
    metrics_bytes: int
    generators: dict[str, Tensor]
    memory: dict[str, Tensor] = field(default_factory=dict)
    ledger: dict[str, Tensor] = field(default_factory=dict)


def save_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    keep: int = 2,
) -> Path:
    """Write a checkpoint, make it the latest, and remove all but the newest `keep`.

    Args:
        folder: The run's ``checkpoints`` folder; made if missing.
        checkpoint: Step, loader state, generators.
        model: Its state dict is stored; a tensor that two names share, once.
        optimizer: Its state dict is stored.
        keep: How many checkpoints stay.

    Raises:
        DiskError: the disk is full; the latest checkpoint is still the one before.
    """
    path = folder / f"{checkpoint.step:08d}"
    with new_folder(path) as part:
        save_file(model_tensors(model), part / _MODEL, metadata={"format": "pt"})
        tensors, groups = _optimizer_parts(optimizer)
        parts = {"generator": checkpoint.generators, "memory": checkpoint.memory, "ledger": checkpoint.ledger}
        for owner, owned in parts.items():
            tensors |= {f"{owner}.{name}": tensor.contiguous() for name, tensor in owned.items()}
        save_file(tensors, part / _TRAINING)
        state = {
            "step": checkpoint.step,
            "loader": checkpoint.loader,
            "metrics_bytes": checkpoint.metrics_bytes,
            "optimizer_groups": groups,
            "files": {name: file_sha256(part / name) for name in (_MODEL, _TRAINING)},
        }
        (part / _STATE).write_bytes(sealed_json(state))
    write_file(folder / _LATEST, f"{path.name}\n".encode())
    for old in _step_folders(folder)[:-keep]:
        shutil.rmtree(old)
    return path


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, clean: bool = True
) -> Checkpoint:
    """Put the latest checkpoint into a model and its optimiser; returns the rest.

    Args:
        folder: The run's ``checkpoints`` folder.
        model: Its tensors are overwritten.
        optimizer: Its state is replaced.
        clean: Whether what a killed training left beyond its latest checkpoint is removed, once that one is
            found whole; of several processes one does it.

    Raises:
        CheckpointError: there is none, or a file is missing, damaged or made for another model.
    """
    path = latest_checkpoint(folder)
    state = read_sealed_json(path / _STATE)
    load_model(path, model)
    tensors = _read_tensors(path, _TRAINING, state)
    _restore_optimizer(optimizer, tensors, state["optimizer_groups"])
    leftovers = [*folder.glob(".*.part"), *(p for p in _step_folders(folder) if p.name > path.name)]
    for leftover in leftovers if clean else ():
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    return Checkpoint(
        step=state["step"],
        loader=state["loader"],
        metrics_bytes=state["metrics_bytes"],
        generators=_owned("generator", tensors),
        memory=_owned("memory", tensors),
        ledger=_owned("ledger", tensors),
    )


def latest_checkpoint(folder: Path) -> Path:
    """The folder of the checkpoint that counts.

    Raises:
        CheckpointError: there is none.
    """
    try:
        name = (folder / _LATEST).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(str(folder / _LATEST), "name the latest checkpoint", "missing", "Train again") from error
    path = folder / name
    if not name.isdigit() or not path.is_dir():
        raise CheckpointError(str(folder / _LATEST), "name a checkpoint folder", name, "Write a step's name into it")
    return path


def load_model(path: Path, model: nn.Module) -> None:
    """Put the tensors of the checkpoint folder `path` into a model of the same shape.

    Raises:
        CheckpointError: a file is missing, damaged or made for another model.
    """
    load_tensors(model, _read_tensors(path, _MODEL, read_sealed_json(path / _STATE)), path / _MODEL)


def load_tensors(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Put these tensors, as `model_tensors` gives them, into a model of the same shape; `path` names them.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape.
    """
    expected = model_tensors(model)
    for name in sorted(expected.keys() | tensors.keys()):
        wanted, found = (list(side[name].shape) if name in side else "absent" for side in (expected, tensors))
        if wanted != found:
            raise CheckpointError(f"{name} in {path}", f"be {wanted}", found, "Open it with its own config")
    model.load_state_dict(tensors, strict=False)  # strict would ask for the second name of a tied table


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A model's state dict in which a tensor that two names share stands once, under the first."""
    tensors, seen = {}, set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen or not tensor.numel():
            tensors[name] = tensor.contiguous()
        seen.add(tensor.data_ptr())
    return tensors


def _read_tensors(path: Path, name: str, state: dict[str, Any]) -> dict[str, Tensor]:
    file = path / name
    try:
        found = file_sha256(file)
        if found != state["files"][name]:
            raise CheckpointError(str(file), "be as it was written", "altered or cut", "Use another checkpoint")
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(str(file), "be a whole safetensors file", error, "Use another checkpoint") from error


def _owned(owner: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(f"{owner}."): t for n, t in tensors.items() if n.startswith(f"{owner}.")}


def _step_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit())


def _optimizer_parts(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Tensors by name ``optimizer.<parameter>.<field>``, and the groups as plain numbers."""
    state = optimizer.state_dict()
    tensors = {
        f"optimizer.{parameter}.{field}": torch.as_tensor(value)
        for parameter, fields in state["state"].items()
        for field, value in fields.items()
    }
    return tensors, state["param_groups"]


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        owner, *rest = name.split(".")
        if owner == "optimizer":
            parameter, field = rest
            state.setdefault(int(parameter), {})[field] = tensor
    try:
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except (ValueError, KeyError) as error:
        raise CheckpointError("optimizer state", "fit the model", error, "Resume with the run's own config") from error
