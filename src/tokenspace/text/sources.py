"""What a source of text is, and how each kind is read.

=====================================  =====================================================
a file that ends in .jsonl .ndjson      one document a line: the text field of a JSON object
.json
a file that ends in .parquet            one document a row: the text column
any other file, and "-" (stdin)         one document
any of these and .gz .xz .zst           the same, compressed
a folder                                its files that end in .txt .text .md .rst .jsonl
                                        .ndjson .parquet, at any depth, sorted by path; hidden
                                        ones are left out (a .json is rarely text: name it)
s3://…, memory://… and the like         files and folders of a store that fsspec opens
=====================================  =====================================================

Empty documents are kept. Reading parts of a file on their own is a matter of `spans`.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath

from tokenspace.errors import TextError
from tokenspace.text.decode import check_encoding, decode_stream
from tokenspace.text.files import PartReader, decompressed, file_size, find, format_of, is_folder, is_url, open_file
from tokenspace.text.pieces import Piece, cut_into_pieces
from tokenspace.text.records import read_json_lines, read_parquet

STDIN = "-"
JSON_LINES = frozenset({".jsonl", ".ndjson", ".json"})
PARQUET = ".parquet"
_IN_FOLDERS = frozenset({".txt", ".text", ".md", ".rst", ".jsonl", ".ndjson", PARQUET})


def read_documents(
    sources: Sequence[str | Path],
    *,
    encoding: str = "utf-8",
    errors: str = "strict",
    text_field: str = "text",
    id_field: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Piece]:
    r"""Stream the documents of files, folders, stores and standard input.

    Args:
        sources: Paths, URLs, or "-" for standard input, in the order in which they are read.
        encoding: Of plain text and JSON Lines; a byte order mark is dropped.
        errors: What to do about bytes that do not fit the encoding, and about halves of
            surrogate pairs in JSON: "strict" (an error), "replace" or "ignore".
        text_field: The field (JSON Lines) or column (Parquet) that holds the text; ``a.b`` is
            field ``b`` inside ``a``.
        id_field: The one that holds a document's id; None for none.
        progress: Called with the number of bytes read so far, of all sources together, as stored.

    Returns:
        An iterator of pieces; see `Piece`. What is wrong with the arguments, and a source
        that does not exist, is said at once; what is wrong inside a source when it is reached.

    Raises:
        SettingError: the encoding or `errors` has no such value.
        TextError: a source is missing, cannot be read, or is not what its name says.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
        ...     [piece.text for piece in read_documents([folder])]
        ['one', 'two']
    """
    check_encoding(encoding, errors)
    settings = {"encoding": encoding, "errors": errors, "text_field": text_field, "id_field": id_field}
    return _read_files(list_files(sources), progress or (lambda num_bytes: None), settings)


def list_files(sources: Sequence[str | Path]) -> list[str]:
    """The files that `sources` stand for, folders opened up; standard input stays "-".

    Raises:
        TextError: a source does not exist, or is a folder without text.
    """
    files: list[str] = []
    for source in map(str, sources):
        found = [source] if source == STDIN else find(source)
        if found is None:
            raise TextError("source", "be a file or a folder that exists", source, "Check the path")
        files += _texts_in(source, found) if source != STDIN and is_folder(source) else found
    return files


def source_bytes(sources: Sequence[str | Path]) -> int | None:
    """The size of all sources together in bytes, as stored, or None where one has no size (stdin, a pipe).

    Raises:
        TextError: a source does not exist, or is a folder without text.
    """
    total = 0
    for name in list_files(sources):
        size = None if name == STDIN else file_size(name)
        if size is None:
            return None
        total += size
    return total


def read_part(
    part: PartReader,
    name: str,
    *,
    first_row: int | None = 0,
    encoding: str,
    errors: str,
    text_field: str,
    id_field: str | None,
    advance: Callable[[], None],
) -> Iterator[Piece]:
    """The documents of one file or of a part of it that is not Parquet.

    Args:
        part: Where the bytes come from.
        name: Of the file.
        first_row: Rows of the file before this part; None where nobody counted them.
        encoding: As of `read_documents`.
        errors: As there.
        text_field: As there.
        id_field: As there.
        advance: Called now and then, while `part` counts.
    """
    begin = part.start
    with decompressed(part, name) as file:
        chunks = decode_stream(file, name, encoding, errors, lambda num_bytes: advance(), begin)
        if format_of(name)[0] not in JSON_LINES:
            yield from cut_into_pieces(chunks, name, 0)
            return

        def where(row: int) -> str:
            if first_row is None:
                return f"{name}, line {row + 1} after byte {begin}"
            return f"{name}, line {first_row + row + 1}"

        for piece in read_json_lines(chunks, name, where, text_field=text_field, id_field=id_field, errors=errors):
            yield piece._replace(row=piece.row + (first_row or 0))


def _texts_in(folder: str, files: list[str]) -> list[str]:
    inside = [file for file in files if format_of(file)[0] in _IN_FOLDERS and not _is_hidden(file, folder)]
    if not inside:
        rule = f"hold files that end in {' '.join(sorted(_IN_FOLDERS))}"
        shown = folder if is_url(folder) else Path(folder).as_posix()
        raise TextError(shown, rule, "a folder without any", "Name the files themselves to read others")
    return sorted(inside)


def _is_hidden(file: str, folder: str) -> bool:
    inner = PurePosixPath(file[len(folder) :]) if is_url(file) else PurePath(file).relative_to(folder)
    return any(part.startswith(".") for part in inner.parts)


def _read_files(files: list[str], progress: Callable[[int], None], settings: dict) -> Iterator[Piece]:
    done = 0
    for name in files:
        try:
            if name == STDIN:
                part = PartReader(sys.stdin.buffer)
                yield from read_part(part, name, **settings, advance=_counter(part, done, progress))
                done += part.taken
                continue
            size = file_size(name)
            with open_file(name) as file:
                if format_of(name) == (PARQUET, ""):
                    shares = [0.0]

                    def advance(share: float, shares: list = shares, size: int = size or 0, before: int = done) -> None:
                        shares[0] += share
                        progress(before + round(size * shares[0]))

                    fields = {name: settings[name] for name in ("text_field", "id_field")}
                    yield from read_parquet(file, name, None, **fields, advance=advance)
                    done += size or 0
                else:
                    part = PartReader(file)
                    yield from read_part(part, name, **settings, advance=_counter(part, done, progress))
                    done += part.taken
        except OSError as error:
            raise unreadable(name, error) from error


def _counter(part: PartReader, before: int, progress: Callable[[int], None]) -> Callable[[], None]:
    return lambda: progress(before + part.taken)


def unreadable(name: str, error: OSError) -> TextError:
    """What to say of a file that the system does not let us read."""
    return TextError(name, "be readable", error.strerror or str(error), "Check the file and its rights")
