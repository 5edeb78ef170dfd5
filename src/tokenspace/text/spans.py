"""Parts of source files that are read on their own, so that many processes can share one file.

Where a file is cut depends on nothing but its bytes and the size asked for: JSON Lines after a
line break, Parquet between row groups, plain text just before a space that follows a letter, as
`pieces` cuts. Compressed files are one part.
"""

import codecs
import itertools
import re
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tokenspace.errors import SettingError, TextError, check_at_least
from tokenspace.text.decode import check_encoding
from tokenspace.text.files import PartReader, file_size, format_of, is_url, open_file, read_at, remote_stamp
from tokenspace.text.pieces import Piece
from tokenspace.text.records import parquet_groups, read_parquet
from tokenspace.text.sources import JSON_LINES, PARQUET, STDIN, list_files, read_part, unreadable

_WINDOW_BYTES = 1 << 16
_LETTER_BEFORE_SPACE = re.compile(rb"[A-Za-z\x80-\xff](?= )")

FindCut = Callable[[bytes], Iterator[int]]


@dataclass(frozen=True)
class SourceFile:
    """One file that the sources stand for.

    Attributes:
        path: Local path or URL.
        size: Bytes, as stored.
        stamp: Changes with the content: "crc32:…" here, what the store tells elsewhere.
    """

    path: str
    size: int
    stamp: str


@dataclass(frozen=True)
class Span:
    """A part of one file that is read on its own.

    Attributes:
        path: Of the file.
        start: First byte; of Parquet the first row group.
        stop: The byte, or row group, after the last.
        first_row: Lines or rows of the file before it; None where nobody counted them.
        continues: Whether its text goes on with the document of the span before.
        ends_document: Whether its text ends where a document ends.
        stamp: "crc32:…" of these very bytes here; elsewhere that of the file.
    """

    path: str
    start: int
    stop: int
    first_row: int | None
    continues: bool
    ends_document: bool
    stamp: str


def plan_spans(
    sources: Sequence[str | Path], span_bytes: int, *, cuts_documents: bool, encoding: str = "utf-8"
) -> tuple[list[SourceFile], list[Span]]:
    """The files of `sources`, sorted, each once, and the spans that they are cut into.

    Args:
        sources: Files, folders, URLs.
        span_bytes: About the size of a span; a cut is made at the first place at or after each multiple.
        cuts_documents: Whether plain text may be cut within a document.
        encoding: Of plain text and JSON Lines; UTF-8 alone is cut within a document.

    Raises:
        SettingError: a setting is out of range, or standard input is among the sources.
        TextError: a source does not exist or cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "a.txt").write_text("one two three four")
        ...     files, spans = plan_spans([folder], span_bytes=6, cuts_documents=True)
        ...     [(span.start, span.stop, span.continues) for span in spans]
        [(0, 7, False), (7, 13, True), (13, 18, True)]
    """
    check_at_least(1, span_bytes=span_bytes)
    check_encoding(encoding, "strict")
    names = sorted(set(list_files(sources)))
    if STDIN in names:
        raise SettingError("sources", "be files, which can be read twice", STDIN, "Save standard input to a file")
    files, spans = [], []
    pool, stop = ThreadPoolExecutor(), threading.Event()  # reading and checksums let go of the interpreter
    scan = partial(pool.map, partial(_scan, stop))
    try:
        planned = [_plan_file(name, span_bytes, cuts_documents, encoding, scan) for name in names]
        for name, size, of_file in planned:
            with _said_of(name):
                found = list(of_file)
            stamp = found[0].stamp if is_url(name) or len(found) == 1 else f"crc32:{_joined(found):08x}"
            files.append(SourceFile(name, size, stamp))
            spans += found
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    return files, spans


def read_span(
    span: Span,
    *,
    encoding: str = "utf-8",
    errors: str = "strict",
    text_field: str = "text",
    id_field: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Piece]:
    """The documents of a span, or parts of documents; see `read_documents`.

    Args:
        span: From `plan_spans`.
        encoding: As of `read_documents`.
        errors: As there.
        text_field: As there.
        id_field: As there.
        progress: Called with the bytes of the file read so far for this span.

    Raises:
        TextError: the file is not as it was planned, which for files on this machine is known only at
            the end of the span; or it cannot be read.
    """
    progress = progress or (lambda num_bytes: None)
    with _said_of(span.path):
        if is_url(span.path):
            _check_stamp(span, remote_stamp(span.path))
        with open_file(span.path) as file:
            if format_of(span.path) == (PARQUET, ""):
                yield from _read_groups(file, span, text_field, id_field, progress)
                return
            part = PartReader(file, span.start, span.stop)
            pieces = read_part(
                part,
                span.path,
                first_row=span.first_row,
                encoding=encoding,
                errors=errors,
                text_field=text_field,
                id_field=id_field,
                advance=lambda: progress(part.taken),
            )
            for piece in pieces:
                ends = piece.ends_document and span.ends_document
                yield piece if ends == piece.ends_document else piece._replace(ends_document=ends)
            if not is_url(span.path):
                while part.read(_WINDOW_BYTES):  # what stands behind a compressed stream
                    pass
                _check_stamp(span, f"crc32:{part.crc32:08x}")


def _read_groups(
    file: Any, span: Span, text_field: str, id_field: str | None, progress: Callable[[int], None]
) -> Iterator[Piece]:
    groups = range(span.start, span.stop)
    where = [parquet_groups(file, span.path)[group] for group in groups]
    size, share = sum(stop - start for _, start, stop in where), 0.0
    if not is_url(span.path):
        _check_stamp(span, _stamp_of_groups(file, where))

    def advance(more: float) -> None:
        nonlocal share
        share += more
        progress(round(size * share))

    for piece in read_parquet(file, span.path, groups, text_field=text_field, id_field=id_field, advance=advance):
        yield piece._replace(row=piece.row + (span.first_row or 0))


def _plan_file(
    name: str, span_bytes: int, cuts_documents: bool, encoding: str, scan: Callable[..., Iterator[tuple[int, int]]]
) -> tuple[str, int, Iterator[Span]]:
    """A file, its size, and its spans, whose bytes `scan` reads meanwhile."""
    with _said_of(name):
        size = file_size(name)
        if size is None:
            raise TextError(name, "be a file that can be read twice", "a pipe", "Save it to a file")
        suffix, compression = format_of(name)
        if suffix == PARQUET and not compression:
            return name, size, _spans_of_groups(name, span_bytes)
        find_cut = None if compression else _finder(suffix in JSON_LINES, cuts_documents, encoding)
        bounds = [0, *(_cuts(name, size, span_bytes, find_cut) if find_cut else ()), size]
    scans = None if is_url(name) else scan(itertools.repeat(name), bounds, bounds[1:])
    return name, size, _spans_between(name, bounds, scans)


def _spans_between(name: str, bounds: list[int], scans: Iterator[tuple[int, int]] | None) -> Iterator[Span]:
    holds_lines = format_of(name)[0] in JSON_LINES
    of_file = None if scans else remote_stamp(name)
    first_row = 0
    for start, stop in itertools.pairwise(bounds):
        crc32, lines = next(scans) if scans else (0, 0)
        yield Span(
            name,
            start,
            stop,
            first_row=None if of_file and start and holds_lines else first_row,
            continues=start > 0 and not holds_lines,
            ends_document=stop == bounds[-1] or holds_lines,
            stamp=of_file or f"crc32:{crc32:08x}",
        )
        first_row += lines


@contextmanager
def _said_of(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unreadable(name, error) from error


def _spans_of_groups(name: str, span_bytes: int) -> Iterator[Span]:
    with open_file(name) as file:
        groups = parquet_groups(file, name)
        first, first_row = 0, 0
        for end in range(1, len(groups) + 1):
            mine = groups[first:end]
            if end < len(groups) and sum(stop - start for _, start, stop in mine) < span_bytes:
                continue
            stamp = remote_stamp(name) if is_url(name) else _stamp_of_groups(file, mine)
            yield Span(name, first, end, first_row, False, True, stamp)
            first, first_row = end, first_row + sum(rows for rows, _, _ in mine)
        if not groups:
            yield Span(name, 0, 0, 0, False, True, remote_stamp(name) if is_url(name) else "crc32:00000000")


def _finder(json_lines: bool, cuts_documents: bool, encoding: str) -> FindCut | None:
    """What finds the places in some bytes at which a file may be cut; None where it may not be."""
    is_utf8 = codecs.lookup(encoding).name in ("utf-8", "ascii")
    if json_lines:
        one_byte_each = len(bytes(range(256)).decode(encoding, "replace")) == 256
        return _after_line_breaks if is_utf8 or one_byte_each else None
    return _before_spaces if cuts_documents and is_utf8 else None


def _after_line_breaks(data: bytes) -> Iterator[int]:
    return (match.end() for match in re.finditer(rb"\n", data))


def _before_spaces(data: bytes) -> Iterator[int]:
    for match in _LETTER_BEFORE_SPACE.finditer(data):
        if data[max(0, match.end() - 4) : match.end()].decode("utf-8", "ignore")[-1:].isalpha():
            yield match.end()


def _cuts(name: str, size: int, span_bytes: int, find_cut: FindCut) -> Iterator[int]:
    """The first cut at or after each multiple of `span_bytes`, each once, within the file."""
    least = span_bytes
    while least < size:
        cut = _first_cut(name, size, least, find_cut)
        if cut is None:
            return
        yield cut
        least = (cut // span_bytes + 1) * span_bytes


def _first_cut(name: str, size: int, least: int, find_cut: FindCut) -> int | None:
    begin = max(0, least - 4)  # the character before
    while begin < size:
        data = read_at(name, begin, min(begin + _WINDOW_BYTES, size))
        for cut in find_cut(data):
            if least <= begin + cut < size:
                return begin + cut
        begin += max(1, len(data) - 5)
    return None


def _scan(ends: threading.Event, name: str, start: int, stop: int) -> tuple[int, int]:
    """CRC-32 and line breaks of some bytes of a file; of a part of them where nobody waits any more."""
    lines = 0
    with open_file(name) as file:
        part = PartReader(file, start, stop)
        while not ends.is_set() and (data := part.read(1 << 20)):
            lines += data.count(b"\n")
    return part.crc32, lines


def _stamp_of_groups(file: Any, groups: list[tuple[int, int, int]]) -> str:
    crc32 = 0
    for _, start, stop in groups:
        part = PartReader(file, start, stop)
        while part.read(1 << 20):
            pass
        crc32 = zlib.crc32(part.crc32.to_bytes(4, "little"), crc32)
    return f"crc32:{crc32:08x}"


def _joined(spans: list[Span]) -> int:
    return zlib.crc32("".join(span.stamp for span in spans).encode())


def _check_stamp(span: Span, found: str) -> None:
    if found != span.stamp:
        rule = f"be as it was planned, {span.stamp} from {span.start} to {span.stop}"
        raise TextError(span.path, rule, f"changed ({found})", "Plan again, or restore the file")
