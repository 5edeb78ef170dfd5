"""The header of a safetensors file: which tensors it holds and where, checked before anything is read.

Nothing is allocated on the word of the file: lengths and offsets are compared with its size first.

Source: github.com/huggingface/safetensors, "Format"; the checks are those of its own reader.
"""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from tokenspace.checkpoint.models.table import Table, map_tensor
from tokenspace.errors import CheckpointError

_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_header(path: Path) -> dict[str, Table]:
    """The tensors of a safetensors file by name; those of types that torch lacks are left out.

    Raises:
        CheckpointError: it is no such file, or its header contradicts itself or the file's size.
    """
    return read_header_and_metadata(path)[0]


def read_header_and_metadata(path: Path) -> tuple[dict[str, Table], dict[str, str]]:
    """The tensors as `read_header` gives them, and the file's free text by name."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 0 < length <= min(_LONGEST_HEADER, size - 8):
                _refuse(path, f"{length:,} bytes long in a file of {size:,}")
            text = file.read(length)
    except OSError as error:
        rule = "be a file that can be read"
        raise CheckpointError(str(path), rule, error.strerror or error, "Check the path and its rights") from error
    try:
        header = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"no JSON ({error})", error)
    if not isinstance(header, dict):
        _refuse(path, type(header).__name__)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        _refuse(path, "with metadata that is no text")
    return _tables(path, header, 8 + length, size), metadata


def _tables(path: Path, header: dict[str, Any], first: int, size: int) -> dict[str, Table]:
    """Every entry checked; together they must cover the data without gap or overlap."""
    places, tables = [], {}
    for key, entry in header.items():
        try:
            name, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        except (TypeError, KeyError, ValueError) as error:
            _refuse(path, f"without dtype, shape and data_offsets of {key!r}", error)
        if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)) or not isinstance(name, str):
            _refuse(path, f"without whole numbers for {key!r}")
        places.append((begin, end, key))
        dtype = _DTYPES.get(name)
        if dtype is None:
            continue
        if math.prod(shape) * dtype.itemsize != end - begin:
            _refuse(path, f"giving {key!r} {end - begin:,} bytes for {name} of shape {list(shape)}")
        tables[key] = Table(path, key, shape, dtype, partial(map_tensor, path, dtype, shape, first + begin))
    reached = 0
    for begin, end, key in sorted(places):
        if begin != reached or end < begin:
            _refuse(path, f"placing {key!r} at {begin:,} to {end:,}, where {reached:,} is next")
        reached = end
    if first + reached != size:
        rule = f"have {first + reached:,} bytes, as its header says"
        raise CheckpointError(str(path), rule, f"{size:,}", "Download or copy it again")
    return tables


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name stands twice")
    return fields


def _refuse(path: Path, found: str, cause: Exception | None = None) -> NoReturn:
    next_step = "Download or copy the file again"
    raise CheckpointError(f"header of {path}", "be that of a safetensors file", found, next_step) from cause
