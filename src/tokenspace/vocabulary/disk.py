"""Vocabularies edited on disk: own runs and folders of transformers, into a new folder."""

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

from tokenspace.checkpoint import Run, open_tables
from tokenspace.errors import CheckpointError, SettingError
from tokenspace.files import as_path, check_absent
from tokenspace.vocabulary.changes import Change, check_change
from tokenspace.vocabulary.folders import edit_folder
from tokenspace.vocabulary.receipt import Receipt
from tokenspace.vocabulary.runs import edit_run


def edit_model(path: str | Path, out: str | Path, change: Change, *, text: str | None = None) -> Receipt:
    """Write a model with an edited vocabulary to a new folder, with a ``receipt.json``; the old one stays.

    Table, head, bias, tokenizer and settings change together; of a run also ledger, frames, optimiser and
    corpus, so that its training can go on.

    Args:
        path: A run folder, a folder that transformers' ``save_pretrained`` wrote, or a name in the local cache.
        out: Folder to make; must not exist.
        change: `Add`, `Remove`, `Trim`, `Reorder` or `Resize`.
        text: What to measure before and after, where the model can be run here: runs and GPT-2.

    Raises:
        SettingError: something stands at `out`, or a setting breaks a rule.
        TokenspaceError: the model cannot be opened, or the change cannot be made; nothing is left behind.

    Example:
        >>> import tempfile
        >>> from tokenspace import train, vocabulary
        >>> folder = tempfile.mkdtemp()
        >>> texts = ["The cat sat on the mat. " * 200]
        >>> run = train(documents=texts, out=folder + "/run", tokenizer="train:300", steps=2, d_model=8)
        >>> receipt = edit_model(folder + "/run", folder + "/grown", vocabulary.Add(["<user>"], special=True))
        >>> receipt.after.vocab_size - receipt.before.vocab_size
        1
    """
    out = as_path(out, "out")
    check_absent(out)
    check_change(change, text)
    with _without_collector():
        return _edit(path, out, change, text)


def _edit(path: str | Path, out: Path, change: Change, text: str | None) -> Receipt:
    tables = open_tables(path)
    if tables.family == "tokenspace":
        return edit_run(Run.from_folder(tables.path), out, change, text)
    if not tables.path.is_dir():
        next_step = "Give the folder of a model"
        raise CheckpointError(
            str(path), "be a model with a tokenizer", f"a file of vectors ({tables.family})", next_step
        )
    if out.resolve().is_relative_to(tables.path.resolve()):
        raise SettingError("out", "lie outside of the model", str(out), "Give another path")
    return edit_folder(tables, out, change, text)


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """No search for cycles meanwhile: a tokenizer is half a million lists and texts without any, looked through
    again and again while they are read, which is a third of the time of a trim.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
