"""The first order probe: which of two sentences of the same words is the original?

Sentences are cut from validation text and their words shuffled. The model answers by
the loss it gives to each; where the two losses are equal, it knows no order, and its
answer is worth half a point.

Axis letters: N pairs, T tokens of a sentence.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tokenspace.corpus import Corpus
from tokenspace.study.scoring import place_losses, rows_at_once
from tokenspace.tokenizer import Tokenizer
from tokenspace.training.objective import NextToken, Objective

NUM_PAIRS = 256
SENTENCE_TOKENS = 16
TIE = 1e-4  # nats per token
CHANCE = 0.5


@dataclass(frozen=True)
class Choices:
    """What a model chose.

    Attributes:
        accuracy: Share of originals found; a tie counts half. None without pairs.
        ties: Share of ties; None without pairs.
        pairs: How many pairs there were.
    """

    accuracy: float | None
    ties: float | None
    pairs: int


def sentence_pairs(
    corpus: Corpus, tokenizer: Tokenizer, length: int = SENTENCE_TOKENS, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Sentences and the same with their words shuffled, each after the one token that precedes the original.

    Args:
        corpus: The validation part.
        tokenizer: Tells where words begin: at blanks. Where most sentences have none, as in Chinese, each token is
            a word.
        length: Tokens of a sentence, T.
        seed: Of the shuffling.

    Returns:
        Originals and shuffled ones, int64, (N, T + 1); N is below `NUM_PAIRS` where the text is short or
        sentences consist of one word, over and over.
    """
    starts = np.arange(0, corpus.num_tokens - length, length)
    number = min(len(starts), NUM_PAIRS)
    starts = starts[np.linspace(0, len(starts) - 1, number).astype(np.int64)]
    windows = corpus.gather(starts, length + 1).astype(np.int64)
    pairs = _pairs(windows, _word_begins(tokenizer), seed)
    if len(pairs) < len(windows) / 2:
        pairs = _pairs(windows, np.ones(tokenizer.vocab_size, bool), seed)
    both = torch.from_numpy(np.array(pairs, np.int64).reshape(-1, 2, length + 1))
    return both[:, 0], both[:, 1]


@torch.no_grad()
def choose_originals(
    model: nn.Module, objective: Objective, originals: Tensor, shuffled: Tensor, vocab_size: int
) -> Choices:
    """Let a model choose between each sentence and its shuffled twin.

    Args:
        model: Token ids and a `Layout` to logits.
        objective: What it was trained to do; one that finds hidden tokens is asked for each token in turn.
        originals: int64, (N, T + 1).
        shuffled: The same words in another order.
        vocab_size: Logits at each place.
    """
    if not len(originals):
        return Choices(None, None, 0)
    gain = sentence_losses(model, objective, shuffled, vocab_size) - sentence_losses(
        model, objective, originals, vocab_size
    )
    tied = gain.abs() <= TIE
    won = (gain > 0) & ~tied
    return Choices(float((won + CHANCE * tied).double().mean()), float(tied.double().mean()), len(gain))


def sentence_losses(model: nn.Module, objective: Objective, sentences: Tensor, vocab_size: int) -> Tensor:
    """Mean loss per token of each sentence, after its first token: float64, (N,)."""
    T = sentences.shape[1] - 1
    places = torch.ones(1, 1, T, dtype=torch.bool)
    if not isinstance(objective, NextToken):  # one place at a time: the others are what it reads
        places = torch.eye(T, dtype=torch.bool).unsqueeze(0)
    P = places.shape[1]
    asked = places.expand(len(sentences), -1, -1).reshape(-1, T)
    rows = rows_at_once(T, vocab_size)
    parts = zip(sentences.repeat_interleave(P, dim=0).split(rows), asked.split(rows), strict=True)
    losses = [place_losses(model, objective.of_places(windows, some))[0].sum(1) for windows, some in parts]
    return torch.cat(losses).view(len(sentences), P).sum(1) / T


def _word_begins(tokenizer: Tokenizer) -> np.ndarray:
    """Whether each token begins a word: bool, (V,)."""
    texts = (tokenizer.decode([token_id]) for token_id in range(tokenizer.vocab_size))
    return np.array([text[:1].isspace() for text in texts])


def _pairs(windows: np.ndarray, begins: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each window and the same with its words in another order, where there is one."""
    generator = np.random.default_rng(seed)
    found = ((window, _shuffled(window, begins, generator)) for window in windows)
    return [(window, shuffled) for window, shuffled in found if shuffled is not None]


def _shuffled(window: np.ndarray, begins: np.ndarray, generator: np.random.Generator) -> np.ndarray | None:
    """The window with its words in another order; None where there is no other.

    What stands before the first word, at least one token, stays in its place.
    """
    places = np.flatnonzero(begins[window[1:]]) + 1
    head, *words = np.split(window, places)
    if len({tuple(word) for word in words}) < 2:
        return None
    while True:
        shuffled = np.concatenate([head, *(words[i] for i in generator.permutation(len(words)))])
        if (shuffled != window).any():
            return shuffled
