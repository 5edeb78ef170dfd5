"""Losses of a model, place by place: all that the study's measures of text are made of.

A model here is any module that maps token ids and a `Layout` to logits.

Axis letters: B batch, T length, V vocabulary.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenspace.corpus import Corpus
from tokenspace.positions import Layout
from tokenspace.training.objective import Objective, Question

_LOGITS_BYTES = 64 << 20  # of one batch
_MOST_TOKENS = 8192  # of one batch: with more, attention of small models leaves the caches


def place_losses(model: nn.Module, question: Question) -> tuple[Tensor, Tensor]:
    """Loss at each place of a question, in nats.

    Args:
        model: Token ids and a `Layout` to logits.
        question: What it is asked.

    Returns:
        Losses, float64 (B, T), 0 where nothing is asked; and whether something is, bool (B, T).
    """
    B, T = question.inputs.shape
    device = next(model.parameters()).device
    logits = model(question.inputs.to(device), Layout.contiguous(T, device))
    asked = torch.ones(B, T, dtype=torch.bool) if question.places is None else question.places
    losses = torch.zeros(B, T, dtype=torch.float64)
    found = F.cross_entropy(question.asked(logits).float(), question.targets.to(device), reduction="none")
    losses[asked] = found.double().cpu()
    return losses, asked


def window_questions(
    corpus: Corpus, objective: Objective, starts: np.ndarray, length: int, vocab_size: int
) -> Iterator[Question]:
    """What is asked of windows that begin at `starts`, as many at once as fit.

    Args:
        corpus: The part they lie in.
        objective: How windows become questions.
        starts: int64, (N,).
        length: Tokens of a window, T.
        vocab_size: Logits at each place, V.
    """
    rows = rows_at_once(length, vocab_size)
    for first in range(0, len(starts), rows):
        some = starts[first : first + rows]
        windows = torch.from_numpy(corpus.gather(some, length + 1).astype(np.int64))
        yield objective.of_windows(windows, some)


def rows_at_once(length: int, vocab_size: int) -> int:
    """How many windows make a batch that is not too large.

    Example:
        >>> rows_at_once(128, 2048)
        64
    """
    return max(1, min(_MOST_TOKENS, _LOGITS_BYTES // (4 * vocab_size)) // length)
