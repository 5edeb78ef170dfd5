"""Whatever `fsspec` opens as a store."""

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from tokenspace.errors import SettingError
from tokenspace.store.base import Store, unreadable
from tokenspace.store.local import LocalStore


def open_url(url: str) -> Store:
    """The store at a URL; a folder for ``file://``.

    Raises:
        SettingError: nothing opens such a URL.
    """
    import fsspec

    try:
        file_system, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        step = "Give a path, or install what opens such addresses (s3fs, gcsfs, adlfs)"
        raise SettingError("address", f"be one that fsspec opens ({error})", url, step) from error
    if "file" in _protocols(file_system):
        return LocalStore(Path(root))
    return RemoteStore(url, file_system, root)


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
            raise unreadable(self.path_of(name), error) from error


def _protocols(file_system: Any) -> tuple[str, ...]:
    protocol = file_system.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
