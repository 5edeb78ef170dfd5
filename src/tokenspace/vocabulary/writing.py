"""Files of tensors written anew with other rows, a part at a time: memory stays flat, however large they are.

What does not change is copied as bytes, of whatever type it is. Everything is written as safetensors.

Source: github.com/huggingface/safetensors, "Format".
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

_CHUNK = 16 << 20  # bytes
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True, eq=False)
class Entry:
    """One tensor of a file to write.

    Attributes:
        dtype: As the format names it.
        shape: Its sizes.
        num_bytes: Its length.
        parts: Gives its bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    num_bytes: int
    parts: Callable[[], Iterable[memoryview | bytes]]

    @classmethod
    def of(cls, tensor: Tensor) -> "Entry":
        """A tensor as it is."""
        size = tensor.numel() * tensor.itemsize
        return cls(DTYPES[tensor.dtype], tuple(tensor.shape), size, lambda: _bytes_of(tensor))

    @classmethod
    def gathered(cls, old: Tensor, source: Tensor, fresh: Tensor) -> "Entry":
        """Rows of another tensor: row `source[n]`, and where that is -1 the next one of `fresh`."""
        shape = (len(source), *old.shape[1:])
        size = math.prod(shape) * old.itemsize
        return cls(DTYPES[old.dtype], shape, size, lambda: _gather(old, source, fresh))


def entries_of(path: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file whose header was checked, as they are."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    found = {}
    for key, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        found[key] = Entry(entry["dtype"], tuple(entry["shape"]), end - begin, _ranges(path, begin, end))
    return found


def metadata_of(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)).get("__metadata__") or {}


def write_tensors(path: Path, entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file."""
    header, offset = {"__metadata__": dict(metadata)} if metadata else {}, 0
    for key, entry in entries.items():
        end = offset + entry.num_bytes
        header[key] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants its data aligned
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in entries.values():
            _write(file, entry)


def _write(file: BinaryIO, entry: Entry) -> None:
    written = 0
    for part in entry.parts():
        written += file.write(part)
    assert written == entry.num_bytes


def _ranges(path: Path, begin: int, end: int) -> Callable[[], Iterator[bytes]]:
    def parts() -> Iterator[bytes]:
        with path.open("rb") as file:
            file.seek(begin)
            left = end - begin
            while left and (part := file.read(min(left, _CHUNK))):
                left -= len(part)
                yield part

    return parts


def _gather(old: Tensor, source: Tensor, fresh: Tensor) -> Iterator[memoryview]:
    flat = old.detach().reshape(len(old), -1)
    fresh = fresh.reshape(len(fresh), flat.shape[1])
    taken = 0
    for part in source.split(max(1, _CHUNK // max(1, flat[:1].numel() * flat.itemsize))):
        rows = flat.index_select(0, part.clamp(min=0))
        new = (part < 0).nonzero().flatten()
        rows[new] = fresh[taken : taken + len(new)]
        taken += len(new)
        yield from _bytes_of(rows)


def _bytes_of(tensor: Tensor) -> Iterator[memoryview]:
    data = memoryview(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    for first in range(0, len(data), _CHUNK):
        yield data[first : first + _CHUNK]
