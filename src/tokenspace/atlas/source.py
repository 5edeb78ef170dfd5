"""What an atlas is made of: a model and its tokenizer, and what is known of its training."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tokenspace.checkpoint import ForeignModel, Run
from tokenspace.checkpoint.frames import table_of_frame
from tokenspace.corpus import Corpus
from tokenspace.embedding import InputEmbedding
from tokenspace.errors import CheckpointError, CorpusError
from tokenspace.ledger import LedgerRecord
from tokenspace.model import LanguageModel
from tokenspace.tokenizer import Tokenizer
from tokenspace.training.parts import open_corpus

_LENGTHS = ("max_position_embeddings", "n_positions", "seq_length", "n_ctx")  # as families name the context length


@dataclass(frozen=True, eq=False)
class Source:
    """A model to look at.

    Attributes:
        path: Where it lies.
        tokenizer: Its own.
        embedding: Its input embedding, on the CPU, in evaluation mode.
        tied: Whether the head is the token table; None where there is no head.
        context_length: The longest window it was made for; None where nobody says.
        model: The whole model, likewise; None where only its tables can be opened.
        run: The run that trained it; None for a model from elsewhere.
        step: Optimiser steps taken; None where nobody knows.
        ledger: What training did to each row; None where nobody kept one.
        corpora: The corpus by part, "train" and "validation"; empty where it is not at hand.
        notes: What is missing and why, for the reader.
    """

    path: Path
    tokenizer: Tokenizer
    embedding: InputEmbedding
    tied: bool | None
    context_length: int | None
    model: LanguageModel | None = None
    run: Run | None = None
    step: int | None = None
    ledger: LedgerRecord | None = None
    corpora: dict[str, Corpus] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, path: str | Path | Run | ForeignModel) -> "Source":
        """Open a run, or any other model that `Run.open` opens.

        Raises:
            CheckpointError: it is neither, is damaged, or has no tokenizer.
        """
        opened = path if isinstance(path, Run | ForeignModel) else Run.open(path)
        return cls._foreign(opened) if isinstance(opened, ForeignModel) else cls._run(opened)

    @classmethod
    def _run(cls, run: Run) -> "Source":
        notes: list[str] = []
        if run.ledger is None:
            notes.append("This run kept no ledger: which tokens training saw is not known.")
        try:
            corpora = {part: open_corpus(run, part) for part in ("train", "validation")}
        except CorpusError as error:
            corpora = {}
            notes.append(f"The run's corpus is not at hand, so nothing is measured on its text: {error}")
        model = run.model()
        return cls(
            path=run.path,
            tokenizer=run.tokenizer,
            embedding=model.embedding,
            tied=model.config.tie_head,
            context_length=model.config.context_length,
            model=model,
            run=run,
            step=run.step,
            ledger=run.ledger,
            corpora=corpora,
            notes=notes,
        )

    @classmethod
    def _foreign(cls, opened: ForeignModel) -> "Source":
        tables, notes = (
            opened.tables,
            ["A model from elsewhere: no ledger, no frames, no losses and no text to measure on."],
        )
        try:
            model = opened.model()
        except CheckpointError:  # its layers are unknown here
            model = None
        if model is not None:
            length = model.config.context_length
        elif tables.position is not None:
            length = tables.position.shape[0] - tables.position_offset
        else:
            length = next((tables.config[name] for name in _LENGTHS if isinstance(tables.config.get(name), int)), None)
        return cls(
            path=opened.path,
            tokenizer=opened.tokenizer,
            embedding=opened.embedding() if model is None else model.embedding,
            tied=tables.tied,
            context_length=length,
            model=model,
            notes=notes,
        )

    @property
    def table(self) -> Tensor:
        """The token table, (V, D)."""
        return self.embedding.token.weight.detach()

    def counts(self) -> np.ndarray | None:
        """How often training saw each token, int64, (V,); without a ledger, its places in the corpus.

        Nearly every place of a text is an input and a target too: the larger of the two counts it once.
        """
        if self.ledger is not None:
            return np.maximum(self.ledger.input_count, self.ledger.target_count)
        if "train" in self.corpora:
            counts = np.zeros(len(self.table), dtype=np.int64)
            found = self.corpora["train"].counts()
            counts[: len(found)] = found
            return counts
        return None

    @property
    def score_of(self) -> str:
        """What scores by distance are measured on: "text", ids that were "drawn", or the "scheme" alone."""
        if self.model is None:
            return "scheme"
        return "text" if "validation" in self.corpora else "drawn"

    @property
    def sees_ahead(self) -> bool:
        """Whether a place sees those after it too; of a scheme alone, whether it tells the two sides apart (T5)."""
        if self.model is None:
            return getattr(self.embedding.position, "bidirectional", False)
        return not self.model.config.causal

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
