"""Files of vectors: .npy, word2vec text, fastText's .vec, Parquet, one file of tensors. Never pickled code.

Axis letters: V rows, D columns.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pyarrow import csv
from torch import Tensor

from tokenspace.checkpoint.models.folder import read_pickled
from tokenspace.checkpoint.models.others import other_form
from tokenspace.checkpoint.models.safetensors_file import read_header
from tokenspace.checkpoint.models.table import Table, map_tensor
from tokenspace.errors import CheckpointError

_FLOATS = {"<f2": torch.float16, "<f4": torch.float32, "<f8": torch.float64}
_NUMBERS_AT_ONCE = 4_000_000
_LONGEST_FIRST_LINE = 100
_VECTORS, _WORDS = ("vector", "vectors", "embedding", "embeddings"), ("token", "word", "label", "text")  # columns


class Vectors(NamedTuple):
    """What a file of vectors holds."""

    family: str
    token: Table
    words: tuple[str, ...] | None


def read_vectors(path: Path, table: str | None = None) -> Vectors:
    """Open a file of vectors; its ending says which form it has, and text has any other ending.

    Args:
        path: The file.
        table: Name of the tensor, or of the column, where the file has several.

    Raises:
        CheckpointError: the file is damaged, or of a form that is not read here.
    """
    readers: dict[str, Callable[[Path, str | None], Vectors]] = {
        ".npy": _read_npy,
        ".parquet": _read_parquet,
        ".safetensors": partial(_read_tensors, read_header),
        ".bin": partial(_read_tensors, read_pickled),
    }
    other = other_form(path)
    if other is not None and path.is_file():
        _refuse_other(path, *other)
    try:
        return readers.get(path.suffix.lower(), _read_text)(path, table)
    except OSError as error:
        found = error.strerror or error
        raise CheckpointError(str(path), "be a file that can be read", found, "Check the path") from error


def _read_npy(path: Path, table: str | None) -> Vectors:
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_columns, dtype = read(file)
        except Exception as error:  # the header is Python text, and numpy raises what its parser raises
            refuse(path, "be a .npy file", f"damaged ({error})", error)
        offset = file.tell()
    name = dtype.str.replace("=", "<")
    if name not in _FLOATS or len(shape) != 2:  # an array of objects would be a pickle
        refuse(path, "hold floats of shape (rows, columns)", f"{dtype} of shape {list(shape)}")
    size = path.stat().st_size - offset
    if size != shape[0] * shape[1] * dtype.itemsize:
        refuse(path, f"hold {list(shape)} numbers of {dtype}", f"{size:,} bytes of them")
    load = partial(map_tensor, path, _FLOATS[name], shape[::-1] if by_columns else shape, offset)
    whole = (lambda: load().t().contiguous()) if by_columns else load
    return Vectors("npy", Table(path, "", shape, _FLOATS[name], whole), None)


def _read_tensors(read: Callable[[Path], dict[str, Table]], path: Path, table: str | None) -> Vectors:
    tables = read(path)
    found = {key: t for key, t in tables.items() if len(t.shape) == 2 and t.dtype.is_floating_point}
    if table is None and len(found) != 1:
        names = ", ".join(sorted(found)) or "none"
        refuse(path, "hold one table of floats", names, next_step="Name one with --table (table= in Python)")
    key = next(iter(found)) if table is None else table
    if key not in tables:
        refuse(path, f"hold {key}", ", ".join(sorted(tables)) or "nothing")
    return Vectors("safetensors" if read is read_header else "pytorch", tables[key], None)


def _read_parquet(path: Path, table: str | None) -> Vectors:
    try:
        file = pq.ParquetFile(path, memory_map=True)
        schema = file.schema_arrow
        column = _column(path, schema, (table,) if table else _VECTORS, _is_vector, "of lists of numbers")
        named = [n for n in _WORDS if n in schema.names and pa.types.is_string(schema.field(n).type)]
        words = tuple(file.read([named[0]]).column(0).to_pylist()) if named else None
        found = parquet_table(path, file, column)
    except CheckpointError:
        raise
    except (pa.ArrowException, OSError, TypeError, ValueError, StopIteration) as error:  # ValueError: no UTF-8
        refuse(path, "be a whole Parquet file", f"damaged ({error})", error)
    if words is not None and len(words) != found.shape[0]:
        refuse(path, f"hold {found.shape[0]:,} words in {named[0]!r}", f"{len(words):,}")
    return Vectors("parquet", found, None if words is None else tuple(word or "" for word in words))


def parquet_table(path: Path, file: pq.ParquetFile, column: str) -> Table:
    """A column of an open file: lists of floats as (rows, columns), floats as (rows,); read when asked for.

    Raises:
        pa.ArrowException, OSError, TypeError, ValueError, StopIteration: the file is damaged.
    """
    kind = file.schema_arrow.field(column).type
    shape: tuple[int, ...] = (file.metadata.num_rows,)
    if not pa.types.is_floating(kind):
        shape += (kind.list_size if pa.types.is_fixed_size_list(kind) else _first_length(file, column),)
        kind = kind.value_type
    dtype = torch.from_numpy(np.empty(0, kind.to_pandas_dtype())).dtype
    return Table(path, column, shape, dtype, cache(partial(_parquet_numbers, path, column, shape)))


def _first_length(file: pq.ParquetFile, column: str) -> int:
    return len(next(file.iter_batches(1, columns=[column]))[0][0])


def _parquet_numbers(path: Path, column: str, shape: tuple[int, ...]) -> Tensor:
    try:
        stored = pq.read_table(path, columns=[column], memory_map=True).column(0).combine_chunks()
        lists = stored if len(shape) == 2 else None
        numbers = (stored if lists is None else lists.flatten()).to_numpy(zero_copy_only=False)
    except (pa.ArrowException, OSError) as error:
        refuse(path, "be a whole Parquet file", f"damaged ({error})", error)
    lengths = [] if lists is None else np.unique(lists.value_lengths().to_numpy(zero_copy_only=False)).tolist()
    if len(numbers) != math.prod(shape) or stored.null_count or lengths not in ([], [shape[-1]]):
        one = "" if lists is None else f"vectors of {shape[1]} "
        refuse(path, f"hold {shape[0]:,} {one}numbers in {column!r}", "of other lengths")
    return torch.from_numpy(numbers.copy()).view(shape)


def _is_vector(kind: pa.DataType) -> bool:
    lists = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return lists and pa.types.is_floating(kind.value_type)


def _column(
    path: Path, schema: pa.Schema, names: tuple[str, ...], fits: Callable[[pa.DataType], bool], kind: str
) -> str:
    fitting = [field.name for field in schema if fits(field.type)]
    for name in names:
        if name in fitting:
            return name
    if len(fitting) == 1 and names == _VECTORS:
        return fitting[0]
    rule = f"have a column {kind} called {' or '.join(names)}"
    refuse(path, rule, ", ".join(schema.names), next_step="Name the column with --table (table= in Python)")


def _read_text(path: Path, table: str | None) -> Vectors:
    """word2vec's text form: a line with rows and columns, then a line a word. Read whole: text has no places."""
    with path.open("rb") as file:
        first = file.readline(_LONGEST_FIRST_LINE)
        if first.startswith(b"GGUF"):
            _refuse_other(path, "GGUF", "Give the folder of save_pretrained that it was made from")
        try:
            V, D = (int(number) for number in first.split())
        except ValueError as error:
            rule = "begin with its rows and columns, as word2vec's text does"
            next_step = "Give .npy, .parquet, .safetensors or word2vec text"
            refuse(path, rule, first[:40].decode("utf-8", "replace"), error, next_step)
        size = path.stat().st_size
        if V < 1 or D < 1 or size < V * D * 2:  # a number takes a digit and what parts it from the next
            refuse(path, f"have room for {V:,} rows of {D:,} numbers", f"{size:,} bytes long")
        words, rows = [], []
        for lines in _some_lines(file, V, D):
            chunk = [_parts(path, line, D, len(words) + n) for n, line in enumerate(lines)]
            words += [word for word, _ in chunk]
            rows.append(_numbers(path, b"\n".join(numbers for _, numbers in chunk), len(chunk), D))
        if len(words) != V or file.read(1):
            more = "more" if len(words) == V else f"{len(words):,}"
            refuse(path, f"hold {V:,} words, as its first line says", more)
    table_VD = torch.cat(rows)
    family = "fasttext" if path.suffix.lower() == ".vec" else "word2vec"
    return Vectors(family, Table(path, "", (V, D), torch.float32, lambda: table_VD), tuple(words))


def _some_lines(file: BinaryIO, V: int, D: int) -> Iterator[list[bytes]]:
    at_once = max(1, _NUMBERS_AT_ONCE // D)
    longest = 1000 + 50 * D
    for first in range(0, V, at_once):
        lines = [file.readline(longest) for _ in range(min(at_once, V - first))]
        yield [line for line in lines if line]


def _parts(path: Path, line: bytes, D: int, row: int) -> tuple[str, bytes]:
    line = line.rstrip(b" \r\n")
    if line.count(b" ") == D:
        word, numbers = line.split(b" ", 1)
    else:  # a word with spaces in it, as some tools write them
        word, *parts = line.rsplit(b" ", D)
        numbers = b" ".join(parts)
        if len(parts) != D:
            refuse(path, f"hold a word and {D} numbers in line {row + 2:,}", f"{len(parts)} numbers")
    return word.decode("utf-8", "backslashreplace"), numbers


def _numbers(path: Path, text: bytes, V: int, D: int) -> Tensor:
    names = [str(column) for column in range(D)]
    if not V:
        return torch.empty(0, D)
    try:
        columns = csv.read_csv(
            pa.BufferReader(text),
            read_options=csv.ReadOptions(column_names=names, use_threads=False),
            parse_options=csv.ParseOptions(delimiter=" ", quote_char=False, ignore_empty_lines=False),
            convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, pa.float32()), null_values=[]),
        )
    except pa.ArrowException as error:
        refuse(path, "hold numbers after each word", str(error).splitlines()[0], error)
    numbers = np.empty((V, D), np.float32)
    if columns.num_rows != V:
        refuse(path, "hold numbers after each word", "with lines of its own kind")
    for number, column in enumerate(columns.itercolumns()):
        numbers[:, number] = column.to_numpy()
    return torch.from_numpy(numbers)


def _refuse_other(path: Path, found: str, next_step: str) -> NoReturn:
    refuse(path, "be .npy, .parquet, .safetensors, .bin or word2vec text", found, next_step=next_step)


def refuse(
    path: Path,
    rule: str,
    found: str,
    cause: Exception | None = None,
    next_step: str = "Make the file again with the tool that wrote it",
) -> NoReturn:
    """Raise the error of a file that is not what it must be, in one line."""
    raise CheckpointError(str(path), rule, " ".join(found.split()) or "empty", next_step) from cause
