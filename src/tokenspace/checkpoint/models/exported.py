"""A model's input side in one safetensors file: tables, positions, head and tokenizer, with nothing lost.

The tensors ``token``, ``head``, ``head_bias``, ``token_types``, ``norm.weight``, ``norm.bias`` and, by their names in
the scheme, ``position.…``; in the file's metadata ``tokenspace``, JSON with what else `Tables` knows, the text of the
tokenizer.json among it. Other tools read the tensors as those of any safetensors file.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from tokenspace.checkpoint.models.safetensors_file import read_header_and_metadata
from tokenspace.checkpoint.models.table import Table
from tokenspace.checkpoint.models.tables import Norm, Tables
from tokenspace.errors import CheckpointError
from tokenspace.files import new_file
from tokenspace.positions import ModelShape

FIELDS, _POSITION = "tokenspace", "position."


def write_exported(tables: Tables, out: Path) -> None:
    """Write the file; it appears whole or not at all.

    Raises:
        SettingError: something stands at `out`.
        DiskError: the disk is full.
    """
    metadata = {FIELDS: json.dumps(fields_of(tables))}  # one field, as the library writes several in any order
    with new_file(out) as part:
        save_file({name: table.tensor().contiguous() for name, table in stored_in(tables).items()}, part, metadata)


def stored_in(tables: Tables) -> dict[str, Table]:
    """All tensors by the names that they have in a file."""
    optional = {
        "head": tables.head,
        "head_bias": tables.head_bias,
        "token_types": tables.token_types,
        **({} if tables.norm is None else {"norm.weight": tables.norm.weight, "norm.bias": tables.norm.bias}),
        **{_POSITION + name: table for name, table in tables.scheme_tensors.items()},
    }
    return {"token": tables.token, **{name: table for name, table in optional.items() if table is not None}}


def fields_of(tables: Tables) -> dict[str, Any]:
    """All that is no tensor, as JSON has it."""
    return {
        "family": tables.family,
        "tied": tables.tied,
        "scheme": tables.scheme,
        "shape": None if tables.shape is None else asdict(tables.shape),
        "position_offset": tables.position_offset,
        "norm_eps": None if tables.norm is None else tables.norm.eps,
        "scale": tables.scale,
        "words": tables.words,
        "tokenizer": tables.tokenizer.to_json() if tables.words is None and tables.tokenizer is not None else None,
    }


def read_exported(path: Path) -> Tables | None:
    """What `write_exported` wrote; None for other safetensors files.

    Raises:
        CheckpointError: the file is damaged.
    """
    stored, metadata = read_header_and_metadata(path)
    return tables_from(path, stored, metadata[FIELDS]) if FIELDS in metadata else None


def tables_from(path: Path, stored: Mapping[str, Table], text: str) -> Tables:
    """What `fields_of`, as JSON, and `stored_in` were made of.

    Raises:
        CheckpointError: they do not fit each other.
    """
    try:
        fields = json.loads(text)
        name, settings = fields["scheme"]
        norm = fields["norm_eps"] is not None
        return Tables(
            path=path,
            family=str(fields["family"]),
            token=stored["token"],
            stored_head=stored.get("head"),
            head_bias=stored.get("head_bias"),
            tie_flag=fields["tied"],
            scheme=(str(name), dict(settings)),
            scheme_tensors=_positions(stored),
            shape=None if fields["shape"] is None else ModelShape(**fields["shape"]),
            position_offset=int(fields["position_offset"]),
            token_types=stored.get("token_types"),
            norm=Norm(stored["norm.weight"], stored["norm.bias"], float(fields["norm_eps"])) if norm else None,
            scale=float(fields["scale"]),
            words=None if fields["words"] is None else tuple(map(str, fields["words"])),
            tokenizer_json=fields["tokenizer"],
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        found = f"damaged ({type(error).__name__}: {error})"
        raise CheckpointError(f"metadata of {path}", "be as it was written", found, "Export it again") from error


def _positions(stored: Mapping[str, Table]) -> dict[str, Table]:
    return {name.removeprefix(_POSITION): table for name, table in stored.items() if name.startswith(_POSITION)}
