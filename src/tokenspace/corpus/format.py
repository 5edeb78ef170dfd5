r"""Megatron-core's indexed format, version 1: `NAME.bin` and `NAME.idx`.

The `.bin` holds nothing but ids, little-endian, so that it is at the same time a nanoGPT
`.bin`. The `.idx` says where sequences and documents begin:

    bytes  "MMIDIDX\0\0"          9
    u64    version = 1             8
    u8     dtype code              1     8 = uint16, 4 = int32
    u64    number of sequences S   8
    u64    D = documents + 1       8
    i32    lengths[S]                    tokens
    i64    pointers[S]                   bytes into the .bin
    i64    documents[D]                  index of each document's first sequence; S at the end

A document is one sequence unless it is longer than a length can say. The arrays begin at
byte 34 and are therefore not aligned. Splits, checksums and tokenizers are no part of it.

Source: megatron/core/datasets/indexed_dataset.py of NVIDIA/Megatron-LM.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokenspace.errors import CorpusError

DTYPE_CODES = {np.dtype("<u2"): 8, np.dtype("<i4"): 4}
LONGEST_SEQUENCE = 2**31 - 1

_MAGIC = b"MMIDIDX\0\0"
_HEADER = struct.Struct("<9sQBQQ")


def smallest_dtype(largest_id: int) -> np.dtype:
    """The type of the ids in a `.bin`: two bytes where they suffice, else four.

    Raises:
        CorpusError: four bytes do not suffice.

    Example:
        >>> smallest_dtype(65_535), smallest_dtype(65_536)
        (dtype('uint16'), dtype('int32'))
    """
    for dtype in DTYPE_CODES:
        if largest_id <= np.iinfo(dtype).max:
            return dtype
    raise CorpusError(
        "largest token id", f"be at most {2**31 - 1}", largest_id, "Renumber the tokenizer's added tokens"
    )


def index_bytes(document_lengths: np.ndarray, dtype: np.dtype) -> bytes:
    """The `.idx` of documents that stand one after another in a `.bin`.

    Args:
        document_lengths: Tokens a document, int64; 0 is allowed.
        dtype: Of the ids; one of `DTYPE_CODES`.
    """
    sequences = np.maximum(1, -(-document_lengths // LONGEST_SEQUENCE))  # a document
    documents = np.concatenate([[0], np.cumsum(sequences)]).astype("<i8")
    lengths = np.full(documents[-1], LONGEST_SEQUENCE, np.int64)
    lengths[documents[1:] - 1] = document_lengths - (sequences - 1) * LONGEST_SEQUENCE
    pointers = (np.cumsum(lengths) - lengths) * dtype.itemsize
    header = _HEADER.pack(_MAGIC, 1, DTYPE_CODES[dtype], len(lengths), len(documents))
    return b"".join([header, lengths.astype("<i4").tobytes(), pointers.astype("<i8").tobytes(), documents.tobytes()])


@dataclass(frozen=True)
class Index:
    """What an `.idx` says.

    Attributes:
        dtype: Of the ids in the `.bin`.
        document_bounds: Where documents begin, in tokens, and the number of tokens; int64, documents + 1.
    """

    dtype: np.dtype
    document_bounds: np.ndarray


def read_index(path: Path) -> Index:
    """Read the `.idx` of one shard.

    Raises:
        CorpusError: it is cut, or no index of this format.
    """
    return parse_index(path.read_bytes(), path.name)


def parse_index(data: bytes, name: str) -> Index:
    """The same, from the content of the file.

    Raises:
        CorpusError: as `read_index`.
    """
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise CorpusError(name, "begin as a Megatron index does", data[: len(_MAGIC)], "Build the corpus again")
    _, version, code, num_sequences, num_bounds = _HEADER.unpack_from(data)
    dtypes = {code: dtype for dtype, code in DTYPE_CODES.items()}
    if version != 1 or code not in dtypes:
        found = f"version {version} with dtype code {code}"
        raise CorpusError(name, "be version 1 with uint16 or int32 ids", found, "Build the corpus again")
    size = _HEADER.size + num_sequences * (4 + 8) + num_bounds * 8
    if len(data) != size:
        raise CorpusError(name, f"have {size} bytes", f"{len(data)} bytes long", "Build the corpus again")
    lengths = np.frombuffer(data, "<i4", num_sequences, _HEADER.size)
    documents = np.frombuffer(data, "<i8", num_bounds, size - num_bounds * 8)
    sequence_bounds = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return Index(dtypes[code], sequence_bounds[documents])


def map_tokens(path: Path, dtype: np.dtype) -> np.ndarray:
    """The ids of a `.bin`, mapped and not read; read-only."""
    if path.stat().st_size == 0:  # which cannot be mapped
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r"))


def gather_windows(tokens: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Rows `tokens[start : start + length]`, all of them inside `tokens`.

    Each window is taken as one opaque element, which numpy copies in one go: 2 to 10 times as
    fast as an index a token, from 4 tokens a window on.

    Returns:
        A new array (len(starts), length) of the same dtype.
    """
    window = np.dtype((np.void, length * tokens.itemsize))
    windows = np.ndarray((len(tokens) - length + 1,), window, tokens, strides=(tokens.itemsize,))
    return windows[starts].view(tokens.dtype).reshape(len(starts), length)
