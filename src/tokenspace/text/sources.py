"""What a source of text is, and how each kind is read.

=====================================  =====================================================
a file that ends in .jsonl .ndjson      one document a line: the text field of a JSON object
.json
a file that ends in .parquet            one document a row: the text column
any other file, and "-" (stdin)         one document
a folder                                its files that end in .txt .text .md .rst .jsonl
                                        .ndjson .parquet, at any depth, sorted by path; hidden
                                        ones are left out (a .json is rarely text: name it)
=====================================  =====================================================

Empty documents are kept. Compressed files and remote stores are not read here.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath

from tokenspace.errors import TextError
from tokenspace.text.decode import check_encoding, decode_stream
from tokenspace.text.pieces import Piece, cut_into_pieces, read_strings

STDIN = "-"
_JSON_LINES = frozenset({".jsonl", ".ndjson", ".json"})
_PARQUET = ".parquet"
_IN_FOLDERS = frozenset({".txt", ".text", ".md", ".rst", ".jsonl", ".ndjson", _PARQUET})

Advance = Callable[[int], None]


def read_documents(
    sources: Sequence[str | Path],
    *,
    encoding: str = "utf-8",
    errors: str = "strict",
    text_field: str = "text",
    progress: Callable[[int], None] | None = None,
) -> Iterator[Piece]:
    r"""Stream the documents of files, folders and standard input.

    Args:
        sources: Paths, or "-" for standard input, in the order in which they are read.
        encoding: Of plain text and JSON Lines; a byte order mark is dropped.
        errors: What to do about bytes that do not fit the encoding, and about halves of
            surrogate pairs in JSON: "strict" (an error), "replace" or "ignore".
        text_field: The field (JSON Lines) or column (Parquet) that holds the text.
        progress: Called with the number of bytes read so far, of all sources together.

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
    files = list_files(sources)
    return _read_files(files, encoding, errors, text_field, progress or (lambda num_bytes: None))


def list_files(sources: Sequence[str | Path]) -> list[str]:
    """The files that `sources` stand for, folders opened up; standard input stays "-".

    Raises:
        TextError: a source does not exist, or is a folder without text.
    """
    files: list[str] = []
    for source in map(str, sources):
        path = Path(source)
        if path.is_dir():
            files += _files_in(path)
        elif source == STDIN or path.exists():
            files.append(source)
        else:
            raise TextError("source", "be a file or a folder that exists", source, "Check the path")
    return files


def source_bytes(sources: Sequence[str | Path]) -> int | None:
    """The size of all sources together in bytes, or None where one has no size (stdin, a pipe).

    Raises:
        TextError: a source does not exist, or is a folder without text.
    """
    total = 0
    for name in list_files(sources):
        if name == STDIN or not Path(name).is_file():
            return None
        total += Path(name).stat().st_size
    return total


def _files_in(folder: Path) -> list[str]:
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _IN_FOLDERS and path.is_file() and not _is_hidden(path.relative_to(folder))
    ]
    if not found:
        rule = f"hold files that end in {' '.join(sorted(_IN_FOLDERS))}"
        raise TextError(folder.as_posix(), rule, "a folder without any", "Name the files themselves to read others")
    return [path.as_posix() for path in sorted(found, key=PurePath.as_posix)]


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _read_files(files: list[str], encoding: str, errors: str, text_field: str, progress: Advance) -> Iterator[Piece]:
    done = 0

    def advance(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        progress(done)

    for name in files:
        suffix = Path(name).suffix.lower()
        try:
            if name == STDIN:
                yield from cut_into_pieces(decode_stream(sys.stdin.buffer, name, encoding, errors, advance), name, 0)
            elif suffix == _PARQUET:
                yield from _read_parquet(name, text_field, advance)
            else:
                with Path(name).open("rb") as file:
                    chunks = decode_stream(file, name, encoding, errors, advance)
                    if suffix in _JSON_LINES:
                        yield from _read_json_lines(chunks, name, text_field, errors)
                    else:
                        yield from cut_into_pieces(chunks, name, 0)
        except OSError as error:
            raise TextError(
                name, "be readable", error.strerror or str(error), "Check the file and its rights"
            ) from error


def _read_json_lines(chunks: Iterator[str], name: str, text_field: str, errors: str) -> Iterator[Piece]:
    for row, line in enumerate(_lines(chunks)):
        if not line or line.isspace():
            continue
        where = f"{name}, line {row + 1}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            step = "Write one JSON object a line, or name the file .txt to read it as plain text"
            raise TextError(where, "be a JSON object", f"damaged ({error})", step) from error
        if not isinstance(fields, dict):
            raise TextError(where, "be a JSON object", f"a JSON {type(fields).__name__}", "Write one object a line")
        if text_field not in fields:
            raise _no_field(where, text_field, "an object", list(fields))
        text = _as_text(fields[text_field], where, text_field)
        if "\\u" in line:  # only so can half a surrogate pair come in
            text = _without_surrogates(text, where, errors)
        yield from _row(text, name, row)


def _row(text: str, name: str, row: int) -> Iterator[Piece]:
    for piece in read_strings([text], name):
        yield piece._replace(row=row)


def _lines(chunks: Iterator[str]) -> Iterator[str]:
    held: list[str] = []  # of a line that no chunk has ended yet
    for chunk in chunks:
        first, *others = chunk.split("\n")
        held.append(first)
        if others:
            yield "".join(held)
            yield from others[:-1]
            held = [others[-1]]
    yield "".join(held)


def _without_surrogates(text: str, where: str, errors: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        if errors == "strict":
            found = f"half a surrogate pair at character {error.start}"
            raise TextError(where, "be valid Unicode", found, "Mend it, or go on with --errors replace") from error
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", errors)
    return text


def _read_parquet(name: str, text_field: str, advance: Advance) -> Iterator[Piece]:
    import pyarrow  # a fifth of a second, and only for Parquet
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(name) as file:
            if text_field not in file.schema_arrow.names:
                raise _no_field(name, text_field, "a table", file.schema_arrow.names)
            size, row = Path(name).stat().st_size, 0
            for batch in file.iter_batches(batch_size=1024, columns=[text_field]):
                for value in batch.column(0).to_pylist():
                    yield from _row(_as_text(value, f"{name}, row {row + 1}", text_field), name, row)
                    row += 1
                advance(size * batch.num_rows // file.metadata.num_rows)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise TextError(name, "be a whole Parquet file", f"damaged ({error})", "Write it again") from error


def _as_text(value: object, where: str, text_field: str) -> str:
    if not isinstance(value, str):
        found = "null" if value is None else type(value).__name__
        raise TextError(where, f"hold text in `{text_field}`", found, "Leave such rows out, or name another field")
    return value


def _no_field(where: str, text_field: str, kind: str, found: list[str]) -> TextError:
    names = ", ".join(found) or "no field at all"
    return TextError(
        where, f"have the field `{text_field}`", f"{kind} with {names}", "Name its field with --text-field"
    )
