"""One Parquet file with a row for each token: for embedding-atlas and whatever reads tables.

Opens with ``embedding-atlas FILE --text token --x x --y y --neighbors neighbors``.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tokenspace.atlas.kinds import KINDS, Vocabulary
from tokenspace.atlas.neighbours import rows_to_ask
from tokenspace.atlas.projection import check_projection, flatten
from tokenspace.atlas.source import Source
from tokenspace.checkpoint import ForeignModel, Run
from tokenspace.checkpoint.components import principal_components
from tokenspace.checkpoint.models.in_parquet import columns_of, metadata_of, too_much
from tokenspace.errors import SettingError
from tokenspace.files import as_path, check_absent, write_file
from tokenspace.inspection import NearestRows, nearest_rows
from tokenspace.ledger import STATES, LedgerRecord

_NEIGHBOURS = 20


def export_parquet(
    source: str | Path | Run | ForeignModel,
    out: str | Path,
    *,
    projection: str = "pca",
    lossy: bool = False,
    progress: Callable[[str, int, int], None] = lambda task, done, total: None,
) -> None:
    """Write ids, labels, texts, bytes, kinds, scripts, vectors, projection, neighbours and what the ledger knows.

    Positions, head, tie and tokenizer are in it too, where `open_tables` finds them and viewers do not look.

    Args:
        source: A run, or any other model that `Run.open` opens, or its path.
        out: The file to make; it appears whole or not at all.
        projection: Of the columns x and y: "pca", "umap" or "tsne".
        lossy: Whether positions or a tokenizer too large for a Parquet file's metadata are left out.
        progress: Called with what is being done, how much of it is, and how much there is.

    Raises:
        CheckpointError: it is none, is damaged, or has no tokenizer.
        SettingError: something stands at `out`, the projection is unknown or not installed, or the file has no room
            for all of the model.
        DiskError: the disk is full.
    """
    out = as_path(out, "out")
    check_absent(out)
    check_projection(projection)
    progress("opening", 0, 1)
    model = source if isinstance(source, Run | ForeignModel) else Run.open(source)
    tables = model.tables
    metadata = metadata_of(tables)
    if lost := too_much(metadata):
        if not lossy:
            next_step = "Use --format safetensors, or --lossy (lossy=True) to leave them out"
            raise SettingError("format", f"have room for {' and '.join(lost)}", "parquet", next_step)
        metadata = {}
    columns = _columns(Source.open(model), projection, progress) | columns_of(tables)
    progress("writing", 0, 1)
    out.parent.mkdir(parents=True, exist_ok=True)
    buffer = pa.BufferOutputStream()
    written = pa.table(columns)
    with pq.ParquetWriter(buffer, written.schema, compression="zstd") as writer:
        writer.write_table(written)
        writer.add_key_value_metadata(metadata)
    write_file(out, buffer.getvalue().to_pybytes())


def _columns(source: Source, projection: str, progress: Callable[[str, int, int], None]) -> dict[str, pa.Array]:
    progress("projecting", 0, 1)
    table = source.table.float()
    vocabulary = Vocabulary.of(source.tokenizer, len(table))
    xy = principal_components(table, 2).project(table) if projection == "pca" else flatten(table, projection)
    columns = {
        "id": pa.array(np.arange(len(table), dtype=np.int64)),
        "token": pa.array(vocabulary.labels),
        "text": pa.array(
            [None if data is None else data.decode("utf-8", errors="replace") for data in vocabulary.bytes]
        ),
        "bytes": pa.array(vocabulary.bytes, pa.binary()),
        "kind": pa.array([KINDS[kind] for kind in vocabulary.kinds]),
        "script": pa.array([vocabulary.scripts[script] for script in vocabulary.script]),
        "x": pa.array(xy[:, 0].contiguous().numpy()),
        "y": pa.array(xy[:, -1].contiguous().numpy()),
        "norm": pa.array(torch.linalg.vector_norm(table, dim=1).numpy()),
        "vector": None,  # see `columns_of`; its place is here
    }
    if source.ledger is not None:
        columns |= _ledger_columns(source.ledger)
    rows = rows_to_ask(len(table), source.counts())
    nearest = nearest_rows(table, _NEIGHBOURS, rows, lambda done, total: progress("neighbours", done, total))
    return columns | {"neighbors": _neighbour_column(nearest, len(table))}


def _neighbour_column(found: NearestRows, num_rows: int) -> pa.Array:
    """``{"ids", "distances"}`` for each token, 1 - cosine being the distance; null where they were not sought."""
    column: list[dict[str, list] | None] = [None] * num_rows
    distances = (1 - found.cosines).clamp(min=0)
    for row, ids, far in zip(found.rows.tolist(), found.nearest.tolist(), distances.tolist(), strict=True):
        column[row] = {"ids": ids, "distances": far}
    return pa.array(column, pa.struct({"ids": pa.list_(pa.int64()), "distances": pa.list_(pa.float32())}))


def _ledger_columns(ledger: LedgerRecord) -> dict[str, pa.Array]:
    names = ("input_count", "target_count", "last_input", "last_target", "path", "displacement", "norm_start")
    states = {"state": pa.array([STATES[state] for state in ledger.states])}
    return states | {name: pa.array(getattr(ledger, name)) for name in names}
