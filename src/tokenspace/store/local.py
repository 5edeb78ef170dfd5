"""A folder as a store: fsync for what is to last, hard links for what only one may create."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tokenspace.files import room_on_disk, sync_folder
from tokenspace.store.base import Store, unreadable

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


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
            raise unreadable(self.path_of(name), error) from error


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
