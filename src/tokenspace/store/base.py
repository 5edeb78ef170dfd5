"""What several processes on several machines need of the place where they build a corpus.

A file that exactly one of them creates (`create`), and files that appear under their final name
in one step (`writer`, then `rename`). Nothing here knows what a corpus is.
"""

import contextlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import BinaryIO

from tokenspace.errors import CorpusError

_COPY_BYTES = 4 << 20


class Store(ABC):
    """A flat set of named files; names are relative, with "/" between their parts.

    Attributes:
        place: The path or URL, as `Store.of` takes it.
        is_shared: Whether another process that opens `place` sees the same files.
    """

    place: str
    is_shared: bool

    @staticmethod
    def of(place: "str | Path | Store") -> "Store":
        """A store at a path, or at a URL that `fsspec` opens (``s3://bucket/corpus``, ``memory://corpus``).

        Raises:
            SettingError: nothing opens such a URL.

        Example:
            >>> store = Store.of("memory://example-of-a-store")
            >>> store.create("once", b"first"), store.create("once", b"second"), store.read("once")
            (True, False, b'first')
        """
        if isinstance(place, Store):
            return place
        from tokenspace.store.local import LocalStore
        from tokenspace.store.remote import open_url

        return open_url(str(place)) if "://" in str(place) else LocalStore(Path(place))

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a file, or None where there is none."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """All of a file.

        Raises:
            CorpusError: it is missing or cannot be read.
        """

    @abstractmethod
    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """The bytes from `start` up to but not including `stop`; fewer where the file ends before.

        Raises:
            CorpusError: it is missing or cannot be read.
        """

    @abstractmethod
    def names(self) -> list[str]:
        """All files, sorted."""

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Make a file with this content, whole and durable, unless there is one; says whether it did."""

    @abstractmethod
    def writer(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """A new file to write; durable when the block ends well, gone when it does not."""

    @abstractmethod
    def rename(self, name: str, new_name: str) -> None:
        """Give a file another name, replacing what had it; durable after the next `sync` or `create`.

        Raises:
            FileNotFoundError: there is no such file.
        """

    @abstractmethod
    def sync(self) -> None:
        """Bring the names of all files to the disk."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    @abstractmethod
    def prune(self) -> None:
        """Remove folders without files, the store's own too; object stores have none."""

    @abstractmethod
    def room(self, needed_bytes: int) -> contextlib.AbstractContextManager[None]:
        """Turn "no space left" inside the block into a DiskError; 0 where the need is not known."""

    def copy_from(self, other: "Store", name: str, new_name: str) -> None:
        """Take a file of another store over under a new name."""
        with self.writer(new_name) as file:
            for start in range(0, other.size(name) or 0, _COPY_BYTES):
                file.write(other.read_range(name, start, start + _COPY_BYTES))

    def path_of(self, name: str) -> str:
        """What a message calls a file."""
        return f"{self.place.rstrip('/')}/{name}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.place!r})"


def unreadable(path: str, error: OSError) -> CorpusError:
    """The error of a file that should be there."""
    return CorpusError(path, "be a file that can be read", error.strerror or str(error) or "missing", "Check the path")
