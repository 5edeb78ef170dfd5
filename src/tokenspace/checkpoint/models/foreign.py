"""A model that another tool wrote, with the words of `Run` as far as they make sense."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from tokenspace.checkpoint.models.tables import Tables
from tokenspace.embedding import InputEmbedding
from tokenspace.errors import CheckpointError
from tokenspace.model import LanguageModel
from tokenspace.model.gpt2 import load_gpt2
from tokenspace.tokenizer import Tokenizer


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
        """Its vocabulary.

        Raises:
            CheckpointError: it has none.
        """
        if self.tables.tokenizer is None:
            next_step = "Save its tokenizer there: AutoTokenizer.from_pretrained(…).save_pretrained(…)"
            raise CheckpointError(str(self.path), "have a tokenizer.json", "without", next_step)
        return self.tables.tokenizer

    def embedding(self) -> InputEmbedding:
        """Its input embedding; see `Tables.embedding`."""
        return self.tables.embedding()

    def model(self) -> LanguageModel:
        """The whole model, on the CPU, in evaluation mode.

        Raises:
            CheckpointError: it is none of GPT-2's form, the only one with mathematics of this package.
        """
        if self.tables.family != "gpt2":
            next_step = "Run the model with the tool that wrote it"
            raise CheckpointError(f"model_type of {self.path}", "be gpt2 to run here", self.tables.family, next_step)
        return load_gpt2(self.path)

    def __repr__(self) -> str:
        return f"ForeignModel({str(self.path)!r}, family={self.tables.family!r})"

    def _repr_html_(self) -> str:
        tables = self.tables
        rows = {"family": tables.family, "rows": tables.num_rows, "d_model": tables.d_model, "scheme": tables.scheme[0]}
        cells = "".join(f"<tr><th>{escape(k)}</th><td>{escape(str(v))}</td></tr>" for k, v in rows.items())
        return f"<table><caption>{escape(str(self.path))}</caption>{cells}</table>"
