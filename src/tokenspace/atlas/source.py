"""What an atlas is made of: a model and its tokenizer, and what is known of its training."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tokenspace.checkpoint import Run
from tokenspace.checkpoint.frames import table_of_frame
from tokenspace.corpus import Corpus
from tokenspace.errors import CorpusError
from tokenspace.ledger import LedgerRecord
from tokenspace.model import LanguageModel
from tokenspace.model.gpt2 import load_gpt2
from tokenspace.tokenizer import Tokenizer
from tokenspace.training.parts import open_corpus


@dataclass(frozen=True, eq=False)
class Source:
    """A model to look at.

    Attributes:
        path: Where it lies.
        model: On the CPU, in evaluation mode.
        tokenizer: Its own.
        run: The run that trained it; None for a model from elsewhere.
        step: Optimiser steps taken; None where nobody knows.
        ledger: What training did to each row; None where nobody kept one.
        corpora: The corpus by part, "train" and "validation"; empty where it is not at hand.
        notes: What is missing and why, for the reader.
    """

    path: Path
    model: LanguageModel
    tokenizer: Tokenizer
    run: Run | None
    step: int | None
    ledger: LedgerRecord | None
    corpora: dict[str, Corpus]
    notes: list[str]

    @classmethod
    def open(cls, path: str | Path | Run) -> "Source":
        """Open a run folder, or a folder of a GPT-2 that transformers saved.

        Raises:
            CheckpointError: it is neither, or damaged.
        """
        if not isinstance(path, Run) and (Path(path) / "config.json").is_file():
            return cls._gpt2(Path(path))
        run = path if isinstance(path, Run) else Run.open(path)
        notes: list[str] = []
        if run.ledger is None:
            notes.append("This run kept no ledger: which tokens training saw is not known.")
        try:
            corpora = {part: open_corpus(run, part) for part in ("train", "validation")}
        except CorpusError as error:
            corpora = {}
            notes.append(f"The run's corpus is not at hand, so nothing is measured on its text: {error}")
        return cls(run.path, run.model(), run.tokenizer, run, run.step, run.ledger, corpora, notes)

    @classmethod
    def _gpt2(cls, path: Path) -> "Source":
        model, file = load_gpt2(path), path / "tokenizer.json"
        tokenizer = Tokenizer.from_file(file) if file.is_file() else Tokenizer.gpt2()
        notes = ["A model from elsewhere: no ledger, no frames, no losses and no text to measure on."]
        return cls(path, model, tokenizer, None, None, None, {}, notes)

    @property
    def table(self) -> Tensor:
        """The token table, (V, D)."""
        return self.model.embedding.token.weight.detach()

    def counts(self) -> np.ndarray | None:
        """How often each token was an input or a target, int64, (V,); without a ledger, its places in the corpus."""
        if self.ledger is not None:
            return self.ledger.input_count + self.ledger.target_count
        if "train" in self.corpora:
            counts = np.zeros(len(self.table), dtype=np.int64)
            found = self.corpora["train"].counts()
            counts[: len(found)] = found
            return counts
        return None

    def first_table(self) -> Tensor | None:
        """The token table before the first step; None where it was not kept."""
        if self.run is None or 0 not in self.run.frames:
            return None
        return table_of_frame(self.run.path, 0, self.table)

    def probe(self, length: int) -> Tensor:
        """Ids to run the model on, (1, T): the first of the validation part, or drawn evenly where there is none."""
        corpus = self.corpora.get("validation")
        if corpus is not None:
            ids = corpus.gather(np.zeros(1, dtype=np.int64), min(length, corpus.num_tokens))
            return torch.from_numpy(ids.astype(np.int64))
        drawn = np.random.default_rng(0).integers(0, len(self.table), (1, length))
        return torch.from_numpy(drawn)
