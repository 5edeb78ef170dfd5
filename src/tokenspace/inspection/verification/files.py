"""The files of a model: shards that are missing or do not hold what their index says, runs that were altered."""

from collections.abc import Iterator
from typing import Any

from tokenspace.checkpoint.models import Tables
from tokenspace.checkpoint.models.folder import ModelFolder
from tokenspace.checkpoint.state import latest_checkpoint
from tokenspace.errors import CheckpointError
from tokenspace.files import file_sha256, read_sealed_json
from tokenspace.inspection.verification.finding import Finding

_SETTINGS = "tokenizer_config.json"


def file_findings(tables: Tables) -> Iterator[Finding]:
    """Every file that the model is said to have."""
    if tables.is_run:
        yield from _altered(tables)
    elif tables.path.is_dir():
        yield from _shards(ModelFolder(tables.path))
        if (tables.path / _SETTINGS).exists() and not tokenizer_settings(tables):
            found = "no JSON object, or a link out of the folder"
            yield Finding("error", "file", _SETTINGS, found, "Save the tokenizer again with save_pretrained")


def tokenizer_settings(tables: Tables) -> dict[str, Any]:
    """What tokenizer_config.json says; nothing where there is none that can be read."""
    if not tables.path.is_dir():
        return {}
    try:
        return ModelFolder(tables.path).json(_SETTINGS)
    except CheckpointError:
        return {}


def _shards(folder: ModelFolder) -> Iterator[Finding]:
    for file, keys in folder.files.items():
        try:
            stored = folder.keys_in(file)
        except CheckpointError as error:
            name, rule, value, next_step = error.args
            yield Finding("error", "file", str(name), f"it must {rule}, but is {value}", next_step)
            continue
        missing, extra = sorted(keys - stored), sorted(stored - keys)
        for names, what in ((missing, "lacks"), (extra, "holds, unknown to the index,")):
            if names:
                found = f"{what} {', '.join(names[:3])}{' and more' if names[3:] else ''}"
                next_step = "Save the model again with save_pretrained, or download it again"
                yield Finding("error" if what == "lacks" else "warning", "shard-index", file.name, found, next_step)


def _altered(tables: Tables) -> Iterator[Finding]:
    folder = latest_checkpoint(tables.path / "checkpoints")
    for name, digest in read_sealed_json(folder / "state.json")["files"].items():
        file = folder / name
        if not file.is_file() or file_sha256(file) != digest:
            found = "altered or cut since it was written" if file.is_file() else "missing"
            yield Finding("error", "file", str(file), found, "Use another checkpoint, or copy it again")
