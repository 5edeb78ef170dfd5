"""`NAME.origins`: where each document of a shard comes from; a Parquet file beside the `.idx`.

One row a document, in order: ``source`` (the file), ``row`` (the line or row in it, from 0) and
``id`` (the document's own, or null). Row groups are small, so that one document is found without
reading them all.
"""

import io
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

GROUP_ROWS = 1 << 14


class OriginsWriter:
    """Collects the origins of one shard's documents."""

    def __init__(self) -> None:
        self._file = io.BytesIO()
        self._rows: list[np.ndarray] = []
        self._num_rows = 0
        self._parquet: Any = None

    def append(self, origins: np.ndarray) -> None:
        """Add documents: object, each a tuple of source, row and id."""
        self._rows.append(origins)
        self._num_rows += len(origins)
        if self._num_rows >= GROUP_ROWS:
            rest = np.concatenate(self._rows)
            full = len(rest) - len(rest) % GROUP_ROWS
            for start in range(0, full, GROUP_ROWS):
                self._write(rest[start : start + GROUP_ROWS])
            self._rows, self._num_rows = [rest[full:]], len(rest) - full

    def close(self) -> bytes:
        """The content of the file."""
        rest = np.concatenate([np.empty(0, object), *self._rows])
        if len(rest) or self._parquet is None:
            self._write(rest)
        self._parquet.close()
        return self._file.getvalue()

    def _write(self, rows: np.ndarray) -> None:
        import pyarrow as pa  # a tenth of a second
        import pyarrow.parquet

        source = pa.dictionary(pa.int32(), pa.string())
        schema = pa.schema([("source", source), ("row", pa.int64()), ("id", pa.string())])
        if self._parquet is None:
            self._parquet = pa.parquet.ParquetWriter(
                self._file, schema, compression="zstd", use_dictionary=["source"], write_statistics=False
            )
        sources, numbers, ids = list(zip(*rows, strict=True)) or [(), (), ()]
        row = pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(np.array(numbers, np.int64))])
        arrays = [_strings(sources).dictionary_encode(), row, _strings(ids)]
        self._parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=GROUP_ROWS)


def _strings(texts: Sequence[str | None]) -> Any:
    """What `pyarrow.array` would make, which imports pandas first wherever it is installed: a third of a second."""
    import pyarrow as pa

    data = [(text or "").encode() for text in texts]
    ends = np.cumsum([0, *map(len, data)], dtype=np.int64)
    valid = np.packbits([text is not None for text in texts], bitorder="little")
    buffers = (pa.py_buffer(part) for part in (ends, b"".join(data), valid))
    return pa.LargeStringArray.from_buffers(len(texts), *buffers).cast(pa.string())


def read_origins(data: bytes) -> np.ndarray:
    """The origins of all documents of a shard: object, each a tuple of source, row and id."""
    import pyarrow as pa
    import pyarrow.parquet

    columns = pa.parquet.read_table(io.BytesIO(data)).to_pydict()
    rows = zip(columns["source"], columns["row"], columns["id"], strict=True)
    return np.fromiter(rows, object, len(columns["row"]))


def find_origins(file: BinaryIO, documents: np.ndarray) -> list[tuple[str, int, str | None]]:
    """The origins of some documents, of whose row groups alone the file is read."""
    import pyarrow.parquet

    found = {}
    with pyarrow.parquet.ParquetFile(file) as table:
        for group in np.unique(documents // GROUP_ROWS).tolist():
            rows = table.read_row_group(group)
            for document in documents[documents // GROUP_ROWS == group].tolist():
                origin = rows.slice(document - group * GROUP_ROWS, 1).to_pylist()[0]
                found[document] = (origin["source"], origin["row"], origin["id"])
    return [found[document] for document in documents.tolist()]
