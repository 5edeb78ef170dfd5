"""A published corpus, opened: one split's ids as if they were one array.

Opening reads neither ids nor indices: the manifest and the sizes of the files. Which windows are
drawn, in which order, is no matter of this file; how one shard is read is one of `shard`.
"""

import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tokenspace.corpus.manifest import BLOCK_BYTES, FILE_NAME, TOKENIZER_FILE, Manifest
from tokenspace.corpus.shard import BlockCache, ShardReader, check_block
from tokenspace.errors import CorpusError, SettingError, check_at_least
from tokenspace.store import LocalStore, Store
from tokenspace.tokenizer import Tokenizer

_TOKENS_A_READ = 1 << 22
_MOST_MAPPED = 256  # shards at once; each takes two file descriptors
_REBUILD = "Build the corpus again, or copy the file again from where it is whole"


class Corpus:
    """One split of a corpus; `Corpus.open` makes it.

    Attributes:
        path: The folder; the URL of one in a store.
        split: "train" or "validation".
        manifest: All that is known of the corpus.
        dtype: Of the ids.
        num_tokens: Ids in this split.
        num_documents: Documents in this split.
        max_id: Largest id in this split.
        vocab_size: Of the tokenizer; every id is below it.
        identity: SHA-256 of the manifest, in hexadecimal.
    """

    def __init__(self, store: Store, split: str, manifest: Manifest, verify_blocks: bool = False) -> None:
        found = manifest.splits[split]
        is_local = isinstance(store, LocalStore)
        self.path = store.folder if is_local else store.place
        self.split = split
        self.manifest = manifest
        self.dtype = np.dtype(manifest.dtype).newbyteorder("<")
        self.num_tokens = found.num_tokens
        self.num_documents = found.num_documents
        self.max_id = found.max_id
        self.vocab_size = manifest.tokenizer.vocab_size
        self.identity = manifest.identity
        self._store = store
        self._verify_blocks = verify_blocks
        self._shards = found.shards
        self._bounds = np.cumsum([0, *(shard.num_tokens for shard in found.shards)])  # where shards begin
        begun = [shard.num_documents - shard.continues for shard in found.shards]
        self._document_bounds = np.cumsum([0, *begun])  # documents that begin before a shard
        self._cache = None if is_local else BlockCache(store)
        self._readers: dict[int, ShardReader] = {}
        self._mapped: OrderedDict[int, None] = OrderedDict()  # those with open maps, the one used last at the end

    @classmethod
    def open(
        cls,
        path: str | Path,
        split: str = "train",
        *,
        tokenizer: Tokenizer | None = None,
        verify_blocks: bool = False,
    ) -> "Corpus":
        """Open one split of a corpus.

        Checks the manifest and, on this machine, the sizes of all files of the split; reads neither
        ids nor indices: `verify` does.

        Args:
            path: The folder, or a URL that fsspec opens.
            split: "train" or "validation".
            tokenizer: Where given, the corpus must have been made with it.
            verify_blocks: Compare the checksum of each 4 MiB of ids before one of them is first given
                out. Always so in a store.

        Raises:
            CorpusError: a file is missing or cut, the manifest is damaged, there is no such split, or
                the corpus was made with another tokenizer.
        """
        store = Store.of(path)
        if isinstance(store, LocalStore) and not store.folder.is_dir():
            raise CorpusError("corpus", "be a folder that exists", str(path), "Check the path, or build it first")
        manifest = Manifest.from_bytes(store.read(FILE_NAME), store.path_of(FILE_NAME))
        if split not in manifest.splits:
            step = (
                "Build the corpus with a validation fraction above 0" if split == "validation" else "Name one of these"
            )
            raise CorpusError("split", f"be one of {', '.join(manifest.splits)}", split, step)
        if tokenizer is not None:
            _check_tokenizer(store, manifest, tokenizer)
        corpus = cls(store, split, manifest, verify_blocks)
        if isinstance(store, LocalStore):  # a store would be asked once a file
            corpus._check_sizes()
        return corpus

    def __reduce__(self) -> tuple:
        return _reopen, (self.path, self.split, self._verify_blocks)  # maps do not travel between processes

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
        tokenizer = Tokenizer.from_json(self._store.read(TOKENIZER_FILE).decode("utf-8", "replace"))
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
            begin = int(self._bounds[nth])
            ids[low - start : high - start] = self._reader(nth).tokens(low - begin, high - begin)
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
            return self._reader(0).windows(starts, length)
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
            windows[group] = self._reader(nth).windows(starts[group] - self._bounds[nth], length)
        return windows

    @property
    def document_bounds(self) -> np.ndarray:
        """Where each document begins, and at the end the number of tokens; int64, (documents + 1,), made anew."""
        return self.document_begins(np.arange(self.num_documents + 1))

    def document_begins(self, documents: np.ndarray) -> np.ndarray:
        """Where some documents begin, int64; `num_documents` gives the number of tokens.

        Args:
            documents: int64, (n,), from 0 to `num_documents`.
        """
        documents = np.asarray(documents, np.int64)
        begins = np.full(len(documents), self.num_tokens)
        shard = np.searchsorted(self._document_bounds, documents, "right") - 1
        for nth in np.unique(shard[shard < len(self._shards)]).tolist():
            mine = shard == nth
            inside = documents[mine] - self._document_bounds[nth] + self._shards[nth].continues
            begins[mine] = self._reader(nth).document_begins(inside) + self._bounds[nth]
        return begins

    def find_documents(self, tokens: np.ndarray) -> np.ndarray:
        """The document in which each of some ids lies, int64.

        Args:
            tokens: int64, (n,), from 0 to below `num_tokens`.
        """
        tokens = np.asarray(tokens, np.int64)
        documents = np.empty(len(tokens), np.int64)
        shard = np.searchsorted(self._bounds, tokens, "right") - 1
        for nth in np.unique(shard).tolist():
            mine = shard == nth
            inside = self._reader(nth).find_documents(tokens[mine] - self._bounds[nth])
            documents[mine] = inside + self._document_bounds[nth] - self._shards[nth].continues
        return documents

    def document_starts(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Whether a document begins at each id of some windows, bool, (len(starts), length); empty documents do not.

        Args:
            starts: int64, (n,); tokens from the beginning of the split.
            length: Ids a window.
        """
        starts = np.asarray(starts, np.int64)
        flags = np.zeros((len(starts), length), bool)
        first, last = (self.find_documents(starts + offset) for offset in (0, length - 1))
        flags[:, 0] = self.document_begins(first) == starts
        counts = last - first
        rows = np.repeat(np.arange(len(starts)), counts)
        later = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + 1 + first[rows]
        flags[rows, self.document_begins(later) - starts[rows]] = True
        return flags

    def origins(self, documents: np.ndarray) -> list[tuple[str, int, str | None]]:
        """Where some documents come from: source, row in it from 0, and id where the source has one.

        Args:
            documents: int64, (n,), from 0 to below `num_documents`.

        Raises:
            CorpusError: the corpus keeps no record of it.
        """
        documents = np.asarray(documents, np.int64)
        shard = np.searchsorted(self._document_bounds, documents, "right") - 1
        origins: dict[int, tuple[str, int, str | None]] = {}
        for nth in np.unique(shard).tolist():
            mine = documents[shard == nth]
            inside = mine - self._document_bounds[nth] + self._shards[nth].continues
            origins |= zip(mine.tolist(), self._reader(nth).origins(inside), strict=True)
        return [origins[document] for document in documents.tolist()]

    def document(self, index: int) -> np.ndarray:
        """The ids of one document, end-of-text included where it was appended.

        Raises:
            SettingError: there is no such document.
        """
        if not 0 <= index < self.num_documents:
            raise SettingError("index", f"be from 0 to {self.num_documents - 1}", index, "Ask for a document it has")
        return self.tokens(*self.document_begins(np.array([index, index + 1])).tolist())

    def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """Read every block and index of this split and compare the checksums.

        Args:
            progress: Called with the bytes read so far.

        Raises:
            CorpusError: a block or an index is not as it was written; says which.
        """
        self._check_sizes()
        done = 0
        for shard in self._shards:
            name = f"{shard.name}.idx"
            if (found := f"{zlib.crc32(self._store.read(name)):08x}") != shard.idx_crc32:
                raise CorpusError(self._store.path_of(name), f"have the checksum {shard.idx_crc32}", found, _REBUILD)
            name = f"{shard.name}.bin"
            for number, expected in enumerate(shard.block_crc32s):
                block = self._store.read_range(name, number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES)
                check_block(self._store.path_of(name), number, block, expected)
                done += len(block)
                if progress:
                    progress(done)

    def _reader(self, nth: int) -> ShardReader:
        if nth not in self._readers:
            shard = self._shards[nth]
            self._readers[nth] = ShardReader(self._store, shard, self.dtype, self._cache, self._verify_blocks)
        self._mapped[nth] = None
        self._mapped.move_to_end(nth)
        if len(self._mapped) > _MOST_MAPPED:
            self._readers[self._mapped.popitem(last=False)[0]].close()
        return self._readers[nth]

    def _check_sizes(self) -> None:
        for shard in self._shards:
            for name, size in ((f"{shard.name}.bin", shard.bin_bytes), (f"{shard.name}.idx", shard.idx_bytes)):
                found = self._store.size(name)
                if found is None:
                    raise CorpusError(self._store.path_of(name), "be there", "missing", _REBUILD)
                if found != size:
                    raise CorpusError(self._store.path_of(name), f"have {size} bytes", f"{found} bytes long", _REBUILD)


def _reopen(path: str | Path, split: str, verify_blocks: bool) -> Corpus:
    return Corpus.open(path, split, verify_blocks=verify_blocks)


def _stamp(tokenizer: object) -> str:
    return f"{tokenizer.name} ({tokenizer.identity[:12]})"


def _check_tokenizer(store: Store, manifest: Manifest, tokenizer: Tokenizer) -> None:
    if tokenizer.identity != manifest.tokenizer.identity:
        rule = f"be made with the tokenizer in use, {_stamp(tokenizer)}"
        step = "Build the corpus again with that tokenizer, or use the one it was made with"
        raise CorpusError(f"corpus {store.place}", rule, f"made with another, {_stamp(manifest.tokenizer)}", step)


def is_corpus(path: str | Path) -> bool:
    """Whether a corpus was published at `path`; it may still be damaged."""
    return Store.of(path).size(FILE_NAME) is not None
