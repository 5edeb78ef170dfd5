"""Names of the Hugging Face hub, found in its local cache. Nothing is ever downloaded.

Source: huggingface_hub, "Understand caching": ``models--OWNER--NAME/refs/main`` names the snapshot.
"""

import os
import re
from pathlib import Path

from tokenspace.errors import CheckpointError
from tokenspace.files import as_path

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def find_model(path: str | Path) -> Path:
    """The path itself where something stands there, else the snapshot of the model of that name.

    Raises:
        SettingError: it is no path at all.
        CheckpointError: neither; for what may be a name, with the command that downloads it.
    """
    if as_path(path, "model").exists():
        return Path(path)
    name = path if isinstance(path, str) else Path(path).as_posix()
    rule = "be a folder, a file of vectors, or a model of the local Hugging Face cache"
    if not _NAME.fullmatch(name):
        raise CheckpointError("model", rule, name, "Check the path")
    home = cache_folder() / f"models--{name.replace('/', '--')}"
    try:
        revision = (home / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        next_step = f"Check the path, or download the model with `hf download {name}`"
        raise CheckpointError("model", rule, name, next_step) from None
    snapshot = home / "snapshots" / revision
    if not re.fullmatch(r"[\w.-]+", revision) or not snapshot.is_dir():
        rule = "be complete in the local Hugging Face cache"
        raise CheckpointError(name, rule, f"without snapshot {revision!r}", f"Repeat `hf download {name}`")
    return snapshot


def cache_folder() -> Path:
    """Where the hub's own tools keep their files, by the same environment variables."""
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if cache:
        return Path(cache).expanduser()
    home = os.environ.get("HF_HOME")
    if home:
        return Path(home).expanduser() / "hub"
    general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(general).expanduser() / "huggingface" / "hub"
