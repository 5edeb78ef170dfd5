"""One tensor of a model on disk: known by its file, shape and dtype, read when asked for.

Axis letters: V rows, D columns.
"""

import math
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from tokenspace.errors import ShapeError


@dataclass(frozen=True, eq=False)
class Table:
    """A tensor in a file.

    Attributes:
        file: Where it lies.
        key: Its name there.
        shape: Its sizes.
        dtype: Of its elements.
        load: Gives the tensor; see `tensor`.
    """

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor] = field(repr=False)

    def tensor(self) -> Tensor:
        """The tensor, mapped from its file where the format allows.

        What is mapped is read as it is touched, and never written back: changes stay in this process. It
        shows what becomes of the file, so clone what has to outlive it.
        """
        return self.load()

    def rows(self, ids: Tensor | Sequence[int]) -> Tensor:
        """A copy of these rows, (N, D); of a mapped table the others are not read.

        Raises:
            ShapeError: an id lies outside the table, or they are no list of whole numbers.
        """
        try:
            wanted = torch.as_tensor(ids)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ShapeError("ids", "be a list of whole numbers", type(ids).__name__, "Give [3, 1, 4]") from error
        if wanted.dim() != 1 or (wanted.is_floating_point() and wanted.numel()) or wanted.dtype == torch.bool:
            found = f"{wanted.dtype} of shape {tuple(wanted.shape)}"
            raise ShapeError("ids", "be a list of whole numbers", found, "Give [3, 1, 4]")
        outside = wanted[(wanted < 0) | (wanted >= self.shape[0])]
        if len(outside):
            raise ShapeError("ids", f"lie in [0, {self.shape[0]:,})", outside[0].item(), "Use ids of this table")
        return self.tensor().index_select(0, wanted.long())

    @property
    def num_bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize


def map_tensor(file: Path, dtype: torch.dtype, shape: tuple[int, ...], offset: int) -> Tensor:
    """The tensor at a place in a file, by memory map.

    Args:
        file: Holds the elements, little-endian, row by row.
        dtype: Their type.
        shape: Sizes of the tensor.
        offset: Where it begins, in bytes.

    Returns:
        A tensor that may be written to; the file stays as it is.

    Raises:
        OSError: the file cannot be read, or ends before the tensor does.
    """
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=dtype)
    begin = offset - offset % mmap.ALLOCATIONGRANULARITY
    try:
        with file.open("rb") as opened:
            length = offset - begin + count * dtype.itemsize
            mapped = mmap.mmap(opened.fileno(), length, access=mmap.ACCESS_COPY, offset=begin)
    except ValueError as error:  # mmap's word for a file that is too short
        raise OSError(0, str(error), str(file)) from error
    data = memoryview(mapped)[offset - begin :]
    if offset % dtype.itemsize:  # torch wants its elements aligned
        data = bytearray(data)
    return torch.frombuffer(data, dtype=dtype, count=count).view(shape)
