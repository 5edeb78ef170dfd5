"""Opening any model's tables: finds out what stands at a path, and where its tables are."""

import tomllib
from pathlib import Path
from typing import Any

import torch

from tokenspace.checkpoint.models.cache import find_model
from tokenspace.checkpoint.models.exported import read_exported
from tokenspace.checkpoint.models.families import FAMILIES, Family
from tokenspace.checkpoint.models.folder import ModelFolder
from tokenspace.checkpoint.models.others import other_forms_in
from tokenspace.checkpoint.models.safetensors_file import read_header
from tokenspace.checkpoint.models.table import Table
from tokenspace.checkpoint.models.tables import Norm, Tables
from tokenspace.checkpoint.state import latest_checkpoint
from tokenspace.errors import CheckpointError, check_type
from tokenspace.model import ModelConfig

_WITH_HEAD = ("LMHead", "ForCausalLM", "ForMaskedLM", "ForConditionalGeneration", "ForPreTraining")
_SAVE_AGAIN = "Save the model again with save_pretrained"


def open_tables(path: str | Path, *, table: str | None = None) -> Tables:
    """Open the input side of a model, or a file of vectors; tensors are read when asked for.

    Args:
        path: A run folder; a folder that transformers' ``save_pretrained`` wrote; a file of vectors (.npy,
            word2vec text, .vec, .parquet, .safetensors); or a name in the local Hugging Face cache, such as "gpt2".
        table: Name of the token table's tensor, for models of families that are not known; of a column in Parquet.

    Raises:
        CheckpointError: there is no such thing, or it is damaged, or the model's family is not known.

    Example:
        >>> open_tables("no/such/model")
        Traceback (most recent call last):
        ...
        tokenspace.errors.CheckpointError: `model` must be a folder, a file of vectors, or a model of the ...
    """
    path = find_model(path)
    check_type("table", table, str | None, "Give the name of a tensor")
    if (path / "config.toml").is_file():
        return _run_tables(path)
    if path.is_dir():
        return _folder_tables(ModelFolder(path), table)
    if path.suffix.lower() == ".safetensors" and table is None:
        exported = read_exported(path)
        if exported is not None:
            return exported
    from tokenspace.checkpoint.models.formats import read_vectors  # with pyarrow, 40 MB that folders do not need

    if path.suffix.lower() == ".parquet" and table is None:
        from tokenspace.checkpoint.models.in_parquet import read_in_parquet

        in_parquet = read_in_parquet(path)
        if in_parquet is not None:
            return in_parquet
    vectors = read_vectors(path, table)
    return Tables(path=path, family=vectors.family, token=vectors.token, words=vectors.words)


def _folder_tables(folder: ModelFolder, table: str | None) -> Tables:
    if not folder.file("config.json").is_file():
        rule = "hold a config.json (a model's) or a config.toml (a run's)"
        otherwise = ("without", "Give the folder that the training named at its end")
        found, next_step = other_forms_in(folder.path) or otherwise
        raise CheckpointError(str(folder.path), rule, found, next_step)
    config = folder.json("config.json")
    if table is not None:
        _refuse_quantised(folder, table)
        return Tables(path=folder.path, family="table", token=_named(folder, table), config=config)
    kind = config.get("model_type")
    if kind == "tokenspace":
        tables = {key: folder.table(key) for key in folder.keys}
        return _own_tables(folder.path, config, tables)
    if not isinstance(kind, str) or kind not in FAMILIES:
        rule = f"be of a known family: {', '.join(FAMILIES)}"
        next_step = "Name the token table's tensor with --table (table= in Python)"
        raise CheckpointError(f"model_type of {folder.path}", rule, kind, next_step)
    return _family_tables(folder, kind, FAMILIES[kind], config)


def _family_tables(folder: ModelFolder, kind: str, family: Family, config: dict[str, Any]) -> Tables:
    text = config.get("text_config")
    fields = {**family.defaults, **(text if isinstance(text, dict) else config)}
    for name in (*(p + family.token for p in family.prefixes), *family.head):
        _refuse_quantised(folder, name)
    prefix = next((p for p in family.prefixes if p + family.token in folder.keys), None)
    token = _named(folder, family.token if prefix is None else prefix + family.token)
    head, bias = (_optional(folder, *names) for names in (family.head, family.head_bias))
    try:
        scheme, offset = family.scheme(fields), family.offset(fields)
        eps = float(fields.get(family.norm_eps, 0.0))
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        found = f"without what is needed ({type(error).__name__}: {error})"
        raise CheckpointError(str(folder.path / "config.json"), f"describe a {kind}", found, _SAVE_AGAIN) from error
    weight = None if family.scheme_weight is None else _named(folder, prefix + family.scheme_weight)
    norm = family.norm and tuple(_named(folder, f"{prefix}{family.norm}.{part}") for part in ("weight", "bias"))
    scale = torch.tensor(token.shape[1] ** 0.5).to(token.dtype).item() if family.scaled else 1.0
    return Tables(
        path=folder.path,
        family=kind,
        token=token,
        stored_head=head,
        head_bias=bias,
        tie_flag=_tie_flag(config, family, head),
        copies=tuple(folder.table(key) for key in family.copies if key in folder.keys),
        scheme=scheme,
        scheme_tensors={} if weight is None else {"weight": weight},
        position_offset=offset,
        token_types=family.token_types and _named(folder, prefix + family.token_types),
        norm=norm and Norm(*norm, eps),
        scale=scale,
        config=config,
    )


def _tie_flag(config: dict[str, Any], family: Family, head: Table | None) -> bool | None:
    """None for a model saved without a head."""
    kinds = config.get("architectures")
    if head is None and kinds and not any(part in str(kinds) for part in _WITH_HEAD):
        return None
    flag = config.get("tie_word_embeddings")
    return family.tied if flag is None else bool(flag)


def _refuse_quantised(folder: ModelFolder, key: str) -> None:
    """Refuse a table in several parts: numbers of few bits, and the scales without which they mean nothing."""
    stem = key.removesuffix("weight")
    parts = sorted(k for k in folder.keys if k.startswith(stem) and k not in (key, f"{stem}bias"))
    if parts:
        rule = "be whole tables of floats"
        next_step = "Save the model with dequantize().save_pretrained(…), or name a whole table with --table"
        raise CheckpointError(f"token table and head of {folder.path}", rule, f"quantised: {parts[0]}", next_step)


def _named(folder: ModelFolder, key: str) -> Table:
    if key not in folder.keys:
        some = ", ".join(sorted(key for key in folder.keys if "emb" in key.lower())[:4]) or "no name like it"
        raise CheckpointError(f"tensors of {folder.path}", f"have one called {key}", some, "Check what the model is")
    return folder.table(key)


def _optional(folder: ModelFolder, *keys: str) -> Table | None:
    return next((folder.table(key) for key in keys if key in folder.keys), None)


def _run_tables(path: Path) -> Tables:
    """A run's tables, as of its latest checkpoint."""
    config = read_run_config(path)
    return _own_tables(path, config, read_header(latest_checkpoint(path / "checkpoints") / "model.safetensors"))


def read_run_config(path: Path) -> dict[str, Any]:
    """The settings of the run folder at `path`, by table.

    Raises:
        CheckpointError: they cannot be read, or are those of a model of which nothing is known.
    """
    try:
        config = tomllib.loads((path / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(str(path / "config.toml"), "be readable TOML", error, "Restore the file") from error
    run = config.get("run")
    if isinstance(run, dict) and run.get("made_by") == "tokenspace.study":
        rule, next_step = "be a run of tokenspace's own models", "Open it with your code; the study has its figures"
        raise CheckpointError(str(path), rule, "of a model that build made for a study", next_step)
    return config


def _own_tables(path: Path, config: dict[str, Any], tables: dict[str, Table]) -> Tables:
    """Those of a `LanguageModel`, of a run or in a folder of its own layout."""
    try:
        model = ModelConfig.stored(config["model"])
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"config of {path}", "hold a model's settings", error, "Restore the file") from error
    token, prefix = "embedding.token.weight", "embedding.position."
    if token not in tables:
        raise CheckpointError(f"tensors of {path}", f"have one called {token}", "without", "Restore the file")
    return Tables(
        path=path,
        family="tokenspace",
        token=tables[token],
        stored_head=tables.get("head.weight"),
        tie_flag=model.tie_head,
        scheme=(model.positions, dict(model.position_settings)),
        scheme_tensors={key.removeprefix(prefix): t for key, t in tables.items() if key.startswith(prefix)},
        shape=model.shape,
        scale=model.token_scale,
        config=config,
    )
