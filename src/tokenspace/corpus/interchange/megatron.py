"""Megatron-core's indexed files, version 1, into a corpus.

The layout is that of `corpus.format`, with whatever whole numbers as ids, documents of several
sequences, and indices of any size: they are read in chunks and checked before anything is written.
What follows the layout in files for several modalities is refused.

Source: megatron/core/datasets/indexed_dataset.py of NVIDIA/Megatron-LM.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokenspace.corpus.corpus import Corpus
from tokenspace.corpus.interchange.foreign import Batch, TokenFile, documents_of, list_bins
from tokenspace.corpus.interchange.publish import publish
from tokenspace.errors import CorpusError, SettingError
from tokenspace.tokenizer import Tokenizer

_MAGIC = b"MMIDIDX\0\0"
_HEADER = struct.Struct("<9sQBQQ")
_DTYPES = {code: np.dtype(name) for code, name in {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}.items()}
_CHUNK = 1 << 20  # entries of an index that are looked at together
_AGAIN = "Write it again, or copy it again from where it is whole"


def import_megatron(
    prefixes: Sequence[str | Path],
    out: str | Path,
    *,
    tokenizer: Tokenizer,
    progress: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Make a corpus of pairs of `.bin` and `.idx` of Megatron-core.

    Pairs with `valid` or `validation` as a word in their names are for validation, the others for
    training. Documents stay as they are; the sequences within them do not matter.

    Args:
        prefixes: Paths without suffix, or with either, or folders of such files; read in this order.
        out: Folder to make; must not exist.
        tokenizer: What made the ids; it is stored with the corpus.
        progress: Called with the bytes done and in all.

    Returns:
        The training part of the new corpus.

    Raises:
        SettingError: an argument breaks its rule, or something stands at `out`.
        CorpusError: an index is damaged, or a file holds what is no id of `tokenizer`.
        DiskError: the disk is full; nothing is left behind.
    """
    indices = {}
    for path in list_bins(prefixes):
        index = MegatronIndex.open(path.with_suffix(".idx"))
        indices[index.check(path)] = index

    def batches(files: Sequence[TokenFile]) -> Iterator[Batch]:
        for file in files:
            yield from documents_of(file, indices[file].document_ends(), tokenizer)

    return publish(list(indices), batches, tokenizer, Path(out), progress)


@dataclass(frozen=True)
class MegatronIndex:
    """An `.idx`, read in chunks.

    Attributes:
        path: The file.
        dtype: Of the ids in the `.bin`.
        num_sequences: Sequences.
        num_bounds: Documents + 1.
    """

    path: Path
    dtype: np.dtype
    num_sequences: int
    num_bounds: int

    @classmethod
    def open(cls, path: Path) -> "MegatronIndex":
        """Read the header.

        Raises:
            SettingError: there is no such file.
            CorpusError: it is no index of version 1 over whole numbers, or its size is wrong.
        """
        if not path.is_file():
            raise SettingError("files", "have an index beside each .bin", f"{path} missing", "Import it as nanogpt")
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(_MAGIC):
            step = "Write it with Megatron-core's tools"
            raise CorpusError(str(path), f"begin with {_MAGIC}", f"{header[: len(_MAGIC)]}, no Megatron index", step)
        _, version, code, num_sequences, num_bounds = _HEADER.unpack(header)
        if version != 1:
            raise CorpusError(str(path), "be version 1", f"version {version}", "Write it with Megatron-core's tools")
        if code not in _DTYPES:
            rule = f"have a dtype code of whole numbers, {', '.join(map(str, _DTYPES))}"
            raise CorpusError(str(path), rule, code, "Ids are whole numbers; write it again")
        wanted, found = _HEADER.size + 12 * num_sequences + 8 * num_bounds, path.stat().st_size
        if found != wanted:
            rule = f"have {wanted} bytes, for {num_sequences} sequences and {num_bounds - 1} documents"
            raise CorpusError(str(path), rule, f"{found} bytes long", f"{_AGAIN}; with modes of images it is not read")
        return cls(path, _DTYPES[code], num_sequences, num_bounds)

    def check(self, tokens: Path) -> TokenFile:
        """Go through the whole index and compare it with its `.bin`.

        Returns:
            The ids.

        Raises:
            CorpusError: lengths, pointers, documents and the size of `tokens` do not agree.
        """
        num_bytes = self._check_sequences()
        if (found := tokens.stat().st_size) != num_bytes:
            rule = f"have {num_bytes} bytes, which the lengths in {self.path.name} add up to"
            raise CorpusError(str(tokens), rule, f"{found} bytes long", _AGAIN)
        self._check_documents()
        return TokenFile(tokens, self.dtype, num_bytes // self.dtype.itemsize)

    def document_ends(self) -> Iterator[np.ndarray]:
        """Tokens before the end of each document, int64, in chunks; the index has been checked."""
        for low in range(1, self.num_bounds, _CHUNK):
            after = self._documents(low, min(low + _CHUNK, self.num_bounds))  # the first sequence that is not in it
            last = np.maximum(after - 1, 0)
            ends = np.zeros(len(after), np.int64)
            if self.num_sequences:  # mapped anew for each chunk: pages that were read do not stay in memory
                pointers, lengths = self._map("<i8", self._pointers_at), self._map("<i4", _HEADER.size)
                ends = np.where(after > 0, pointers[last] // self.dtype.itemsize + lengths[last], 0)
            yield ends

    def _check_sequences(self) -> int:
        expected = 0
        for low in range(0, self.num_sequences, _CHUNK):
            count = min(_CHUNK, self.num_sequences - low)
            lengths = np.fromfile(self.path, "<i4", count, offset=_HEADER.size + 4 * low).astype(np.int64)
            pointers = np.fromfile(self.path, "<i8", count, offset=self._pointers_at + 8 * low)
            if lengths.min() < 0:
                nth = int(np.argmax(lengths < 0))
                name = f"{self.path}, length of sequence {low + nth}"
                raise CorpusError(name, "be at least 0", int(lengths[nth]), _AGAIN)
            ends = expected + np.cumsum(lengths) * self.dtype.itemsize
            begins = ends - lengths * self.dtype.itemsize
            if (wrong := pointers != begins).any():
                nth = int(np.argmax(wrong))
                rule = f"be {begins[nth]}, where the sequence before it ends"
                raise CorpusError(f"{self.path}, pointer of sequence {low + nth}", rule, int(pointers[nth]), _AGAIN)
            expected = int(ends[-1])
        return expected

    def _check_documents(self) -> None:
        before = 0
        for low in range(0, self.num_bounds, _CHUNK):
            bounds = self._documents(low, min(low + _CHUNK, self.num_bounds))
            if low == 0 and bounds[0] != 0:
                raise CorpusError(f"{self.path}, document 0", "begin at sequence 0", int(bounds[0]), _AGAIN)
            falls = np.diff(bounds, prepend=before) < 0
            if falls.any():
                nth = int(np.argmax(falls))
                previous = int(bounds[nth - 1]) if nth else before
                rule = f"not end before the one before it, at sequence {previous}"
                raise CorpusError(f"{self.path}, document {low + nth - 1}", rule, f"{bounds[nth]}", _AGAIN)
            before = int(bounds[-1])
        if before != self.num_sequences or not self.num_bounds:
            rule = f"end with sequence {self.num_sequences}, the last"
            raise CorpusError(f"{self.path}, documents", rule, f"ended with sequence {before}", _AGAIN)

    @property
    def _pointers_at(self) -> int:
        return _HEADER.size + 4 * self.num_sequences

    def _documents(self, low: int, high: int) -> np.ndarray:
        return np.fromfile(self.path, "<i8", high - low, offset=self._pointers_at + 8 * (self.num_sequences + low))

    def _map(self, dtype: str, offset: int) -> np.ndarray:
        return np.memmap(self.path, dtype, "r", offset, (self.num_sequences,))
