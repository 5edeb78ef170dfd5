"""Files that appear whole or not at all, and JSON that notices when it was altered.

A file or folder is written aside, brought to the disk (fsync) and renamed into its
place; whoever reads the final name reads all of it. This file knows nothing of what
is inside: formats live with their owners.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tokenspace.errors import CheckpointError, DiskError, SettingError, TokenspaceError

_SEAL = "sha256"
_LINE = json.JSONEncoder(ensure_ascii=False)  # made once: a receipt has a hundred thousand of them


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`, replacing what was there in one step.

    Raises:
        DiskError: the disk is full; what was there before still is.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    part = Path(name)
    try:
        with room_on_disk(path, len(data)), os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o644)  # mkstemp makes it private
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give the path of an empty file to fill, and rename it to `path` when the block ends well; else it is removed.

    Raises:
        SettingError: something stands at `path` already.
        DiskError: the disk is full.
    """
    check_absent(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        with room_on_disk(path, 0):
            yield part
            _sync_file(part)
        part.chmod(0o644)  # mkstemp makes it private
        check_absent(path)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill, and rename it to `path` when the block ends well.

    When the block raises, the half-filled folder is removed.

    Raises:
        SettingError: something stands at `path` already.
        DiskError: the disk is full.
    """
    check_absent(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    try:
        with room_on_disk(path, 0):
            yield part
            for file in sorted(part.rglob("*")):
                sync_folder(file) if file.is_dir() else _sync_file(file)
            sync_folder(part)
        part.chmod(0o755)  # mkdtemp makes it private
        check_absent(path)
        part.rename(path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync_folder(path.parent)


def as_path(value: Any, name: str) -> Path:
    """An argument as a path; what is none, or can be none, is refused by its name.

    Raises:
        SettingError: it is neither text nor a path, or no system could have a file of that name.

    Example:
        >>> as_path("runs/mine", "out").name
        'mine'
    """
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        raise SettingError(name, "be a path", f"of type {type(value).__name__}", "Give a text or a Path")
    try:
        os.lstat(value)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (OSError, ValueError) as error:  # too long, a byte 0, half surrogates
        found = f"{str(value)[:40]!r}: {getattr(error, 'strerror', None) or error}"
        raise SettingError(name, "be a path that can exist", found, "Give another path") from error
    return Path(value)


def check_absent(path: Path, name: str = "out") -> None:
    """Refuse an output path at which something stands already."""
    if path.exists() or path.is_symlink():
        raise SettingError(name, "not exist yet", str(path), "Give another path, or remove that one")


@contextlib.contextmanager
def room_on_disk(path: Path, needed_bytes: int) -> Iterator[None]:
    """Turn "no space left" inside the block into a DiskError that says what was needed.

    Args:
        path: What was to be written; names the disk.
        needed_bytes: Its size, or 0 where it is not known beforehand.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not _says_disk_full(error):
            raise
        free = shutil.disk_usage(path.parent).free
        rule = f"have {needed_bytes:,} bytes of room" if needed_bytes else "have room for all that is written there"
        raise DiskError(
            f"disk of {path}", rule, f"full ({free:,} bytes free)", "Free some space, or write to another disk"
        ) from error


def _says_disk_full(error: OSError | SafetensorError) -> bool:
    if isinstance(error, SafetensorError):  # an error of its own, with the system's number in its text
        return bool(re.search(r"os error (28|112|122)\b", str(error)))  # full on POSIX, on Windows; over quota
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def sync_folder(path: Path) -> None:
    """Bring a folder's list of names to the disk; Windows neither needs nor allows it."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sealed_json(fields: dict) -> bytes:
    """JSON text of `fields` that carries a checksum of itself; the same fields give the same bytes.

    What holds other lists or objects has a line for each; the rest stands on one line, however long.

    Example:
        >>> sealed_json({"tokens": 3, "shards": [{"name": "a", "tokens": 3}]}).decode().splitlines()[1:5]
        [' "tokens": 3,', ' "shards": [', '  {"name": "a", "tokens": 3}', ' ],']
    """
    assert _SEAL not in fields
    return _utf8(_opened({**fields, _SEAL: _digest(fields)}, "\n", is_outermost=True) + "\n")


def _opened(value: Any, line_break: str, is_outermost: bool = False) -> str:
    """JSON text; of all that is in one line, by the encoder in C, which does not indent."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    if not is_outermost and not any(issubclass(kind, dict | list | tuple) for kind in set(map(type, members))):
        return _LINE.encode(value)
    inner = line_break + " "
    if isinstance(value, dict):
        lines = (f"{_LINE.encode(key)}: {_opened(member, inner)}" for key, member in value.items())
        return "{" + inner + f",{inner}".join(lines) + line_break + "}"
    if all(isinstance(row, list | tuple) and set(map(type, row)) <= {int, float} for row in value):
        lines = [_LINE.encode(value)[1:-1].replace("], [", f"],{inner}[")]  # a hundred thousand rows at once
    else:
        lines = [_opened(member, inner) for member in value]
    return "[" + inner + f",{inner}".join(lines) + line_break + "]"


def read_sealed_json(path: Path, error: type[TokenspaceError] = CheckpointError) -> dict:
    """The fields that `sealed_json` wrote, after checking that nobody altered them.

    Raises:
        error: the file is missing, cut, no JSON, or not as it was written.
    """
    try:
        data = path.read_bytes()
    except OSError as cause:
        raise error(str(path), "be a file that can be read", cause.strerror or str(cause), "Check the path") from cause
    return unseal_json(data, str(path), error)


def unseal_json(data: bytes, path: str, error: type[TokenspaceError] = CheckpointError) -> dict:
    """The fields of `sealed_json` text, after checking that nobody altered them.

    Args:
        data: The text.
        path: Where it was read, for messages.
        error: What to raise.

    Raises:
        error: it is cut, no JSON, or not as it was written.
    """
    name = path.replace("\\", "/").rpartition("/")[2]
    try:
        fields = json.loads(data)
        found = fields.pop(_SEAL)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as cause:
        raise error(name, "be whole JSON with a checksum", f"damaged ({cause})", f"Make {path} again") from cause
    if found != _digest(fields):
        raise error(name, "be as it was written", "altered", f"Make {path} again, or undo the change")
    return fields


def _digest(fields: dict) -> str:
    return hashlib.sha256(_utf8(json.dumps(fields, sort_keys=True, ensure_ascii=False))).hexdigest()


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # names of files may hold half surrogates; json.loads takes them


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
