"""Losses over the training, and over the places of a window.

Axis letters: B batch, T context_length.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenspace.corpus import Corpus
from tokenspace.model import LanguageModel
from tokenspace.training.evaluation import evaluation_batches
from tokenspace.training.objective import Question, objective_of

_MOST_POINTS = 500
_MOST_TOKENS = 65_536
_MOST_FLOPS = 1e12  # some 15 seconds on two cores
_BATCH_TOKENS = 4096
_MOST_LOGITS = 1 << 26  # at once


def loss_curves(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """The losses of a run's records: ``train`` and ``evaluation`` as lists of [step, loss], and ``unigram``.

    Steps of training are averaged in runs of equal length where there are more than 500.
    """
    steps = np.array([[r["step"], r["loss"]] for r in metrics if r["kind"] == "step"]).reshape(-1, 2)
    parts = np.array_split(steps, min(len(steps), _MOST_POINTS)) if len(steps) else []
    evaluations = [r for r in metrics if r["kind"] == "evaluation"]
    unigrams = [r["unigram_loss"] for r in evaluations if r.get("unigram_loss") is not None]
    return {
        "train": [[int(part[-1, 0]), float(part[:, 1].mean())] for part in parts],
        "evaluation": [[r["step"], r["loss"]] for r in evaluations],
        "unigram": unigrams[-1] if unigrams else None,
    }


@torch.no_grad()
def loss_by_position(
    model: LanguageModel, corpus: Corpus, progress: Callable[[int, int], None] = lambda done, total: None
) -> np.ndarray | None:
    """Mean loss at each place of a window, on windows spread over a corpus that stand alone, without memory.

    The model is asked what its training asked: for the next token, or for those that were hidden there.
    How many windows is set by the operations they take, never by the clock.

    Args:
        model: In evaluation mode, on the CPU.
        corpus: Its ids are the model's.
        progress: Called with the batches done and all there are.

    Returns:
        float32, (T,), in nats, NaN at places that were never asked; None where the corpus is shorter than a window.
    """
    T = model.config.context_length
    affordable = int(_MOST_FLOPS / (2 * model.num_parameters()))
    batch_size = max(1, _BATCH_TOKENS // T)
    if corpus.num_tokens <= T:
        return None
    total, asked = torch.zeros(T, dtype=torch.float64), torch.zeros(T, dtype=torch.float64)
    objective = objective_of(model.config)
    runs = evaluation_batches(corpus.num_tokens, T, batch_size, max(T, min(_MOST_TOKENS, affordable)), False)
    batches = [starts for run in runs for starts in run]
    for done, starts in enumerate(batches):
        progress(done, len(batches))
        ids = torch.from_numpy(corpus.gather(starts, T + 1).astype(np.int64))
        question = objective.of_windows(ids, starts)
        at = torch.arange(T).expand(len(ids), T)
        at = at.flatten() if question.places is None else at[question.places]
        total.index_add_(0, at, _losses(model, question).double())
        asked += at.bincount(minlength=T)
    return (total / asked).float().numpy()


def _losses(model: LanguageModel, question: Question) -> Tensor:
    """The loss of each target, (N,), without all logits at once."""
    features = question.asked(model.features(question.inputs))
    rows = max(1, _MOST_LOGITS // model.config.vocab_size)
    pieces = zip(features.split(rows), question.targets.split(rows), strict=True)
    return torch.cat([F.cross_entropy(model.head(some).float(), wanted, reduction="none") for some, wanted in pieces])
