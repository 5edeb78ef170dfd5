"""A model folder as a model that can be run, to measure an edit: GPT-2 by this package, other families by transformers.

transformers is no dependency: where it is installed, its own classes get the tensors that this package has opened and
checked. It is given no path, so that it reads no file, asks no hub, and runs no code of the folder.
"""

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from tokenspace.checkpoint import Tables
from tokenspace.checkpoint.models.folder import ModelFolder
from tokenspace.errors import CheckpointError
from tokenspace.model.gpt2 import load_gpt2


class CannotRunError(CheckpointError):
    """A folder is no model that can be run here; its third argument says why."""

    def __init__(self, tables: Tables, why: str) -> None:
        super().__init__(str(tables.path), "be a model that can be run here", why, "Leave the text out")


def load_model(tables: Tables) -> nn.Module:
    """The model of a folder, on the CPU, in evaluation mode.

    Raises:
        CannotRunError: it cannot be run here.
        TokenspaceError: the folder is damaged.
    """
    folder = ModelFolder(tables.path)
    try:
        folder.check_layers(tables.config)
    except CheckpointError as error:
        raise CannotRunError(tables, f"as its config must {error.args[1]}") from error
    if tables.family == "gpt2":
        return load_gpt2(tables.path)
    if importlib.util.find_spec("transformers") is None:
        raise CannotRunError(tables, "as transformers is not installed")
    import transformers

    named = tables.config.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    kind = getattr(transformers, name, None) if isinstance(name, str) else None
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
        raise CannotRunError(tables, f"as transformers has no {name!r}")
    tensors = {key: folder.table(key).tensor() for key in sorted(folder.keys)}
    try:
        with _quietly(), torch.random.fork_rng([]):
            config = kind.config_class.from_dict(dict(tables.config))
            model, told = kind.from_pretrained(
                None,
                config=config,
                state_dict=tensors,
                attn_implementation="eager",  # a config may name code of a hub for it
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # a config of odd values makes its classes raise nearly anything
        raise CannotRunError(tables, f"{type(error).__name__}: {' '.join(str(error).split())[:80]}") from error
    if told["missing_keys"]:
        raise CannotRunError(tables, f"as its files lack {min(told['missing_keys'])}")
    return model.eval()


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the bar and the warnings of transformers, which are meant for its own users."""
    from transformers.utils import logging as own

    bar, level = own.is_progress_bar_enabled(), own.get_verbosity()
    own.disable_progress_bar()
    own.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        own.set_verbosity(level)
        if bar:
            own.enable_progress_bar()
