"""Which documents were in a past batch: computed from seed and index, with nothing logged while training."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenspace.corpus import Corpus
from tokenspace.errors import SettingError, check_at_least
from tokenspace.windows import WindowOrder


@dataclass(frozen=True)
class DocumentInBatch:
    """A document, or the part of it that a window held.

    Attributes:
        window: Row of the batch, from 0; of the global one, all ranks together.
        start: The window's first token, counted from the beginning of the split.
        document: Number of the document in the split.
        num_tokens: How many of the window's tokens are its.
        source: The file it comes from.
        row: Line or row in it, from 0.
        id: What the source calls it, or None.
    """

    window: int
    start: int
    document: int
    num_tokens: int
    source: str
    row: int
    id: str | None


def documents_in_batch(corpus: Corpus, state: dict[str, Any], *, batch_size: int, step: int) -> list[DocumentInBatch]:
    """The documents in the batch of a step, window by window.

    Args:
        corpus: The split that was loaded.
        state: Any `WindowLoader.state_dict` of that training; says seed, windows and order.
        batch_size: Windows of a step, those of all ranks together; the same from the first step on.
        step: From 1.

    Raises:
        SettingError: the state belongs to another corpus, or a number is out of range.
        CorpusError: the corpus keeps no record of where its documents come from.
    """
    check_at_least(1, batch_size=batch_size, step=step)
    if state.get("tokens") != corpus.identity:
        next_step = "Give the corpus of that training"
        raise SettingError(
            "state", f"be of the corpus {corpus.identity[:12]}", state.get("tokens", "absent"), next_step
        )
    streams = state.get("streams", 1)
    steps_an_epoch = state["num_windows"] // streams * streams // batch_size
    check_at_least(1, **{"batches of an epoch": steps_an_epoch})
    epoch, number = divmod(step - 1, steps_an_epoch)
    order = WindowOrder(
        num_windows=state["num_windows"],
        shuffle=state["shuffle"],
        seed=state["seed"] or 0,
        epoch=epoch,
        streams=streams,
        block_windows=state.get("block_windows", 1),
    )
    starts = order.windows(np.arange(number * batch_size, (number + 1) * batch_size)) * state["stride"]
    return [
        document
        for window, start in enumerate(starts.tolist())
        for document in _documents_of(corpus, window, start, state["context_length"] + 1)
    ]


def _documents_of(corpus: Corpus, window: int, start: int, length: int) -> list[DocumentInBatch]:
    first, last = corpus.find_documents(np.array([start, start + length - 1])).tolist()
    documents = np.arange(first, last + 1)
    bounds = corpus.document_begins(np.arange(first, last + 2)).clip(start, start + length)
    held = np.flatnonzero(np.diff(bounds))  # empty documents are in no batch
    return [
        DocumentInBatch(window, start, int(documents[place]), int(bounds[place + 1] - bounds[place]), *origin)
        for place, origin in zip(held.tolist(), corpus.origins(documents[held]), strict=True)
    ]
