"""Documents as streams of pieces, so that none has to fit in memory.

A long document is cut only just before a space that follows a letter: there every usual
byte-level tokenizer begins a new word, so that the pieces give the ids of the whole.
This file does not read files.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

PIECE_CHARACTERS = 1 << 20
"""Documents of at most this many characters are one piece."""

_STEP = 1 << 18
_UP_TO_LAST_CUT = re.compile(r"(?s).*[^\W\d_](?= )")  # greedy: backs off from the end at C speed


class Piece(NamedTuple):
    """A stretch of one document; a document is the pieces up to one that ends it.

    Attributes:
        text: The characters, newlines as they were in the source.
        ends_document: Whether this is the document's last piece; most have only one.
        source: The file it comes from; "-" is standard input, "strings" is memory.
        row: Line (JSON Lines) or row (Parquet, strings) inside the source, from 0.
        id: What the source calls the document, where it was asked for.
    """

    text: str
    ends_document: bool
    source: str
    row: int
    id: str | None = None


def read_strings(texts: Iterable[str], source: str = "strings") -> Iterator[Piece]:
    """Documents that are in memory, one a string.

    Example:
        >>> [piece.text for piece in read_strings(["one two", "three"])]
        ['one two', 'three']
    """
    for row, text in enumerate(texts):
        if len(text) <= PIECE_CHARACTERS:
            yield Piece(text, True, source, row)
        else:
            steps = (text[start : start + _STEP] for start in range(0, len(text), _STEP))
            yield from cut_into_pieces(steps, source, row)


def cut_into_pieces(chunks: Iterable[str], source: str, row: int) -> Iterator[Piece]:
    """One document, given in arbitrary chunks, as pieces of about 1 Mi characters.

    Where there is no place to cut, the piece grows until there is one. The pieces joined
    are the chunks joined; a document that is short enough is one piece, an empty one too.
    """
    held: list[str] = []
    size = 0
    for chunk in chunks:
        if size + len(chunk) > PIECE_CHARACTERS and (cut := _last_cut(chunk)):
            yield Piece("".join([*held, chunk[:cut]]), False, source, row)
            chunk = chunk[cut:]
            held, size = [], 0
        held.append(chunk)
        size += len(chunk)
    yield Piece("".join(held), True, source, row)


def _last_cut(text: str) -> int:
    """Where the last space that follows a letter stands, or 0."""
    found = _UP_TO_LAST_CUT.match(text)
    while found and not text[found.end() - 1].isalpha():  # the class lets "²" pass
        found = _UP_TO_LAST_CUT.match(text, 0, found.end() - 1)
    return found.end() if found else 0


def join_pieces(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Every document as one piece, however long, for what cannot work on parts of it."""
    held: list[str] = []
    for piece in pieces:
        held.append(piece.text)
        if piece.ends_document:
            yield piece._replace(text="".join(held))
            held = []


def join_documents(pieces: Iterable[Piece]) -> Iterator[str]:
    """The texts of whole documents (training a tokenizer).

    Example:
        >>> list(join_documents([Piece("one", False, "-", 0), Piece(" two", True, "-", 0)]))
        ['one two']
    """
    return (document.text for document in join_pieces(pieces))
