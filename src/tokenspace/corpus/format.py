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
from typing import ClassVar, Self

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
class IndexHeader:
    """The first bytes of an `.idx`.

    Attributes:
        dtype: Of the ids in the `.bin`.
        num_sequences: Of the `.bin`.
        num_documents: Of the `.bin`.
        num_bytes: How many bytes the header has.
    """

    dtype: np.dtype
    num_sequences: int
    num_documents: int
    num_bytes: ClassVar[int] = _HEADER.size

    @property
    def lengths_at(self) -> int:
        """The byte where the lengths of the sequences begin, int32."""
        return _HEADER.size

    @property
    def pointers_at(self) -> int:
        """The byte where the places of the sequences in the `.bin` begin, int64."""
        return self.lengths_at + 4 * self.num_sequences

    @property
    def documents_at(self) -> int:
        """The byte where the first sequences of the documents begin, int64."""
        return self.pointers_at + 8 * self.num_sequences

    @classmethod
    def parse(cls, data: bytes, name: str, num_bytes: int) -> Self:
        """Read the header of a file of so many bytes.

        Raises:
            CorpusError: the file is cut, or no index of this format.
        """
        if len(data) < _HEADER.size or not data.startswith(_MAGIC):
            found = bytes(data[: len(_MAGIC)])
            raise CorpusError(name, "begin as a Megatron index does", found, "Build the corpus again")
        _, version, code, num_sequences, num_bounds = _HEADER.unpack_from(data)
        dtypes = {code: dtype for dtype, code in DTYPE_CODES.items()}
        if version != 1 or code not in dtypes:
            found = f"version {version} with dtype code {code}"
            raise CorpusError(name, "be version 1 with uint16 or int32 ids", found, "Build the corpus again")
        header = cls(dtypes[code], num_sequences, num_bounds - 1)
        if num_bytes != (size := header.documents_at + 8 * num_bounds):
            raise CorpusError(name, f"have {size} bytes", f"{num_bytes} bytes long", "Build the corpus again")
        return header


def document_bounds(data: bytes, name: str) -> np.ndarray:
    """Where documents begin, in tokens, and the number of tokens; int64, (documents + 1,), of a whole `.idx`.

    Raises:
        CorpusError: it is cut, or no index of this format.
    """
    header = IndexHeader.parse(data, name, len(data))
    lengths = np.frombuffer(data, "<i4", header.num_sequences, header.lengths_at)
    documents = np.frombuffer(data, "<i8", header.num_documents + 1, header.documents_at)
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])[documents]


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
