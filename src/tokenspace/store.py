"""Where a corpus is built: a folder or a place in an object store, behind one small set of operations.

What several processes on several machines need of it: a file that is created by exactly one
of them (`create`), and files that appear under their final name in one step (`writer`, then
`rename`). Nothing here knows what a corpus is.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from tokenspace.errors import CorpusError, SettingError
from tokenspace.files import room_on_disk, sync_folder

_COPY_BYTES = 4 << 20
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


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
        if "://" not in str(place):
            return LocalStore(Path(place))
        return _open_url(str(place))

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


class LocalStore(Store):
    """A folder, made when the first file is."""

    is_shared = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = str(folder)

    def size(self, name: str) -> int | None:
        """See `Store`."""
        try:
            return (self.folder / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, name: str) -> bytes:
        """See `Store`."""
        with self._readable(name):
            return (self.folder / name).read_bytes()

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """See `Store`."""
        with self._readable(name), (self.folder / name).open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def names(self) -> list[str]:
        """See `Store`."""
        found = (Path(folder) / name for folder, _, names in os.walk(self.folder) for name in names)
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    def create(self, name: str, data: bytes) -> bool:
        """See `Store`."""
        with self.room(len(data)):
            while True:
                try:
                    self._create(self._new(name), data)
                    return True
                except FileExistsError:
                    return False
                except FileNotFoundError:  # another process swept the part file, or pruned the folder: once more
                    continue

    def _create(self, path: Path, data: bytes) -> None:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                _sync(file)
            part.chmod(0o644)  # mkstemp makes it private
            _link(part, path)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(path.parent)

    @contextlib.contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """See `Store`."""
        path = self._new(name)
        file = path.open("xb")
        try:
            with file:
                yield file
                _sync(file)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def rename(self, name: str, new_name: str) -> None:
        """See `Store`."""
        (self.folder / name).replace(self._new(new_name))

    def sync(self) -> None:
        """See `Store`."""
        sync_folder(self.folder)

    def remove(self, name: str) -> None:
        """See `Store`."""
        (self.folder / name).unlink(missing_ok=True)

    def prune(self) -> None:
        """See `Store`."""
        for folder, _, _ in os.walk(self.folder, topdown=False):
            with contextlib.suppress(OSError):  # not empty
                Path(folder).rmdir()

    def room(self, needed_bytes: int) -> contextlib.AbstractContextManager[None]:
        """See `Store`."""
        return room_on_disk(self.folder, needed_bytes)

    def copy_from(self, other: Store, name: str, new_name: str) -> None:
        """As a hard link, where the file system allows one."""
        if isinstance(other, LocalStore):
            with contextlib.suppress(OSError):
                os.link(other.folder / name, self._new(new_name))
                return
        super().copy_from(other, name, new_name)

    def _new(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _unreadable(self.path_of(name), error) from error


class RemoteStore(Store):
    """Whatever `fsspec` opens; `create` is its conditional write, which S3-like stores do atomically."""

    def __init__(self, url: str, file_system: Any, root: str) -> None:
        self.place = url
        self._files = file_system
        self._root = root.rstrip("/")
        self.is_shared = "memory" not in _protocols(file_system)

    def size(self, name: str) -> int | None:
        """See `Store`."""
        try:
            return int(self._files.info(self._path(name))["size"])
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        """See `Store`."""
        return self._cat(name, None, None)

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """See `Store`."""
        return self._cat(name, start, stop)

    def names(self) -> list[str]:
        """See `Store`."""
        self._files.invalidate_cache()
        root = self._files._strip_protocol(self._root).rstrip("/")
        return sorted(str(PurePosixPath(path).relative_to(root)) for path in self._files.find(root))

    def create(self, name: str, data: bytes) -> bool:
        """See `Store`."""
        try:
            self._files.pipe_file(self._path(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    @contextlib.contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """See `Store`."""
        file = self._files.open(self._path(name), "wb")
        try:
            yield file
        except BaseException:
            file.discard()
            self.remove(name)  # some stores show a file as soon as it is opened
            raise
        file.close()  # only now is it there

    def rename(self, name: str, new_name: str) -> None:
        """See `Store`."""
        self._files.mv(self._path(name), self._path(new_name))

    def sync(self) -> None:
        """See `Store`."""

    def remove(self, name: str) -> None:
        """See `Store`."""
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def prune(self) -> None:
        """See `Store`."""

    def room(self, needed_bytes: int) -> contextlib.AbstractContextManager[None]:
        """See `Store`."""
        return contextlib.nullcontext()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _cat(self, name: str, start: int | None, stop: int | None) -> bytes:
        try:
            return self._files.cat_file(self._path(name), start=start, end=stop)
        except OSError as error:
            raise _unreadable(self.path_of(name), error) from error


def _open_url(url: str) -> Store:
    import fsspec

    try:
        file_system, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        step = "Give a path, or install what opens such addresses (s3fs, gcsfs, adlfs)"
        raise SettingError("address", f"be one that fsspec opens ({error})", url, step) from error
    if "file" in _protocols(file_system):
        return LocalStore(Path(root))
    return RemoteStore(url, file_system, root)


def _protocols(file_system: Any) -> tuple[str, ...]:
    protocol = file_system.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _link(part: Path, path: Path) -> None:
    """Give a finished file its name, unless that is taken."""
    try:
        os.link(part, path)
    except OSError as error:
        if isinstance(error, FileExistsError) or error.errno not in _NO_LINKS:
            raise
        with path.open("xb") as file, part.open("rb") as source:  # no hard links here; still only one can open it
            shutil.copyfileobj(source, file)
            _sync(file)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _unreadable(path: str, error: OSError) -> CorpusError:
    return CorpusError(path, "be a file that can be read", error.strerror or str(error) or "missing", "Check the path")
