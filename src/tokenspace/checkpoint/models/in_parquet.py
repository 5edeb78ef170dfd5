"""A model's input side in a Parquet file made for viewers, so that nothing is lost on the way.

What has a row a token is a column (``vector``, ``head``, ``head_bias``). All else, small as a rule, stands in the
file's metadata, which viewers pass over: ``tokenspace`` (JSON, as in `exported`), ``tokenspace.tensors`` (base64 of a
safetensors file), ``tokenspace.dtypes``. The other columns are the atlas's.
"""

import base64
import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor

from tokenspace.checkpoint.models.exported import FIELDS, fields_of, stored_in, tables_from
from tokenspace.checkpoint.models.formats import parquet_table, refuse
from tokenspace.checkpoint.models.table import Table
from tokenspace.checkpoint.models.tables import Tables
from tokenspace.errors import CheckpointError

_TENSORS, _DTYPES = "tokenspace.tensors", "tokenspace.dtypes"
_COLUMNS = {"token": "vector", "head": "head", "head_bias": "head_bias"}
_MOST = 50_000_000  # bytes of metadata: readers refuse what is longer than 100 MB
_WIDER = {"bfloat16": torch.bfloat16, "float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}


def columns_of(tables: Tables) -> dict[str, pa.Array]:
    """What has a row a token; types that Parquet lacks, such as bfloat16, as float32 of the same values."""
    stored = stored_in(tables)
    return {column: _column(stored[name].tensor()) for name, column in _COLUMNS.items() if name in stored}


def metadata_of(tables: Tables) -> dict[str, str]:
    """All else, for the file's metadata."""
    stored = stored_in(tables)
    small = {name: table.tensor().contiguous() for name, table in stored.items() if name not in _COLUMNS}
    names = {name: str(stored[name].dtype).removeprefix("torch.") for name in _COLUMNS if name in stored}
    return {
        FIELDS: json.dumps(fields_of(tables)),
        _TENSORS: base64.b64encode(save(small)).decode(),
        _DTYPES: json.dumps({name: dtype for name, dtype in names.items() if dtype in _WIDER}),
    }


def too_much(metadata: dict[str, str]) -> list[str]:
    """What of it is beyond what readers of Parquet take, by name."""
    names = {_TENSORS: "tables of positions and token types of this size", FIELDS: "a tokenizer of this size"}
    return [name for key, name in names.items() if len(metadata[key]) > _MOST]


def read_in_parquet(path: Path) -> Tables | None:
    """What `columns_of` and `metadata_of` wrote; None for other Parquet files, also where rows were taken out since.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        file = pq.ParquetFile(path, memory_map=True)
        metadata = {key.decode(): text.decode() for key, text in (file.metadata.metadata or {}).items()}
        if FIELDS not in metadata or not _has_all_rows(file):
            return None
        tensors = load(base64.b64decode(metadata[_TENSORS], validate=True))
        wider = {name: _WIDER[dtype] for name, dtype in json.loads(metadata[_DTYPES]).items()}
        stored = {name: Table(path, name, tuple(t.shape), t.dtype, partial(_same, t)) for name, t in tensors.items()}
        for name, column in _COLUMNS.items():
            if column in file.schema_arrow.names:
                stored[name] = _widened(parquet_table(path, file, column), wider.get(name))
    except CheckpointError:
        raise
    except (pa.ArrowException, safetensors.SafetensorError, OSError, *_ODD) as error:
        refuse(path, "be a whole Parquet file", f"damaged ({error})", error)
    return tables_from(path, stored, metadata[FIELDS])


_ODD = (ValueError, TypeError, KeyError, AttributeError, StopIteration, RecursionError)  # of JSON and base64


def _has_all_rows(file: pq.ParquetFile) -> bool:
    """Whether nobody has filtered or sorted it, as tools do that pass metadata on."""
    if not {"id", "vector"} <= set(file.schema_arrow.names):
        return False
    ids = file.read(["id"]).column(0).to_numpy()
    return np.array_equal(ids, np.arange(len(ids)))


def _column(tensor: Tensor) -> pa.Array:
    held = tensor.dtype in (torch.float16, torch.float32, torch.float64)
    numbers = pa.array((tensor if held else tensor.float()).flatten().numpy())
    return numbers if tensor.dim() == 1 else pa.FixedSizeListArray.from_arrays(numbers, tensor.shape[1])


def _widened(table: Table, dtype: torch.dtype | None) -> Table:
    if dtype is None:
        return table
    return Table(table.file, table.key, table.shape, dtype, lambda: table.tensor().to(dtype))


def _same(tensor: Tensor) -> Tensor:
    return tensor
