"""Source files by name: on this machine or behind a URL that fsspec knows, compressed or not.

What is inside is no matter of this file.
"""

import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from tokenspace.errors import TextError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # a drive letter alone is none


def _zstandard(file: BinaryIO) -> BinaryIO:
    import pyarrow  # a fifth of a second

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd")


_READERS: dict[str, Callable[[BinaryIO], BinaryIO]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".xz": lzma.LZMAFile,
    ".zst": _zstandard,
}


def is_url(name: str) -> bool:
    """Whether fsspec opens this name, not the file system.

    Example:
        >>> is_url("s3://bucket/a.txt"), is_url("C:/texts/a.txt")
        (True, False)
    """
    return bool(_URL.match(name))


def format_of(name: str) -> tuple[str, str]:
    """The suffix that tells the format, and that of the compression around it or nothing, in lower case.

    Example:
        >>> format_of("corpus/a.JSONL.gz"), format_of("README")
        (('.jsonl', '.gz'), ('', ''))
    """
    path = PurePosixPath(name.replace("\\", "/").lower())
    if path.suffix in _READERS:
        return PurePosixPath(path.stem).suffix, path.suffix
    return path.suffix, ""


def find(name: str) -> list[str] | None:
    """The names of all files in a folder at any depth, unsorted; a file itself alone; None where nothing is.

    Raises:
        TextError: a store cannot be reached.
    """
    if not is_url(name):
        path = Path(name)
        if not path.is_dir():
            return [name] if path.exists() else None
        return [file.as_posix() for file in path.rglob("*") if file.is_file()]
    with _of_store(name):
        system, path = _store(name)
        if not system.exists(path):
            return None
        if not system.isdir(path):
            return [name]
        return [system.unstrip_protocol(file) for file in system.find(path)]


def is_folder(name: str) -> bool:
    """Whether this is a folder, here or in a store."""
    if not is_url(name):
        return Path(name).is_dir()
    with _of_store(name):
        system, path = _store(name)
        return bool(system.isdir(path))


def file_size(name: str) -> int | None:
    """Bytes of a file as it is stored; None for a pipe or whatever else has no size."""
    if not is_url(name):
        return Path(name).stat().st_size if Path(name).is_file() else None
    with _of_store(name):
        system, path = _store(name)
        return system.size(path)


def remote_stamp(url: str) -> str:
    """What a store says of a file that changes with its content: its ETag or the like, at least its size and date."""
    with _of_store(url):
        system, path = _store(url)
        info = system.info(path)
    for key in ("ETag", "etag", "checksum", "md5", "md5Hash", "content_md5"):
        if info.get(key):
            return f"etag:{str(info[key]).strip(chr(34))}"
    date = next((info[key] for key in ("LastModified", "mtime", "last_modified", "created") if info.get(key)), "")
    return f"size:{info.get('size')}:{date}"


def read_at(name: str, start: int, stop: int) -> bytes:
    """The bytes from `start` up to but not including `stop`, or to the end of the file."""
    if is_url(name):
        with _of_store(name):
            system, path = _store(name)
            return system.cat_file(path, start=start, end=stop)
    with Path(name).open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


class PartReader(io.RawIOBase):
    """Some bytes of an open file, as a file; keeps count of them and their CRC-32.

    Args:
        file: Open for reading bytes; not closed here.
        start: First byte.
        stop: The byte after the last; None for the end of the file.
    """

    def __init__(self, file: BinaryIO, start: int = 0, stop: int | None = None) -> None:
        if start:
            file.seek(start)
        self._file, self.start = file, start
        self._left = None if stop is None else stop - start
        self.taken, self.crc32 = 0, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as there are bytes."""
        size = len(buffer) if self._left is None else min(len(buffer), self._left)
        data = self._file.read(size)
        buffer[: len(data)] = data
        self.taken += len(data)
        self.crc32 = zlib.crc32(data, self.crc32)
        if self._left is not None:
            self._left -= len(data)
        return len(data)


@contextmanager
def open_file(name: str) -> Iterator[BinaryIO]:
    """A file or URL, open for reading its bytes as they are stored.

    Raises:
        TextError: it cannot be read.
    """
    if is_url(name):
        with _of_store(name):
            system, path = _store(name)
            with system.open(path, "rb") as file:
                yield file
        return
    with Path(name).open("rb") as file:
        yield file


@contextmanager
def decompressed(part: PartReader, name: str) -> Iterator[BinaryIO]:
    """What a file holds once its compression is taken off, as its name tells it.

    Raises:
        TextError: it is cut or damaged.
    """
    compression = format_of(name)[1]
    file = io.BufferedReader(part, 1 << 18)
    try:
        if compression:
            file = _READERS[compression](file)
        yield file
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise _damaged(name, error) from error
    except OSError as error:
        if compression == ".zst" and error.errno is None:  # so pyarrow says what is wrong inside
            raise _damaged(name, error) from error
        raise


def _damaged(name: str, error: Exception) -> TextError:
    return TextError(name, "be a whole compressed file", f"cut or damaged ({error})", "Copy or write it again")


def _store(url: str) -> tuple[Any, str]:
    import fsspec

    return fsspec.core.url_to_fs(url)


@contextmanager
def _of_store(url: str) -> Iterator[None]:
    """Say in one line what a store or its missing driver says."""
    try:
        yield
    except ImportError as error:
        step = "Install the package that it names, such as s3fs for s3:// or gcsfs for gs://"
        raise TextError(url, "be in a store that can be opened here", f"not ({error})", step) from error
    except ValueError as error:
        if "rotocol" not in str(error):
            raise
        raise TextError(url, "begin with a protocol that fsspec knows", str(error), "Check the URL") from error
