"""One shard of an open corpus: its ids, and where its documents begin, read as they are asked for.

On this machine files are mapped; in a store they are read by blocks, of which the last ones
used are kept. Nothing of an index is held whole, however many documents it has.
"""

import io
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np

from tokenspace.corpus.format import IndexHeader, gather_windows
from tokenspace.corpus.manifest import BLOCK_BYTES, Shard
from tokenspace.corpus.origins import find_origins
from tokenspace.errors import CorpusError
from tokenspace.store import LocalStore, Store

_BLOCKS_KEPT = 32  # of a store, over all shards: 128 MiB
_REBUILD = "Build the corpus again, or copy the file again from where it is whole"


class BlockCache:
    """The blocks of a store that were read last.

    Args:
        store: Where the corpus is.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def read(self, name: str, start: int, stop: int, block_crc32s: tuple[str, ...] | None) -> bytes:
        """The bytes of a file from `start` up to but not including `stop`.

        Raises:
            CorpusError: the file cannot be read, or a block is not as it was written.
        """
        first, last = start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)
        blocks = [self._block(name, number, block_crc32s) for number in range(first, last)]
        return b"".join(blocks)[start - first * BLOCK_BYTES : stop - first * BLOCK_BYTES]

    def _block(self, name: str, number: int, block_crc32s: tuple[str, ...] | None) -> bytes:
        key = name, number
        if key in self._blocks:
            self._blocks.move_to_end(key)
            return self._blocks[key]
        block = self._store.read_range(name, number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES)
        if block_crc32s is not None:
            check_block(self._store.path_of(name), number, block, block_crc32s[number])
        self._blocks[key] = block
        if len(self._blocks) > _BLOCKS_KEPT:
            self._blocks.popitem(last=False)
        return block


def check_block(path: str, number: int, block: bytes | np.ndarray, expected: str) -> None:
    """Refuse a block of ids that is not as it was written.

    Raises:
        CorpusError: names the file and the bytes.
    """
    if (found := f"{zlib.crc32(block):08x}") != expected:
        span = f"bytes {number * BLOCK_BYTES} to {number * BLOCK_BYTES + len(block) - 1}"
        raise CorpusError(f"{path}, {span}", f"have the checksum {expected}", found, _REBUILD)


class ShardReader:
    """Reads one shard.

    Args:
        store: Where the corpus is.
        shard: What the manifest says of it.
        dtype: Of the ids.
        cache: For stores; None where files can be mapped.
        verify: Check each block when one of its ids is first read, and the index at its first use.
    """

    def __init__(self, store: Store, shard: Shard, dtype: np.dtype, cache: BlockCache | None, verify: bool) -> None:
        self._store, self._shard, self._dtype, self._cache = store, shard, dtype, cache
        self._unverified = np.full(len(shard.block_crc32s), verify)
        self._verifies = verify
        self._tokens: np.ndarray | None = None
        self._index: np.ndarray | None = None
        self._header: IndexHeader | None = None

    def close(self) -> None:
        """Let go of the maps; what is asked for next opens them again."""
        self._tokens = self._index = None

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """The ids from `start` up to but not including `stop`; maybe a view.

        Raises:
            CorpusError: they cannot be read, or are not as they were written.
        """
        if self._cache is not None:
            size = self._dtype.itemsize
            data = self._cache.read(f"{self._shard.name}.bin", start * size, stop * size, self._shard.block_crc32s)
            return np.frombuffer(data, self._dtype)
        self._verify(np.array([start]), stop - start)
        return self._mapped_tokens()[start:stop]

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Rows of `length` ids, as a new array (len(starts), length).

        Raises:
            CorpusError: as `tokens`.
        """
        if self._cache is not None:
            return np.stack([self.tokens(int(start), int(start) + length) for start in starts])
        self._verify(starts, length)
        return gather_windows(self._mapped_tokens(), starts, length)

    def find_documents(self, tokens: np.ndarray) -> np.ndarray:
        """The document in which each of these ids lies, counted within the shard; empty ones hold none."""
        low, high = np.zeros(len(tokens), np.int64), np.full(len(tokens), self._shard.num_documents)
        while (high - low > 1).any():  # all at once; numpy's own search would copy the unaligned index
            middle = (low + high) // 2
            begun = self.document_begins(middle) <= tokens
            low, high = np.where(begun, middle, low), np.where(begun, high, middle)
        return low

    def document_begins(self, documents: np.ndarray) -> np.ndarray:
        """The first id of each of these documents within the shard; its number of ids for the one after the last."""
        header = self._index_header()
        sequences = self._take(header.documents_at, documents)
        inside = sequences < header.num_sequences
        begins = np.full(len(documents), self._shard.num_tokens)
        begins[inside] = self._take(header.pointers_at, sequences[inside]) // self._dtype.itemsize
        return begins

    def origins(self, documents: np.ndarray) -> list[tuple[str, int, str | None]]:
        """Source, row and id of some documents, counted within the shard.

        Raises:
            CorpusError: the shard has no record of them, or it cannot be read.
        """
        name = f"{self._shard.name}.origins"
        if self._shard.origins_bytes is None:
            step = "Build the corpus from its text again"
            raise CorpusError(self._store.path_of(name), "be there to tell where documents come from", "absent", step)
        file = io.BytesIO(self._store.read(name)) if self._cache is not None else self._local(name).open("rb")
        with file:
            return find_origins(file, documents)

    def _take(self, begin: int, indices: np.ndarray) -> np.ndarray:
        """Elements of an int64 array that begins at a byte of the `.idx`."""
        name = f"{self._shard.name}.idx"
        if self._cache is not None:
            places = (begin + 8 * indices).tolist()
            data = b"".join(self._cache.read(name, place, place + 8, None) for place in places)
            return np.frombuffer(data, "<i8")
        if self._index is None:
            self._index = np.memmap(self._local(name), np.uint8, "r")
        return np.ndarray(((len(self._index) - begin) // 8,), "<i8", self._index, begin)[indices]

    def _index_header(self) -> IndexHeader:
        if self._header is None:
            name = f"{self._shard.name}.idx"
            if self._verifies:
                self._verify_index(name)
            data = self._store.read_range(name, 0, IndexHeader.num_bytes)
            self._header = IndexHeader.parse(data, name, self._shard.idx_bytes)
        return self._header

    def _verify_index(self, name: str) -> None:
        crc32 = 0
        for start in range(0, self._shard.idx_bytes, BLOCK_BYTES):
            crc32 = zlib.crc32(self._store.read_range(name, start, start + BLOCK_BYTES), crc32)
        if (found := f"{crc32:08x}") != self._shard.idx_crc32:
            raise CorpusError(self._store.path_of(name), f"have the checksum {self._shard.idx_crc32}", found, _REBUILD)

    def _mapped_tokens(self) -> np.ndarray:
        if self._tokens is None:
            path = self._local(f"{self._shard.name}.bin")
            empty = not self._shard.num_tokens  # cannot be mapped
            self._tokens = np.empty(0, self._dtype) if empty else np.asarray(np.memmap(path, self._dtype, "r"))
        return self._tokens

    def _verify(self, starts: np.ndarray, length: int) -> None:
        if not length or not self._unverified.any():
            return
        size = self._dtype.itemsize
        first, last = starts * size // BLOCK_BYTES, ((starts + length) * size - 1) // BLOCK_BYTES
        touched = np.unique(np.concatenate([np.arange(a, b + 1) for a, b in zip(first, last, strict=True)]))
        for number in touched[self._unverified[touched]].tolist():
            data = self._mapped_tokens().view(np.uint8)[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
            path = self._store.path_of(f"{self._shard.name}.bin")
            check_block(path, number, data, self._shard.block_crc32s[number])
            self._unverified[number] = False

    def _local(self, name: str) -> Path:
        assert isinstance(self._store, LocalStore)
        return self._store.folder / name
