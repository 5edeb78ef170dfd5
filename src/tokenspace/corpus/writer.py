"""Ids -> shards of one split, with a checksum for every block.

A shard is closed at the first end of a document at or beyond the size asked for: a
document never spans shards, and none is held back to find out its length.
"""

import contextlib
import zlib
from pathlib import Path

import numpy as np

from tokenspace.corpus.encoding import Encoded
from tokenspace.corpus.format import index_bytes
from tokenspace.corpus.manifest import BLOCK_BYTES, Shard, Split
from tokenspace.files import room_on_disk


class SplitWriter:
    """Writes `SPLIT-00000.bin`, `SPLIT-00000.idx`, and so on, into a folder.

    Args:
        folder: Where the files go.
        split: "train" or "validation".
        dtype: Of the ids on disk.
        shard_bytes: Size at which a `.bin` is closed.
    """

    def __init__(self, folder: Path, split: str, dtype: np.dtype, shard_bytes: int) -> None:
        self._folder = folder
        self._split = split
        self._dtype = dtype
        self._shard_tokens = max(1, shard_bytes // dtype.itemsize)
        self._shards: list[Shard] = []
        self._open: _ShardWriter | None = None
        self._max_id = 0
        self._num_bytes = 0

    def append(self, batch: Encoded) -> None:
        """Write the ids of some pieces.

        Raises:
            DiskError: the disk is full.
        """
        if len(batch.ids):
            self._max_id = max(self._max_id, int(batch.ids.max()))
        assert self._max_id <= np.iinfo(self._dtype).max  # an id must never wrap
        ids = batch.ids.astype(self._dtype)
        self._num_bytes += ids.nbytes
        with room_on_disk(self._folder / self._split, self._num_bytes):
            self._append(ids, batch.lengths, batch.ends)

    def close(self) -> Split | None:
        """Finish the last shard; None where nothing was written.

        Raises:
            DiskError: the disk is full.
        """
        with room_on_disk(self._folder / self._split, self._num_bytes):
            self._close_shard()
        if not self._shards:
            return None
        return Split(
            num_tokens=sum(shard.num_tokens for shard in self._shards),
            num_documents=sum(shard.num_documents for shard in self._shards),
            max_id=self._max_id,
            shards=tuple(self._shards),
        )

    def abandon(self) -> None:
        """Close the open file without finishing it."""
        if self._open:
            self._open.abandon()

    def _append(self, ids: np.ndarray, lengths: np.ndarray, ends: np.ndarray) -> None:
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        document_ends = np.flatnonzero(ends) + 1  # the piece after
        start = 0
        while start < len(lengths):
            if self._open and self._open.at_document_end and self._open.num_tokens >= self._shard_tokens:
                self._close_shard()
            if not self._open:
                self._open = _ShardWriter(self._folder / f"{self._split}-{len(self._shards):05d}", self._dtype)
            full_at = bounds[start] + self._shard_tokens - self._open.num_tokens
            ahead = document_ends[document_ends > start]
            nth = np.searchsorted(bounds[ahead], full_at)
            until = int(ahead[nth]) if nth < len(ahead) else len(lengths)
            self._open.append(ids[bounds[start] : bounds[until]], lengths[start:until], ends[start:until])
            start = until

    def _close_shard(self) -> None:
        if self._open:
            self._shards.append(self._open.close())
            self._open = None


class _ShardWriter:
    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self.num_tokens = 0
        self.at_document_end = True
        self._path = path
        self._dtype = dtype
        self._file = path.with_suffix(".bin").open("wb")
        self._checksums: list[str] = []
        self._crc, self._in_block = 0, 0
        self._lengths: list[np.ndarray] = []  # of whole documents
        self._begun = 0  # tokens of the document that is not ended yet

    def append(self, ids: np.ndarray, lengths: np.ndarray, ends: np.ndarray) -> None:
        self._file.write(ids.data)
        self._checksum(memoryview(ids).cast("B"))
        self.num_tokens += len(ids)
        at_ends = np.cumsum(lengths)[ends] + self._begun
        self._lengths.append(np.diff(at_ends, prepend=0))
        self._begun += len(ids) - (int(at_ends[-1]) if len(at_ends) else 0)
        self.at_document_end = bool(ends[-1])

    def _checksum(self, data: memoryview) -> None:
        while data:
            part = data[: BLOCK_BYTES - self._in_block]
            self._crc = zlib.crc32(part, self._crc)
            self._in_block += len(part)
            data = data[len(part) :]
            if self._in_block == BLOCK_BYTES:
                self._end_block()

    def _end_block(self) -> None:
        self._checksums.append(f"{self._crc:08x}")
        self._crc, self._in_block = 0, 0

    def close(self) -> Shard:
        assert self.at_document_end and not self._begun
        if self._in_block:
            self._end_block()
        lengths = np.concatenate(self._lengths)
        index = index_bytes(lengths, self._dtype)
        self._file.close()
        self._path.with_suffix(".idx").write_bytes(index)
        return Shard(
            name=self._path.name,
            num_tokens=self.num_tokens,
            num_documents=len(lengths),
            bin_bytes=self.num_tokens * self._dtype.itemsize,
            idx_bytes=len(index),
            idx_crc32=f"{zlib.crc32(index):08x}",
            block_crc32s=tuple(self._checksums),
        )

    def abandon(self) -> None:
        with contextlib.suppress(OSError):  # what is still in its buffer may not fit either
            self._file.close()
