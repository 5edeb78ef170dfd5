"""Models handed on to other tools: as a folder, one safetensors file, word2vec text, .npy.

What a form has no room for is refused by name, unless it may be lost. The files of vectors hold
tables; layers of a model go into a folder only.

Axis letters: V rows, D columns.
"""

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import torch
from pyarrow import csv
from safetensors.torch import save_file
from torch import Tensor

from tokenspace.checkpoint.models import ForeignModel, Table, Tables
from tokenspace.checkpoint.models.exported import write_exported
from tokenspace.checkpoint.models.tables import row_slices
from tokenspace.checkpoint.run import Run
from tokenspace.checkpoint.state import model_tensors
from tokenspace.errors import SettingError, check_type
from tokenspace.files import as_path, new_file, new_folder
from tokenspace.model import LanguageModel
from tokenspace.model.gpt2 import save_gpt2
from tokenspace.positions.learned import Learned
from tokenspace.positions.none import NoPositions
from tokenspace.tokenizer import Tokenizer
from tokenspace.tokenizer.labels import show

Format = Literal["hf", "safetensors", "word2vec", "npy", "parquet"]
_LOSSLESS = "Use --format safetensors, which loses nothing; or --lossy (lossy=True) to leave them out"


def export(
    model: str | Path | Run | ForeignModel,
    out: str | Path,
    *,
    format: Format = "hf",
    lossy: bool = False,
    table: str | None = None,
) -> None:
    r"""Write a model in a form that other tools open.

    Args:
        model: A run, or whatever `Run.open` opens.
        out: The folder or file to make; it appears whole or not at all.
        format: "hf": a folder, of runs alone: GPT-2's form for learned positions, which transformers opens, else this
            package's own layout. "safetensors": tables, positions, head and tokenizer in one file. "word2vec": text,
            a token's label and its vector a line. "npy": the token table alone. "parquet": a row for each token, for
            viewers (`tokenspace.atlas.export_parquet`, which has more settings); all else in its metadata.
        lossy: Whether what the form cannot hold is left out instead of refused.
        table: As in `open_tables`.

    Raises:
        SettingError: the form cannot hold all of the model, or something stands at `out`.
        CheckpointError: the model cannot be opened.
        DiskError: the disk is full.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/vectors.npy", np.array([[1, 0.5]], "f4"))
        ...     export(f"{folder}/vectors.npy", f"{folder}/vectors.txt", format="word2vec")
        ...     Path(f"{folder}/vectors.txt").read_text().splitlines()
        ['1 2', '\\id{0} 1 0.5']
    """
    if not isinstance(format, str) or format not in get_args(Format):
        raise SettingError("format", f"be one of {', '.join(get_args(Format))}", format, "Use 'safetensors'")
    check_type("lossy", lossy, bool, "Use False")
    out = as_path(out, "out")
    opened = model if isinstance(model, Run | ForeignModel) else Run.open(model, table=table)
    if format == "hf":
        _write_folder(opened, out)
        return
    if format == "parquet":
        from tokenspace.atlas import export_parquet  # a room above, which knows projections and ledgers

        export_parquet(opened, out, lossy=lossy)
        return
    tables = opened.tables
    lost = losses(tables, format)
    if lost and not lossy:
        raise SettingError("format", f"have room for {', '.join(lost)}", format, _LOSSLESS)
    writers: dict[str, Callable[[Tables, Path], None]] = {"word2vec": _write_word2vec, "npy": _write_npy}
    writers.get(format, write_exported)(tables, out)


def losses(tables: Tables, format: Format) -> list[str]:
    """What a file of vectors has no room for, by name; nothing for safetensors and Parquet.

    Example:
        >>> from tokenspace.checkpoint.models import Table, Tables
        >>> vectors = Table(Path("vectors.npy"), "", (2, 3), torch.float64, lambda: torch.zeros(2, 3))
        >>> losses(Tables(path=Path("vectors.npy"), family="npy", token=vectors, words=("a", "b")), "npy")
        ['the words']
    """
    if format not in ("word2vec", "npy"):
        return []
    head = tables.head
    parts = {
        f"{tables.scheme[0]} positions": tables.scheme[0] != NoPositions.name,
        "token types": tables.token_types,
        "a LayerNorm": tables.norm,
        "a scale": tables.scale != 1.0,
        "a head of its own": head,
        "the tie of the head": bool(tables.tied),
        "the head's bias": tables.head_bias,
        "the tokenizer": tables.words is None and tables.tokenizer,
        "the words": format == "npy" and tables.words,
        "numbers of 64 bits": format == "word2vec" and tables.token.dtype == torch.float64,
    }
    return [name for name, found in parts.items() if found not in (None, False)]


def _write_folder(opened: Run | ForeignModel, out: Path) -> None:
    if isinstance(opened, ForeignModel) and opened.tables.family != "tokenspace":
        found = f"{opened.path}, which is {opened.tables.family!r}"
        next_step = "Copy the folder itself, or use --format safetensors"
        raise SettingError("model", "be a run of this package for --format hf", found, next_step)
    model = opened.model()
    is_gpt2 = isinstance(model.embedding.position, Learned) and model.config.token_scale == 1.0
    if is_gpt2 and not model.config.memory_length:
        save_gpt2(model, out, opened.tokenizer)
    else:
        save_own_folder(model, out, opened.tokenizer)


def save_own_folder(model: LanguageModel, out: Path, tokenizer: Tokenizer) -> None:
    """Write a model that no other library has room for: the layout of a folder, with this package's names.

    ``config.json`` has ``model_type`` "tokenspace" and, under ``model``, the fields of `ModelConfig`;
    ``model.safetensors`` the state dict of `LanguageModel`, a tied head once; ``tokenizer.json`` the vocabulary.

    Raises:
        SettingError: something stands at `out`.
        DiskError: the disk is full.
    """
    dtype = str(model.embedding.token.weight.dtype).removeprefix("torch.")
    config = {"model_type": "tokenspace", "model": asdict(model.config), "dtype": dtype}
    with new_folder(out) as part:
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8", newline="\n")
        save_file(model_tensors(model), part / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save(part / "tokenizer.json")


def _write_npy(tables: Tables, out: Path) -> None:
    """The token table; bfloat16, which numpy lacks, as float32 of the same values."""
    stored_VD = tables.token.tensor()
    dtype = _numpy_dtype(tables.token)
    with new_file(out) as part, part.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tables.token.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for rows in row_slices(stored_VD):
            file.write(stored_VD[rows].to(torch.from_numpy(np.empty(0, dtype)).dtype).numpy().tobytes())


def _write_word2vec(tables: Tables, out: Path) -> None:
    """A line with rows and columns, then a line a token: its label, which has no white space, and its numbers."""
    stored_VD = tables.token.tensor()
    V, D = tables.token.shape
    with new_file(out) as part, part.open("wb") as file:
        file.write(f"{V} {D}\n".encode())
        for rows in row_slices(stored_VD):
            numbers = _lines(stored_VD[rows].float())
            first = rows.start
            labels = (_without_spaces(tables.label(first + n)) for n in range(len(numbers)))
            file.writelines(b"%s %s\n" % pair for pair in zip(labels, numbers, strict=True))


def _without_spaces(label: str) -> bytes:
    """Labels of tokens have no white space; words of another tool's file may, and are then written as labels."""
    label = show(label) if any(character.isspace() for character in label) else label
    return label.encode("utf-8", "surrogateescape")


def _lines(part_VD: Tensor) -> list[bytes]:
    """Rows as text: the fewest digits that give the same float32."""
    columns = [pa.array(column) for column in part_VD.t().contiguous().numpy()]
    text = io.BytesIO()
    options = csv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none")
    csv.write_csv(pa.table(columns, names=[str(n) for n in range(len(columns))]), text, options)
    return text.getvalue().splitlines()


def _numpy_dtype(table: Table) -> np.dtype:
    names = {torch.float64: "<f8", torch.float16: "<f2"}
    return np.dtype(names.get(table.dtype, "<f4"))
