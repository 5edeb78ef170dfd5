"""A published corpus, opened: one split's ids as if they were one array.

Opening reads no ids; they are mapped, so that memory does not grow with the corpus. Which
windows are drawn, in which order, is no matter of this file.
"""

import zlib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from tokenspace.corpus.format import gather_windows, map_tokens, read_index
from tokenspace.corpus.manifest import BLOCK_BYTES, FILE_NAME, TOKENIZER_FILE, Manifest, Shard
from tokenspace.errors import CorpusError, SettingError, check_at_least
from tokenspace.tokenizer import Tokenizer

_TOKENS_A_READ = 1 << 22
_REBUILD = "Build the corpus again, or copy the file again from where it is whole"


class Corpus:
    """One split of a corpus on disk; `Corpus.open` makes it.

    Attributes:
        path: The folder.
        split: "train" or "validation".
        manifest: All that is known of the corpus.
        dtype: Of the ids.
        num_tokens: Ids in this split.
        num_documents: Documents in this split.
        max_id: Largest id in this split.
        vocab_size: Of the tokenizer; every id is below it.
        identity: SHA-256 of the manifest, in hexadecimal.
    """

    def __init__(self, path: Path, split: str, manifest: Manifest) -> None:
        found = manifest.splits[split]
        self.path = path
        self.split = split
        self.manifest = manifest
        self.dtype = np.dtype(manifest.dtype).newbyteorder("<")
        self.num_tokens = found.num_tokens
        self.num_documents = found.num_documents
        self.max_id = found.max_id
        self.vocab_size = manifest.tokenizer.vocab_size
        self.identity = manifest.identity
        self._shards = found.shards
        self._bounds = np.cumsum([0, *(shard.num_tokens for shard in found.shards)])  # where shards begin
        self._mapped: dict[int, np.ndarray] = {}

    @classmethod
    def open(cls, path: str | Path, split: str = "train", *, tokenizer: Tokenizer | None = None) -> "Corpus":
        """Open one split of a corpus.

        Checks the manifest, the sizes of all files of the split and its indices, but reads
        no ids: `verify` does.

        Args:
            path: The folder.
            split: "train" or "validation".
            tokenizer: Where given, the corpus must have been made with it.

        Raises:
            CorpusError: a file is missing, cut or altered, there is no such split, or the
                corpus was made with another tokenizer.
        """
        path = Path(path)
        if not path.is_dir():
            raise CorpusError("corpus", "be a folder that exists", str(path), "Check the path, or build it first")
        manifest = Manifest.read(path / FILE_NAME)
        if split not in manifest.splits:
            step = (
                "Build the corpus with a validation fraction above 0" if split == "validation" else "Name one of these"
            )
            raise CorpusError("split", f"be one of {', '.join(manifest.splits)}", split, step)
        if tokenizer is not None:
            _check_tokenizer(path, manifest, tokenizer)
        for shard in manifest.splits[split].shards:
            _check_sizes(path, shard)
            _check_index(path, shard)
        return cls(path, split, manifest)

    def __reduce__(self) -> tuple:
        return Corpus.open, (self.path, self.split)  # maps do not travel between processes

    def __repr__(self) -> str:
        return (
            f"Corpus({str(self.path)!r}, {self.split!r}, {self.num_tokens:,} tokens, {self.num_documents:,} documents)"
        )

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the corpus, from its own copy.

        Raises:
            CorpusError: the copy is not the tokenizer that the manifest names.
            TokenizerError: the copy is missing or damaged.
        """
        tokenizer = Tokenizer.from_file(self.path / TOKENIZER_FILE)
        if tokenizer.identity != self.manifest.tokenizer.identity:
            rule = f"be {_stamp(self.manifest.tokenizer)} as the manifest says"
            raise CorpusError(TOKENIZER_FILE, rule, _stamp(tokenizer), _REBUILD)
        tokenizer.name = self.manifest.tokenizer.name
        return tokenizer

    def counts(self) -> np.ndarray:
        """How often each id occurs in this split: int64, (vocab_size,)."""
        counts = np.zeros(self.vocab_size, dtype=np.int64)
        for start in range(0, self.num_tokens, _TOKENS_A_READ):
            ids = self.tokens(start, min(start + _TOKENS_A_READ, self.num_tokens))
            counts += np.bincount(ids, minlength=self.vocab_size)
        return counts

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """The ids from `start` up to but not including `stop`, counted over the whole split.

        Returns:
            A new array (stop - start,) of the dtype on disk.

        Raises:
            SettingError: the span does not lie inside the split.
        """
        if not 0 <= start <= stop <= self.num_tokens:
            raise SettingError(
                "start, stop", f"lie in order from 0 to {self.num_tokens}", (start, stop), "Ask for less"
            )
        ids = np.empty(stop - start, self.dtype)
        first = int(np.searchsorted(self._bounds, start, "right")) - 1
        for nth in range(first, len(self._shards)):
            low, high = max(start, int(self._bounds[nth])), min(stop, int(self._bounds[nth + 1]))
            if low >= stop:
                break
            ids[low - start : high - start] = self._tokens_of(nth)[low - self._bounds[nth] : high - self._bounds[nth]]
        return ids

    def gather(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Windows of `length` ids, one a start; they may lie across shards.

        Args:
            starts: int64, (n,); tokens from the beginning of the split.
            length: Ids a window.

        Returns:
            A new array (n, length) of the dtype on disk.

        Raises:
            SettingError: a window does not lie inside the split.
        """
        check_at_least(1, length=length)
        starts = np.asarray(starts, np.int64)
        if len(starts) and not (starts.min() >= 0 and starts.max() + length <= self.num_tokens):
            rule = f"lie from 0 to {self.num_tokens - length} for windows of {length} tokens"
            worst = int(starts.min() if starts.min() < 0 else starts.max())
            raise SettingError("starts", rule, worst, "Ask for windows inside the corpus")
        if len(self._shards) == 1 and len(starts):
            return gather_windows(self._tokens_of(0), starts, length)
        return self._gather_over_shards(starts, length)

    def _gather_over_shards(self, starts: np.ndarray, length: int) -> np.ndarray:
        windows = np.empty((len(starts), length), self.dtype)
        shard = np.searchsorted(self._bounds, starts, "right") - 1
        inside = starts + length <= self._bounds[shard + 1]
        for row in np.flatnonzero(~inside):
            windows[row] = self.tokens(int(starts[row]), int(starts[row]) + length)
        rows = np.flatnonzero(inside)
        rows = rows[np.argsort(shard[rows], kind="stable")]
        cuts = np.flatnonzero(np.diff(shard[rows])) + 1
        for group in np.split(rows, cuts) if len(rows) else ():
            nth = int(shard[group[0]])
            windows[group] = gather_windows(self._tokens_of(nth), starts[group] - self._bounds[nth], length)
        return windows

    def _tokens_of(self, nth: int) -> np.ndarray:
        if nth not in self._mapped:
            self._mapped[nth] = map_tokens(self.path / f"{self._shards[nth].name}.bin", self.dtype)
        return self._mapped[nth]

    @cached_property
    def document_bounds(self) -> np.ndarray:
        """Where each document begins, and at the end the number of tokens; int64, (documents + 1,)."""
        parts = [np.zeros(1, np.int64)]
        for shard, begin in zip(self._shards, self._bounds, strict=False):
            parts.append(read_index(self.path / f"{shard.name}.idx").document_bounds[1:] + begin)
        return np.concatenate(parts)

    def document(self, index: int) -> np.ndarray:
        """The ids of one document, end-of-text included where it was appended.

        Raises:
            SettingError: there is no such document.
        """
        if not 0 <= index < self.num_documents:
            raise SettingError("index", f"be from 0 to {self.num_documents - 1}", index, "Ask for a document it has")
        return self.tokens(int(self.document_bounds[index]), int(self.document_bounds[index + 1]))

    def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """Read every block and index of this split and compare the checksums.

        Args:
            progress: Called with the bytes read so far.

        Raises:
            CorpusError: a block or an index is not as it was written; says which.
        """
        done = 0
        for shard in self._shards:
            _check_sizes(self.path, shard)
            _check_index(self.path, shard)
            path = self.path / f"{shard.name}.bin"
            for nth, (block, expected) in enumerate(zip(_blocks(path), shard.block_crc32s, strict=True)):
                if (found := f"{zlib.crc32(block):08x}") != expected:
                    span = f"bytes {nth * BLOCK_BYTES} to {nth * BLOCK_BYTES + len(block) - 1}"
                    raise CorpusError(f"{path}, {span}", f"have the checksum {expected}", found, _REBUILD)
                done += len(block)
                if progress:
                    progress(done)


def _stamp(tokenizer: object) -> str:
    return f"{tokenizer.name} ({tokenizer.identity[:12]})"


def _check_tokenizer(path: Path, manifest: Manifest, tokenizer: Tokenizer) -> None:
    if tokenizer.identity != manifest.tokenizer.identity:
        rule = f"be made with the tokenizer in use, {_stamp(tokenizer)}"
        step = "Build the corpus again with that tokenizer, or use the one it was made with"
        raise CorpusError(f"corpus {path}", rule, f"made with another, {_stamp(manifest.tokenizer)}", step)


def _check_sizes(path: Path, shard: Shard) -> None:
    for name, size in ((f"{shard.name}.bin", shard.bin_bytes), (f"{shard.name}.idx", shard.idx_bytes)):
        try:
            found = (path / name).stat().st_size
        except OSError as error:
            raise CorpusError(str(path / name), "be there", error.strerror or "missing", _REBUILD) from error
        if found != size:
            raise CorpusError(str(path / name), f"have {size} bytes", f"{found} bytes long", _REBUILD)


def _check_index(path: Path, shard: Shard) -> None:
    file = path / f"{shard.name}.idx"
    if (found := f"{zlib.crc32(file.read_bytes()):08x}") != shard.idx_crc32:
        raise CorpusError(str(file), f"have the checksum {shard.idx_crc32}", found, _REBUILD)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def is_corpus(path: str | Path) -> bool:
    """Whether a corpus was published at `path`; it may still be damaged."""
    return (Path(path) / FILE_NAME).is_file()
