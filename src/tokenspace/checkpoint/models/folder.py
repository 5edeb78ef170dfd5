"""The files of a model folder: which of them holds which tensor. Only the files of wanted tensors are opened.

``model.safetensors``, its shards with an index, ``pytorch_model.bin`` or its shards. A file
that a link or an index places outside the folder is refused; in the Hugging Face cache, where
a snapshot is links to ``blobs``, outside of that model's part of the cache.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokenspace.checkpoint.models.others import other_forms_in
from tokenspace.checkpoint.models.safetensors_file import read_header
from tokenspace.checkpoint.models.table import Table
from tokenspace.errors import CheckpointError

_FILES = ("model.safetensors", "pytorch_model.bin")  # the first that is there counts, single or as an index
_SAVE_AGAIN = "Save the model again with save_pretrained"


class ModelFolder:
    """A folder with a config.json and tensors.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._headers: dict[Path, dict[str, Table]] = {}

    def json(self, name: str) -> dict[str, Any]:
        """The fields of a JSON file of this folder.

        Raises:
            CheckpointError: it is missing, no JSON object, or outside.
        """
        path = self.file(name)
        try:
            fields = json.loads(path.read_bytes())
        except OSError as error:
            next_step = "Give a folder that save_pretrained wrote"
            found = error.strerror or error
            raise CheckpointError(str(path), "be a file that can be read", found, next_step) from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(str(path), "be whole JSON", f"damaged ({error})", _SAVE_AGAIN) from error
        if not isinstance(fields, dict):
            raise CheckpointError(str(path), "be a JSON object", type(fields).__name__, _SAVE_AGAIN)
        return fields

    def file(self, name: str) -> Path:
        """The path of a file of this folder, which need not be there.

        Raises:
            CheckpointError: the name, or a link, leads outside.
        """
        path = self.path / name
        if set(name) & set("/\\:") or name in ("", ".", ".."):
            raise CheckpointError(f"a file of {self.path}", "have a plain name", name, _SAVE_AGAIN)
        if not path.resolve().is_relative_to(_bounds(self.path.resolve())):
            next_step = "Put the file itself there, if you trust it"
            raise CheckpointError(str(path), "lie in its folder", f"a link to {path.resolve()}", next_step)
        return path

    def check_layers(self, config: Mapping[str, Any]) -> None:
        """Refuse a config that names more layers than there are tensors: layers are built before they are filled.

        Raises:
            CheckpointError: it does; or a file leads out of the folder.
        """
        names = ("num_hidden_layers", "num_layers", "num_decoder_layers", "n_layer")
        layers = max((n for n in map(config.get, names) if isinstance(n, int)), default=0)
        if layers > len(self.keys):
            rule = f"name no more layers than its files hold, which have {len(self.keys):,} tensors"
            raise CheckpointError(str(self.path / "config.json"), rule, layers, "Restore the config of the model")

    def copy_file(self, name: str, out: Path) -> None:
        """Copy a file of the folder as it is.

        Raises:
            CheckpointError: it is no file, or leads out of the folder.
        """
        path = self.file(name)
        if not path.is_file():
            raise CheckpointError(str(path), "be a file", "a link to nothing, or a device", "Remove it")
        shutil.copyfile(path, out / name)

    @cached_property
    def keys(self) -> frozenset[str]:
        """The names of all tensors; of shards, as the index says."""
        return frozenset(self._file_of)

    @cached_property
    def files(self) -> dict[Path, frozenset[str]]:
        """The files, each with the names of the tensors it should hold."""
        keys: dict[Path, set[str]] = {}
        for key, file in self._file_of.items():
            keys.setdefault(file, set()).add(key)
        return {file: frozenset(own) for file, own in keys.items()}

    def keys_in(self, file: Path) -> frozenset[str]:
        """The names of the tensors that a file does hold.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        return frozenset(self._read(file))

    def table(self, key: str) -> Table:
        """A tensor of `keys`.

        Raises:
            CheckpointError: its file is missing or damaged, or lacks it.
        """
        file = self._file_of[key]
        tables = self._read(file)
        if key not in tables:
            next_step = f"Make the index again: {_SAVE_AGAIN.lower()}" if file.name not in _FILES else _SAVE_AGAIN
            raise CheckpointError(str(file), f"hold {key}", "without, or of a type torch lacks", next_step)
        return tables[key]

    @cached_property
    def _file_of(self) -> dict[str, Path]:
        for name in _FILES:
            if self.file(name).exists():
                file = self.file(name)
                return dict.fromkeys(self._read(file), file)
            if self.file(f"{name}.index.json").exists():
                return dict(self._shards(f"{name}.index.json", Path(name).suffix))
        rule = f"hold {' or '.join(_FILES)}, or the index of its shards"
        found, next_step = other_forms_in(self.path) or ("without", _SAVE_AGAIN)
        raise CheckpointError(str(self.path), rule, found, next_step)

    def _shards(self, index: str, suffix: str) -> Iterator[tuple[str, Path]]:
        weight_map = self.json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise CheckpointError(f"weight_map of {self.path / index}", "be an object", weight_map, _SAVE_AGAIN)
        files: dict[str, Path] = {}
        for key, name in weight_map.items():
            if not isinstance(name, str) or not name.endswith(suffix):
                raise CheckpointError(str(self.path / index), f"name {suffix} files of its folder", name, _SAVE_AGAIN)
            if name not in files:
                files[name] = self.file(name)
            yield key, files[name]

    def _read(self, file: Path) -> dict[str, Table]:
        if file not in self._headers:
            read = read_header if file.suffix == ".safetensors" else read_pickled
            self._headers[file] = read(file)
        return self._headers[file]


def read_pickled(path: Path) -> dict[str, Table]:
    """The tensors of a ``pytorch_model.bin``, mapped; anything but plain tensors is refused.

    Raises:
        CheckpointError: it is damaged, or holds more than a state dict of tensors.
    """
    try:
        # never code; a file of torch before 1.6 cannot be mapped and is read whole
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip(path))
    except Exception as error:  # a damaged file makes torch's reader raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(str(path), "be a whole file of plain tensors", reason, _SAVE_AGAIN) from error
    plain = isinstance(tensors, dict) and all(
        type(tensor) in (Tensor, nn.Parameter) and isinstance(key, str) for key, tensor in tensors.items()
    )
    if not plain:
        raise CheckpointError(str(path), "be a state dict", f"a {type(tensors).__name__} of other things", _SAVE_AGAIN)
    return {
        key: Table(path, key, tuple(tensor.shape), tensor.dtype, tensor.detach().contiguous)
        for key, tensor in tensors.items()
        if tensor.layout == torch.strided and not tensor.is_meta and _has_all_its_bytes(tensor)
    }


def _has_all_its_bytes(tensor: Tensor) -> bool:
    """Transposed ones have; one stretched over a few bytes has not, and could be of any size."""
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.itemsize


def is_zip(path: Path) -> bool:
    """Whether a pickled file is of torch 1.6 or later, which can be mapped."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _bounds(folder: Path) -> Path:
    """What a folder's links may lead to: itself; of a snapshot in the Hugging Face cache, its model."""
    in_cache = folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")
    return folder.parent.parent if in_cache else folder
