"""Token files that other tools wrote: which they are, and their ids, read block by block and checked.

Where documents begin and end is a matter of each format, in a file of its own.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tokenspace.corpus.encoding import Encoded
from tokenspace.errors import CorpusError, SettingError
from tokenspace.tokenizer import Tokenizer

BLOCK_TOKENS = 1 << 20

_VALIDATION = re.compile(r"(?<![a-z])(val|valid|validation)(?![a-z])", re.IGNORECASE)
_TEST = re.compile(r"(?<![a-z])test(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class TokenFile:
    """A file with ids end to end, from some byte on.

    Attributes:
        path: The file.
        dtype: Of its ids.
        num_tokens: How many there are.
        offset: Byte at which they begin.
    """

    path: Path
    dtype: np.dtype
    num_tokens: int
    offset: int = 0

    @property
    def split(self) -> str:
        """By its name: "validation" where val, valid or validation stands in it as a word, else "train"."""
        return "validation" if _VALIDATION.search(self.path.stem) else "train"

    def read(self, start: int, stop: int, tokenizer: Tokenizer) -> np.ndarray:
        """The ids from `start` up to but not including `stop`.

        Returns:
            A new array, uint32.

        Raises:
            CorpusError: one is no id of `tokenizer`, or the file was cut while it was read.
        """
        ids = np.fromfile(self.path, self.dtype, stop - start, offset=self.offset + start * self.dtype.itemsize)
        if len(ids) != stop - start:
            found = f"cut after {start + len(ids)}"
            raise CorpusError(str(self.path), f"have {stop} tokens", found, "Import it when nobody writes to it")
        if len(ids) and not (ids.min() >= 0 and ids.max() < tokenizer.vocab_size):
            nth = int(np.argmax((ids < 0) | (ids >= tokenizer.vocab_size)))
            rule = f"be an id of {tokenizer.name}, from 0 to {tokenizer.vocab_size - 1}"
            step = "Give the tokenizer that made the file; of a .bin without a header, check the dtype too"
            raise CorpusError(f"{self.path}, token {start + nth}", rule, int(ids[nth]), step)
        return ids.astype(np.uint32)


@dataclass(frozen=True)
class Batch:
    """Some ids of one file with the ends of documents among them.

    Attributes:
        file: Where they come from.
        ids: uint32.
        lengths: Ids of each part of a document, int64.
        ends: Whether the part ends its document, bool.
    """

    file: TokenFile
    ids: np.ndarray
    lengths: np.ndarray
    ends: np.ndarray

    @classmethod
    def cut(cls, file: TokenFile, ids: np.ndarray, ends: np.ndarray) -> "Batch":
        """Cut ids where documents end.

        Args:
            file: Where they come from.
            ids: uint32.
            ends: Ids before each end of a document, int64, in order; of empty documents equal ones.
        """
        bounds = np.concatenate([[0], ends])
        lengths = np.diff(bounds)
        is_end = np.ones(len(ends), bool)
        if rest := len(ids) - int(bounds[-1]):  # of a document that goes on
            lengths, is_end = np.append(lengths, rest), np.append(is_end, False)
        return cls(file, ids, lengths, is_end)

    def encoded(self, origins: np.ndarray) -> Encoded:
        """The same, as a shard writer takes it; `origins` as in `Encoded`."""
        nothing = np.zeros(len(self.lengths), np.uint64)  # keys and lengths decide nothing here: no split is drawn
        return Encoded(self.ids, self.lengths, self.ends, nothing, nothing.astype(bool), origins)


def list_bins(paths: Sequence[str | Path]) -> list[Path]:
    """The `.bin` files that are meant: themselves, those of a folder by name, or by a prefix of `.bin` and `.idx`.

    Raises:
        SettingError: nothing is given, there is no such file, or one is kept for tests by its name.
    """
    found: dict[Path, None] = {}  # each once, in order: `data/*` names both files of a pair
    for path in map(Path, paths):
        inside = sorted(path.glob("*.bin")) if path.is_dir() else [_bin_of(path)]
        if not inside:
            raise SettingError("files", "hold token files, NAME.bin", str(path), "Name a folder that has some")
        found.update(dict.fromkeys(inside))
    if not found:
        raise SettingError("files", "name at least one token file", "none", "Give a .bin file or a folder")
    for path in found:
        if _TEST.search(path.stem):
            step = "Leave it out, for nothing may be trained on it; if it is no such file, rename it"
            raise SettingError("files", "be for training or validation", str(path), step)
    return list(found)


def guess_format(paths: Sequence[str | Path]) -> Literal["nanogpt", "megatron"]:
    """Megatron's where there is an index beside each `.bin`, nanoGPT's where there is none.

    Raises:
        SettingError: some have one, or there is no such file.
    """
    bins = list_bins(paths)
    indexed = [path.with_suffix(".idx").is_file() for path in bins]
    if any(indexed) and not all(indexed):
        without = str(bins[indexed.index(False)])
        raise SettingError("files", "all have an index, NAME.idx, or none", without, "Import the two kinds one by one")
    return "megatron" if all(indexed) else "nanogpt"


def blocks(start: int, stop: int) -> Iterable[tuple[int, int]]:
    """Spans of at most `BLOCK_TOKENS` that cover `start` to `stop`.

    Example:
        >>> list(blocks(0, BLOCK_TOKENS + 1))
        [(0, 1048576), (1048576, 1048577)]
    """
    for low in range(start, stop, BLOCK_TOKENS):
        yield low, min(low + BLOCK_TOKENS, stop)


def documents_of(file: TokenFile, chunks: Iterable[np.ndarray], tokenizer: Tokenizer) -> Iterator[Batch]:
    """All ids of a file whose ends of documents are known.

    Args:
        file: The ids.
        chunks: Ids before each end, int64, in order, over the whole file; the last is the number of ids.
        tokenizer: What they have to be ids of.

    Raises:
        CorpusError: as `TokenFile.read`.
    """
    at = 0
    for ends in chunks:
        done = 0
        while done < len(ends):
            high = min(at + BLOCK_TOKENS, int(ends[-1]))
            until = int(np.searchsorted(ends, high, "right"))
            yield Batch.cut(file, file.read(at, high, tokenizer), ends[done:until] - at)
            at, done = high, until


def _bin_of(path: Path) -> Path:
    named = path if path.suffix in (".bin", ".idx") else path.with_name(f"{path.name}.bin")
    if not (path := named.with_suffix(".bin")).is_file():
        raise SettingError("files", "be token files that exist", str(path), "Check the path")
    return path
