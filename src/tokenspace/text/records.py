"""Files of one document a row: JSON Lines and Parquet.

A field may lie inside another: ``meta.id`` is field ``id`` of the object ``meta``, unless
there is a field of that very name.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import orjson

from tokenspace.errors import TextError
from tokenspace.text.pieces import Piece, read_strings

_MISSING = object()


def read_json_lines(
    chunks: Iterator[str], name: str, where: Callable[[int], str], *, text_field: str, id_field: str | None, errors: str
) -> Iterator[Piece]:
    """The documents of JSON Lines; blank lines are left out, and count as rows.

    Args:
        chunks: The characters.
        name: Of the file.
        where: Says where a row stands, for errors.
        text_field: Holds the text.
        id_field: Holds an id, where there is one.
        errors: What to do about halves of surrogate pairs: "strict", "replace" or "ignore".

    Raises:
        TextError: a line is no JSON object with the field.
    """
    for row, line in enumerate(_lines(chunks)):
        if not line or line.isspace():
            continue
        try:
            fields, may_be_torn = orjson.loads(line), False
        except orjson.JSONDecodeError:  # of half a surrogate pair too, which only json reads
            fields, may_be_torn = _read_slowly(line, where, row), True
        if not isinstance(fields, dict):
            step = "Write one object a line"
            raise TextError(where(row), "be a JSON object", f"a JSON {type(fields).__name__}", step)
        value = _field(fields, text_field)
        if value is _MISSING:
            raise _no_field(where(row), text_field, "an object", list(fields))
        text = _as_text(value, where(row), text_field)
        if may_be_torn:
            text = _without_surrogates(text, where(row), errors)
        found = _field(fields, id_field)
        if not isinstance(found, str | int) and found is not _MISSING:  # orjson rounds integers beyond 64 bits
            found = _field(_read_slowly(line, where, row), id_field)
        yield from _pieces(text, name, row, _as_id(found))


def _read_slowly(line: str, where: Callable[[int], str], row: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        step = "Write one JSON object a line, or name the file .txt to read it as plain text"
        raise TextError(where(row), "be a JSON object", f"damaged ({error})", step) from error


def read_parquet(
    file: BinaryIO,
    name: str,
    groups: range | None,
    *,
    text_field: str,
    id_field: str | None,
    advance: Callable[[float], None],
) -> Iterator[Piece]:
    """The documents of some row groups of a Parquet file.

    Args:
        file: Open, and able to seek.
        name: Of the file.
        groups: Which row groups; None for all. Rows are counted from the first of them.
        text_field: Column of the text.
        id_field: Column of an id, where there is one.
        advance: Called with the share of the rows that each batch is.

    Raises:
        TextError: it is no whole Parquet file, or lacks the column.
    """
    import pyarrow  # a fifth of a second, and only for Parquet
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            schema = table.schema_arrow
            if not _has_column(schema, text_field):
                raise _no_field(name, text_field, "a table", schema.names)
            columns = [text_field] + ([id_field] if id_field and _has_column(schema, id_field) else [])
            chosen = range(table.num_row_groups) if groups is None else groups
            rows = sum(table.metadata.row_group(group).num_rows for group in chosen)
            row = 0
            for batch in table.iter_batches(batch_size=1024, columns=columns, row_groups=list(chosen)):
                for fields in batch.to_pylist():
                    text = _as_text(_field(fields, text_field), f"{name}, row {row + 1}", text_field)
                    yield from _pieces(text, name, row, _as_id(_field(fields, id_field)))
                    row += 1
                advance(batch.num_rows / rows)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise TextError(name, "be a whole Parquet file", f"damaged ({error})", "Write it again") from error


def parquet_groups(file: BinaryIO, name: str) -> list[tuple[int, int, int]]:
    """For each row group its number of rows, and the bytes of the file from where to where it lies.

    Raises:
        TextError: it is no whole Parquet file.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            return [_group(table.metadata.row_group(number)) for number in range(table.num_row_groups)]
    except pyarrow.ArrowException as error:
        raise TextError(name, "be a whole Parquet file", f"damaged ({error})", "Write it again") from error


def _group(group: Any) -> tuple[int, int, int]:
    columns = [group.column(number) for number in range(group.num_columns)]
    starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
    stops = [start + column.total_compressed_size for start, column in zip(starts, columns, strict=True)]
    return group.num_rows, min(starts, default=0), max(stops, default=0)


def _pieces(text: str, name: str, row: int, document_id: str | None) -> Iterator[Piece]:
    for piece in read_strings([text], name):
        yield piece._replace(row=row, id=document_id)


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


def _field(fields: dict[str, Any], name: str | None) -> Any:
    """The value of a field, which may lie inside others; `_MISSING` where there is none."""
    if name is None:
        return _MISSING
    if name in fields:
        return fields[name]
    outer, dot, inner = name.partition(".")
    return _field(fields[outer], inner) if dot and isinstance(fields.get(outer), dict) else _MISSING


def _has_column(schema: Any, name: str) -> bool:
    import pyarrow

    if name in schema.names:
        return True
    outer, *inner = name.split(".")
    found = schema.field(outer).type if outer in schema.names else None
    for part in inner:
        if not isinstance(found, pyarrow.StructType) or found.get_field_index(part) < 0:
            return False
        found = found.field(part).type
    return found is not None


def _as_text(value: object, where: str, text_field: str) -> str:
    if not isinstance(value, str):
        found = "null" if value is None or value is _MISSING else type(value).__name__
        raise TextError(where, f"hold text in `{text_field}`", found, "Leave such rows out, or name another field")
    return value


def _as_id(value: object) -> str | None:
    if value is None or value is _MISSING:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode("utf-8")


def _without_surrogates(text: str, where: str, errors: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        if errors == "strict":
            found = f"half a surrogate pair at character {error.start}"
            raise TextError(where, "be valid Unicode", found, "Mend it, or go on with --errors replace") from error
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", errors)
    return text


def _no_field(where: str, text_field: str, kind: str, found: list[str]) -> TextError:
    names = ", ".join(found) or "no field at all"
    return TextError(
        where, f"have the field `{text_field}`", f"{kind} with {names}", "Name its field with --text-field"
    )
