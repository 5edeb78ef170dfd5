"""Run folders: one training, from its settings to its tables.

    config.toml        every setting, as resolved
    tokenizer.json     the vocabulary
    corpus/            the token ids, where the run made them itself
    metrics.jsonl      one record a line
    ledger.safetensors what training did to each token, as of the latest checkpoint
    frames/            the tables as they were on the way; see `tokenspace.checkpoint.frames`
    checkpoints/<step>/         see `tokenspace.checkpoint.state`

`Run` reads; `tokenspace.training` writes.
"""

import json
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import tomli_w
import torch
from torch import Tensor

from tokenspace.checkpoint.frames import (
    Projections,
    frame_steps,
    load_frame,
    load_projections,
    project_frames,
    projections_path,
    save_frame,
)
from tokenspace.checkpoint.models import ForeignModel, Tables, open_tables, read_run_config
from tokenspace.checkpoint.models.cache import find_model
from tokenspace.checkpoint.state import latest_checkpoint, load_model
from tokenspace.embedding import InputEmbedding
from tokenspace.errors import CheckpointError, TokenspaceError
from tokenspace.files import as_path
from tokenspace.ledger import LedgerRecord
from tokenspace.model import LanguageModel, ModelConfig
from tokenspace.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenspace.atlas import Atlas

_CONFIG, _TOKENIZER, _METRICS, _LEDGER = "config.toml", "tokenizer.json", "metrics.jsonl", "ledger.safetensors"
_NEEDED = {  # by table; `ModelConfig` and the training's own settings check themselves
    "run": ("made_by",),
    "tokenizer": ("identity",),
    "corpus": ("path", "identity"),
    "model": ("vocab_size",),
    "training": ("steps",),
}


class Run:
    """A finished or interrupted training on disk.

    Attributes:
        path: The run folder.
        config: The tables of ``config.toml``: run, tokenizer, corpus, model, init, training.

    Example:
        >>> Run.open("no/such/run")
        Traceback (most recent call last):
        ...
        tokenspace.errors.CheckpointError: `model` must be a folder, a file of vectors, or a model of the ...
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config

    @classmethod
    def open(cls, path: str | Path, *, table: str | None = None) -> "Self | ForeignModel":
        """Open a run folder, or any other model that `open_tables` opens.

        Args:
            path: A folder, a file of vectors, or a name in the local Hugging Face cache.
            table: As in `open_tables`.

        Raises:
            CheckpointError: there is no such thing, it is damaged, or of no known family.
        """
        path = find_model(path)
        if (path / _CONFIG).is_file():
            return cls.from_folder(path)
        return ForeignModel(open_tables(path, table=table))

    @classmethod
    def from_folder(cls, path: str | Path) -> Self:
        """Open the run folder at `path`, and nothing else.

        Raises:
            CheckpointError: it is no run folder, or its config is damaged.
        """
        path = as_path(path, "run")
        if not (path / _CONFIG).is_file():
            next_step = "Give the folder that `tokenspace train` named at its end"
            raise CheckpointError("run", f"be a folder with a {_CONFIG}", str(path), next_step)
        config = read_run_config(path)
        try:
            missing = [
                f"[{t}] {name}" for t, names in _NEEDED.items() for name in names if name not in config.get(t, {})
            ]
        except (TypeError, AttributeError) as error:
            raise CheckpointError(str(path / _CONFIG), "be made of tables", error, "Restore the file") from error
        if missing:
            raise CheckpointError(str(path / _CONFIG), f"have {missing[0]}", "without", "Restore the file")
        return cls(path, config)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary the run was trained with.

        Raises:
            CheckpointError: the stored file is not the tokenizer that the config names.
        """
        tokenizer = Tokenizer.from_file(self.path / _TOKENIZER)
        if tokenizer.identity != self.config["tokenizer"]["identity"]:
            next_step = "Restore the run's own tokenizer.json"
            raise CheckpointError(str(self.path / _TOKENIZER), "be the run's tokenizer", "another one", next_step)
        return tokenizer

    @property
    def tables(self) -> Tables:
        """The tables of the latest checkpoint, on disk."""
        return open_tables(self.path)

    @property
    def model_config(self) -> ModelConfig:
        """The model's sizes and scheme.

        Raises:
            CheckpointError: the config names a setting that no model has.
        """
        try:
            return ModelConfig.stored(self.config["model"])
        except TypeError as error:
            raise CheckpointError("[model] of config.toml", "hold a model's settings", error, "Restore it") from error

    @property
    def step(self) -> int:
        """Optimiser steps of the latest checkpoint."""
        return int(latest_checkpoint(self.checkpoints).name)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics_path(self) -> Path:
        """The file of the training's records."""
        return self.path / _METRICS

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """All records so far, oldest first; a line cut short by a kill is left out."""
        if not self.metrics_path.exists():
            return []
        lines = self.metrics_path.read_bytes().split(b"\n")[:-1]
        try:
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise CheckpointError(str(self.metrics_path), "hold one JSON record a line", error, "Restore it") from error

    @property
    def ledger_path(self) -> Path:
        """The file of the ledger."""
        return self.path / _LEDGER

    @property
    def ledger(self) -> LedgerRecord | None:
        """What training did to each token's row up to the latest checkpoint; None where nobody kept a ledger.

        Raises:
            CheckpointError: the file is damaged or of another vocabulary.
        """
        if not self.ledger_path.exists():
            return None
        return LedgerRecord.load(self.ledger_path, vocab_size=self.config["model"]["vocab_size"])

    def model(self) -> LanguageModel:
        """The model at the latest checkpoint, on the CPU, in evaluation mode.

        Raises:
            CheckpointError: the checkpoint is missing or damaged.
        """
        with torch.random.fork_rng([]):  # the first draw, overwritten at once, is none of the caller's
            model = LanguageModel(self.model_config)
        load_model(latest_checkpoint(self.checkpoints), model)
        return model.eval()

    def embedding(self) -> InputEmbedding:
        """The trained input embedding: token table and positions."""
        return self.model().embedding

    @property
    def frames(self) -> list[int]:
        """The steps whose tables were kept whole, in order; the first is 0, before training."""
        return frame_steps(self.path)

    def frame(self, step: int) -> dict[str, Tensor]:
        """The tables as they were at a step of `frames`, by their names within the input embedding.

        Float32 at step 0, float16 later.

        Raises:
            SettingError: no frame was kept at this step.
            CheckpointError: the file is damaged, or that of step 0, which every run has, was removed.
        """
        return load_frame(self.path, step)

    def projections(self) -> Projections:
        """The token table at every step that was kept, on the first principal components of the last.

        Of a training that goes on or was stopped, the last is that of the latest checkpoint.

        Raises:
            CheckpointError: a file is damaged.
        """
        if projections_path(self.path).exists():
            return load_projections(self.path)
        now = self.step
        steps = [step for step in self.frames if step <= now]
        return project_frames(self.path, steps, self.embedding().token.weight.detach(), now)

    def atlas(self, **settings: Any) -> "Atlas":
        """The atlas of this run, which shows itself in notebooks; see `tokenspace.atlas.Atlas.of`."""
        from tokenspace.atlas import Atlas  # a room above, which opens runs

        return Atlas.of(self, **settings)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, step={self._step_or_none()})"

    def _repr_html_(self) -> str:
        rows = {**self.config["model"], "step": self._step_or_none()}
        cells = "".join(f"<tr><th>{escape(k)}</th><td>{escape(str(v))}</td></tr>" for k, v in rows.items())
        return f"<table><caption>{escape(str(self.path))}</caption>{cells}</table>"

    def _step_or_none(self) -> int | None:
        try:
            return self.step
        except TokenspaceError:
            return None


def create_run(folder: Path, config: dict[str, Any], tokenizer: Tokenizer, model: LanguageModel) -> None:
    """Fill a new folder with all of a run that is known before its first step."""
    (folder / _CONFIG).write_bytes(tomli_w.dumps(config).encode())
    tokenizer.save(folder / _TOKENIZER)
    (folder / _METRICS).touch()
    save_frame(folder, 0, model.embedding)
