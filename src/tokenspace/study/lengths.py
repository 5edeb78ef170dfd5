"""Loss on validation text: by position in the window, and with more context than in training.

At every length the same tokens are scored, each from a window that ends in them: what
differs is how much stands before. Otherwise a longer window would look better for no
other reason than that fewer of its tokens have little before them.

Axis letters: N windows, T length.
"""

import copy

import numpy as np
import torch
from torch import nn

from tokenspace.corpus import Corpus
from tokenspace.errors import ShapeError
from tokenspace.model import LanguageModel
from tokenspace.positions import Layout
from tokenspace.study.scoring import place_losses, window_questions
from tokenspace.training.objective import Objective


@torch.no_grad()
def loss_by_position(
    model: nn.Module, corpus: Corpus, objective: Objective, context_length: int, vocab_size: int
) -> tuple[float, list[float]]:
    """Loss on windows that cover the validation part once.

    Args:
        model: Token ids and a `Layout` to logits.
        corpus: The validation part.
        objective: What the model was trained to do.
        context_length: Tokens of a window, T.
        vocab_size: Logits at each place.

    Returns:
        The mean over all tokens asked for, and the mean at each position, T of them (NaN where none was asked).
    """
    starts = np.arange(0, corpus.num_tokens - context_length, context_length)
    sums, counts = np.zeros(context_length), np.zeros(context_length)
    for question in window_questions(corpus, objective, starts, context_length, vocab_size):
        losses, asked = place_losses(model, question)
        sums += losses.sum(0).numpy()
        counts += asked.sum(0).numpy()
    with np.errstate(invalid="ignore"):
        return float(sums.sum() / counts.sum()), (sums / counts).tolist()


@torch.no_grad()
def loss_at_lengths(
    model: nn.Module,
    corpus: Corpus,
    objective: Objective,
    lengths: list[int],
    most_targets: int,
    vocab_size: int,
) -> tuple[list[float | None], int]:
    """Loss on the same tokens with different lengths of context.

    The tokens are the last half of the shortest window, at places that are spread evenly.

    Args:
        model: Token ids and a `Layout` to logits.
        corpus: The validation part.
        objective: What the model was trained to do.
        lengths: Of the windows, ascending.
        most_targets: About so many tokens are scored.
        vocab_size: Logits at each place.

    Returns:
        The mean at each length, None where the model cannot read so much; and how many tokens were scored.
    """
    scored = max(1, lengths[0] // 2)
    ends = final_targets(corpus.num_tokens, lengths[-1], scored, most_targets)
    means: list[float | None] = []
    number = 0
    for length in lengths:
        reader = reading(model, length)
        if not can_read(reader, length):
            means.append(None)
            continue
        total, number = 0.0, 0
        for question in window_questions(corpus, objective, ends - length, length, vocab_size):
            losses, asked = place_losses(reader, question)
            total += float(losses[:, -scored:].sum())
            number += int(asked[:, -scored:].sum())
        means.append(total / number)
    return means, number


def final_targets(num_tokens: int, longest: int, scored: int, most_targets: int) -> np.ndarray:
    """Where windows end whose last `scored` tokens are measured; each token at most once.

    Example:
        >>> final_targets(num_tokens=100, longest=32, scored=16, most_targets=48).tolist()
        [32, 64, 96]
    """
    ends = np.arange(longest, num_tokens, scored)
    number = min(len(ends), max(1, most_targets // scored))
    return ends[np.linspace(0, len(ends) - 1, number).astype(np.int64)]


def reading(model: nn.Module, length: int) -> nn.Module:
    """The model, with more rows where its table of positions ends before `length`; those are untrained.

    Other models that cannot read so much are returned as they are.
    """
    if not isinstance(model, LanguageModel):
        return model
    scheme = model.embedding.position
    if scheme.max_position is None or scheme.max_position >= length - 1 or not hasattr(scheme, "resized"):
        return model
    longer = copy.deepcopy(model)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        longer.embedding.position = scheme.resized(length)
    return longer.eval()


@torch.no_grad()
def can_read(model: nn.Module, length: int) -> bool:
    """Whether a model has a place for so many tokens: it says so by a `ShapeError`, a plain table by an IndexError.

    Asked on the CPU: a CUDA device that looks beyond a table is lost to its process.
    """
    if any(parameter.is_cuda for parameter in model.parameters()):
        model = copy.deepcopy(model).cpu()
    device = next(model.parameters()).device
    ids, layout = torch.zeros(1, length, dtype=torch.int64, device=device), Layout.contiguous(length, device)
    try:
        model.eval()(ids, layout)
    except (ShapeError, IndexError):
        return False
    return True
