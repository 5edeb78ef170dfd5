"""One Parquet file with a row for each token: for embedding-atlas and whatever reads tables.

Opens with ``embedding-atlas FILE --text token --x x --y y``.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tokenspace.atlas.kinds import KINDS, Vocabulary
from tokenspace.atlas.projection import check_projection, flatten
from tokenspace.atlas.source import Source
from tokenspace.checkpoint import Run
from tokenspace.checkpoint.components import principal_components
from tokenspace.files import check_absent, write_file
from tokenspace.ledger import STATES, LedgerRecord


def export_parquet(source: str | Path | Run, out: str | Path, *, projection: str = "pca") -> None:
    """Write ids, labels, texts, bytes, kinds, scripts, vectors, projection and what the ledger knows.

    Args:
        source: A run, its folder, or a folder of a GPT-2 that transformers saved.
        out: The file to make; it appears whole or not at all.
        projection: Of the columns x and y: "pca", "umap" or "tsne".

    Raises:
        CheckpointError: the folder is neither, or damaged.
        SettingError: something stands at `out`, or the projection is unknown or not installed.
        DiskError: the disk is full.
    """
    out = Path(out)
    check_absent(out)
    check_projection(projection)
    opened = source if isinstance(source, Source) else Source.open(source)
    buffer = pa.BufferOutputStream()
    pq.write_table(_table(opened, projection), buffer, compression="zstd")
    write_file(out, buffer.getvalue().to_pybytes())


def _table(source: Source, projection: str) -> pa.Table:
    table = source.table.float()
    vocabulary = Vocabulary.of(source.tokenizer, len(table))
    xy = principal_components(table, 2).project(table) if projection == "pca" else flatten(table, projection)
    vectors = pa.array(table.flatten().numpy())
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
        "vector": pa.FixedSizeListArray.from_arrays(vectors, table.shape[1]),
    }
    if source.ledger is not None:
        columns |= _ledger_columns(source.ledger)
    return pa.table(columns)


def _ledger_columns(ledger: LedgerRecord) -> dict[str, pa.Array]:
    names = ("input_count", "target_count", "last_input", "last_target", "path", "displacement", "norm_start")
    states = {"state": pa.array([STATES[state] for state in ledger.states])}
    return states | {name: pa.array(getattr(ledger, name)) for name in names}
