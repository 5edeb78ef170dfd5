"""A model that another tool wrote, with the words of `Run` as far as they make sense."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tokenspace.checkpoint.models.folder import ModelFolder
from tokenspace.checkpoint.models.tables import Tables
from tokenspace.checkpoint.state import load_tensors
from tokenspace.embedding import InputEmbedding
from tokenspace.errors import CheckpointError
from tokenspace.model import LanguageModel
from tokenspace.model.gpt2 import load_gpt2
from tokenspace.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenspace.atlas import Atlas

_GPT2_ROWS = 50_257


class ForeignModel:
    """What `Run.open` gives for models that are no runs.

    Args:
        tables: The model's tables.

    Attributes:
        tables: The same.
        ledger: None: nobody kept one.
        step: None: it is not known.
    """

    ledger = None
    step = None

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    @property
    def path(self) -> Path:
        """The folder or file."""
        return self.tables.path

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings in its config.json; empty for files of vectors."""
        return self.tables.config

    @property
    def tokenizer(self) -> Tokenizer:
        """Its vocabulary; GPT-2's own, for a GPT-2 of that size without a tokenizer.json.

        Raises:
            CheckpointError: it has none.
        """
        if self.tables.tokenizer is None and (self.tables.family, self.tables.num_rows) == ("gpt2", _GPT2_ROWS):
            return Tokenizer.gpt2()
        if self.tables.tokenizer is None:
            next_step = "Save its tokenizer there: AutoTokenizer.from_pretrained(…).save_pretrained(…)"
            if self.path.is_file():
                next_step = "Give a folder that has one, or a file that names its words: word2vec, GloVe, fastText"
            raise CheckpointError(str(self.path), "have a tokenizer.json", "without", next_step)
        return self.tables.tokenizer

    def embedding(self) -> InputEmbedding:
        """Its input embedding; see `Tables.embedding`."""
        return self.tables.embedding()

    def model(self) -> LanguageModel:
        """The whole model, on the CPU, in evaluation mode.

        Raises:
            CheckpointError: it is neither of GPT-2's form nor of this package's own.
        """
        if self.tables.family == "tokenspace" and self.path.is_dir():
            return self._own_model()
        if self.tables.family != "gpt2" or not self.path.is_dir():
            next_step = "Run the model with the tool that wrote it"
            raise CheckpointError(f"model_type of {self.path}", "be gpt2 to run here", self.tables.family, next_step)
        ModelFolder(self.path).check_layers(self.config)
        return load_gpt2(self.path)

    def atlas(self, **settings: Any) -> "Atlas":
        """The atlas of this model, which shows itself in notebooks; see `tokenspace.atlas.Atlas.of`."""
        from tokenspace.atlas import Atlas  # a room above, which opens models

        return Atlas.of(self, **settings)

    def _own_model(self) -> LanguageModel:
        with torch.random.fork_rng([]):  # the first draw, overwritten at once, is none of the caller's
            model = LanguageModel(**self.config["model"])
        folder = ModelFolder(self.path)
        tensors = {key: folder.table(key).tensor() for key in folder.keys}
        load_tensors(model, tensors, self.path / "model.safetensors")
        return model.eval()

    def __repr__(self) -> str:
        return f"ForeignModel({str(self.path)!r}, family={self.tables.family!r})"

    def _repr_html_(self) -> str:
        tables = self.tables
        rows = {"family": tables.family, "rows": tables.num_rows, "d_model": tables.d_model, "scheme": tables.scheme[0]}
        cells = "".join(f"<tr><th>{escape(k)}</th><td>{escape(str(v))}</td></tr>" for k, v in rows.items())
        return f"<table><caption>{escape(str(self.path))}</caption>{cells}</table>"
