"""STAND-IN until the branch `text` is merged: whole files as spans."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenspace.errors import TextError
from tokenspace.text.pieces import Piece
from tokenspace.text.sources import list_files, read_documents


@dataclass(frozen=True)
class SourceFile:
    path: str
    size: int
    stamp: str


@dataclass(frozen=True)
class Span:
    path: str
    start: int
    stop: int
    first_row: int | None
    continues: bool
    ends_document: bool
    crc32: str | None


def plan_spans(sources: Sequence[str | Path], span_bytes: int, *, cuts_documents: bool, encoding: str) -> tuple:
    files, spans = [], []
    for name in sorted(set(list_files(sources))):
        data = Path(name).read_bytes()
        crc = f"{zlib.crc32(data):08x}"
        files.append(SourceFile(name, len(data), f"crc32:{crc}"))
        starts = [0]
        if cuts_documents and name.endswith(".txt"):
            at = span_bytes
            while at < len(data):
                at = data.find(b" ", at)
                if at < 0:
                    break
                if data[at - 1 : at].isalpha():
                    starts.append(at)
                    at += span_bytes
                else:
                    at += 1
        for start, stop in zip(starts, [*starts[1:], len(data)], strict=True):
            crc = f"{zlib.crc32(data[start:stop]):08x}"
            spans.append(Span(name, start, stop, 0, start > 0, stop == len(data), crc))
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
    data = Path(span.path).read_bytes()[span.start : span.stop]
    if f"{zlib.crc32(data):08x}" != span.crc32:
        raise TextError(span.path, "be as it was planned", "changed", "Plan again")
    if span.path.endswith(".txt"):
        yield Piece(data.decode(encoding, errors), span.ends_document, span.path, 0)
    else:
        yield from read_documents([span.path], encoding=encoding, errors=errors, text_field=text_field)
    if progress:
        progress(len(data))
