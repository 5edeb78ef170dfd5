"""Ids -> shards of one split, with a checksum for every block.

A shard is closed at the first end of a document at or beyond the size asked for, so that
a document spans shards only where two tasks share it. None is held back to find out its length.
"""

import contextlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from tokenspace.corpus.encoding import Encoded
from tokenspace.corpus.format import index_bytes
from tokenspace.corpus.manifest import BLOCK_BYTES, Shard, Split
from tokenspace.corpus.origins import OriginsWriter
from tokenspace.store import Store

SHARD_DOCUMENTS = 1 << 20  # at most, so that index and origins of one shard fit in memory


@dataclass(frozen=True)
class Target:
    """Where the shards of one split go, and what they are called.

    Attributes:
        store: Where they go.
        name: Gives the name of the nth shard.
        task: Whose shards they are, or None.
        attempt: Where given, files are written under hidden names that carry it (`hidden_name`).
    """

    store: Store
    name: Callable[[int], str]
    task: int | None = None
    attempt: str | None = None

    def file_name(self, name: str) -> str:
        """The name under which a file is written."""
        return name if self.attempt is None else hidden_name(name, self.attempt)


def hidden_name(name: str, attempt: str) -> str:
    """What a file is called until its attempt is the one that counts.

    Example:
        >>> hidden_name("train-00017.bin", "host-12-ab34")
        '.train-00017.host-12-ab34.bin.part'
    """
    stem, _, suffix = name.rpartition(".")
    return f".{stem}.{attempt}.{suffix}.part"


class SplitWriter:
    """Writes a `.bin`, an `.idx` and an `.origins` a shard.

    Args:
        target: Where they go.
        dtype: Of the ids on disk.
        shard_bytes: Size at which a `.bin` is closed.
        continues: Whether the first document began in the task before.
    """

    def __init__(self, target: Target, dtype: np.dtype, shard_bytes: int, continues: bool = False) -> None:
        self._target = target
        self._dtype = dtype
        self._shard_tokens = max(1, shard_bytes // dtype.itemsize)
        self._continues = continues
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
        self._num_bytes += len(batch.ids) * self._dtype.itemsize
        with self._target.store.room(self._num_bytes):
            self._append(batch)

    def close(self) -> Split | None:
        """Finish the last shard, though its last document may go on elsewhere; None where nothing was written.

        Raises:
            DiskError: the disk is full.
        """
        with self._target.store.room(self._num_bytes):
            self._close_shard()
        return Split.of(self._shards, self._max_id) if self._shards else None

    def abandon(self) -> None:
        """Remove all that was written."""
        if self._open:
            self._open.abandon()
            self._open = None
        for shard in self._shards:
            for name in shard.files:
                self._target.store.remove(self._target.file_name(name))

    def _append(self, batch: Encoded) -> None:
        ids = batch.ids.astype(self._dtype)
        bounds = np.concatenate([[0], np.cumsum(batch.lengths)])
        document_ends = np.flatnonzero(batch.ends) + 1  # the piece after
        start = 0
        while start < len(batch.lengths):
            if self._open and self._open.at_document_end and self._is_full(self._open):
                self._close_shard()
            if not self._open:
                self._open = _ShardWriter(
                    self._target, len(self._shards), self._dtype, self._continues and not self._shards
                )
                self._open.begin()
            full_at = bounds[start] + self._shard_tokens - self._open.num_tokens
            ahead = document_ends[np.searchsorted(document_ends, start, "right") :]
            nth = min(np.searchsorted(bounds[ahead], full_at), SHARD_DOCUMENTS - self._open.num_ended - 1)
            until = int(ahead[nth]) if nth < len(ahead) else len(batch.lengths)
            part = slice(start, until)
            self._open.append(ids[bounds[start] : bounds[until]], batch.lengths[part], batch.ends[part])
            self._open.note(batch.origins[part])
            start = until

    def _is_full(self, shard: "_ShardWriter") -> bool:
        return shard.num_tokens >= self._shard_tokens or shard.num_ended >= SHARD_DOCUMENTS

    def _close_shard(self) -> None:
        if self._open:
            self._shards.append(self._open.close())
            self._open = None


class _ShardWriter:
    def __init__(self, target: Target, nth: int, dtype: np.dtype, continues: bool) -> None:
        self.num_tokens = 0
        self.num_ended = 0  # documents
        self.at_document_end = True
        self._target = target
        self._name = target.name(nth)
        self._dtype = dtype
        self._continues = continues
        self._files = contextlib.ExitStack()
        self._written: list[str] = []
        self._file: BinaryIO
        self._origins = OriginsWriter()
        self._begins = np.ones(0, bool)  # of the pieces appended last
        self._checksums: list[str] = []
        self._crc, self._in_block = 0, 0
        self._lengths: list[np.ndarray] = []  # of whole documents
        self._begun = 0  # tokens of the document that is not ended yet

    def begin(self) -> None:
        """Open the file; apart from `__init__`, so that whoever is interrupted here can abandon it."""
        name = self._target.file_name(f"{self._name}.bin")
        self._written.append(name)
        self._file = self._files.enter_context(self._target.store.writer(name))

    def append(self, ids: np.ndarray, lengths: np.ndarray, ends: np.ndarray) -> None:
        self._file.write(ids.data)
        self._checksum(memoryview(ids).cast("B"))
        self.num_tokens += len(ids)
        at_ends = np.cumsum(lengths)[ends] + self._begun
        self._lengths.append(np.diff(at_ends, prepend=0))
        self._begun += len(ids) - (int(at_ends[-1]) if len(at_ends) else 0)
        self._begins = np.concatenate([[self.at_document_end], ends[:-1]])
        self.num_ended += len(at_ends)
        self.at_document_end = bool(ends[-1])

    def note(self, origins: np.ndarray) -> None:
        self._origins.append(origins[self._begins])

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
        if self._in_block:
            self._end_block()
        lengths = np.concatenate(self._lengths)
        if not self.at_document_end:
            lengths = np.append(lengths, self._begun)
        index, origins = index_bytes(lengths, self._dtype), self._origins.close()
        self._files.close()
        self._write(".idx", index)
        self._write(".origins", origins)
        return Shard(
            name=self._name,
            num_tokens=self.num_tokens,
            num_documents=len(lengths),
            bin_bytes=self.num_tokens * self._dtype.itemsize,
            idx_bytes=len(index),
            idx_crc32=f"{zlib.crc32(index):08x}",
            block_crc32s=tuple(self._checksums),
            task=self._target.task,
            continues=self._continues,
            origins_bytes=len(origins),
            origins_crc32=f"{zlib.crc32(origins):08x}",
        )

    def _write(self, suffix: str, data: bytes) -> None:
        name = self._target.file_name(self._name + suffix)
        self._written.append(name)
        with self._target.store.writer(name) as file:
            file.write(data)

    def abandon(self) -> None:
        with contextlib.suppress(OSError):  # what is still in its buffer may not fit either
            self._files.close()
        for name in self._written:
            self._target.store.remove(name)
