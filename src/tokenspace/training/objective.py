"""What a model is asked in training: for the next token, or for hidden ones.

The question follows from the model. One that sees both sides of a place sees the next
token too, so it can only be asked for tokens that were hidden from it (Devlin et al. 2018,
"BERT"; here every token to be found is hidden, none is replaced by another or left).
Nothing here computes a loss.

Axis letters: B batch, T length, N tokens that are asked for.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tokenspace.model import ModelConfig

HIDDEN_SHARE = 0.15


@dataclass(frozen=True)
class Question:
    """What a model reads and what it is to say.

    Attributes:
        inputs: int64, (B, T).
        places: Where it is asked: bool, (B, T); None for everywhere.
        targets: The answers, row by row: int64, (N,).
    """

    inputs: Tensor
    places: Tensor | None
    targets: Tensor

    def asked(self, features: Tensor) -> Tensor:
        """What stands at the places, of (B, T, …): (N, …)."""
        return features.flatten(0, 1) if self.places is None else features[self.places]


class Objective(Protocol):
    """How windows become questions."""

    def of_step(self, inputs: Tensor, targets: Tensor, seed: int, step: int) -> Question:
        """The question of a training step; the same for the same seed and step."""

    def of_windows(self, windows: Tensor, starts: np.ndarray) -> Question:
        """The question of an evaluation; the same whenever a window holds the same tokens of a text."""

    def of_places(self, windows: Tensor, places: Tensor) -> Question:
        """The question for some of the last T tokens of windows of T + 1; `places` is bool, (B, T)."""


class NextToken:
    """Asks everywhere for the token that follows."""

    def of_step(self, inputs: Tensor, targets: Tensor, seed: int, step: int) -> Question:
        """See `Objective`; inputs and targets are (B, T)."""
        return Question(inputs, None, targets.flatten())

    def of_windows(self, windows: Tensor, starts: np.ndarray) -> Question:
        """See `Objective`; windows are (B, T + 1)."""
        return Question(windows[:, :-1], None, windows[:, 1:].flatten())

    def of_places(self, windows: Tensor, places: Tensor) -> Question:
        """See `Objective`."""
        return Question(windows[:, :-1], places, windows[:, 1:][places])


class HiddenTokens:
    """Hides some tokens of each window behind one that occurs nowhere else, and asks for them.

    Args:
        mask_id: The token that hides others.
        rank: Which rows of a batch these are, if several processes share it: every `world_size`-th from here.
        world_size: Processes that share a batch.

    Example:
        >>> ids = torch.arange(20).view(1, 20)
        >>> question = HiddenTokens(mask_id=99).of_step(ids, ids, seed=0, step=0)
        >>> int((question.inputs == 99).sum()), len(question.targets)
        (3, 3)
    """

    def __init__(self, mask_id: int, rank: int = 0, world_size: int = 1) -> None:
        self.mask_id, self._rank, self._world_size = mask_id, rank, world_size

    def of_step(self, inputs: Tensor, targets: Tensor, seed: int, step: int) -> Question:
        """See `Objective`: as many places in every row, so that means over rows are means over tokens."""
        B, T = inputs.shape
        number = max(1, round(HIDDEN_SHARE * T))
        key = _mixed(_mixed(np.array([seed])) + np.uint64(step))
        generator = torch.Generator().manual_seed(int(key[0]) >> 1)
        drawn = torch.rand(B * self._world_size, T, generator=generator)[self._rank :: self._world_size]
        places = torch.zeros(B, T, dtype=torch.bool).scatter_(1, drawn.topk(number, dim=1).indices, True)
        return self._hide(inputs, places)

    def of_windows(self, windows: Tensor, starts: np.ndarray) -> Question:
        """See `Objective`: whether a token is hidden depends on its place in the text alone."""
        inputs = windows[:, :-1]
        places = _mixed(np.asarray(starts)[:, None] + np.arange(inputs.shape[1]))
        return self._hide(inputs, torch.from_numpy(places < np.uint64(HIDDEN_SHARE * 2**64)))

    def of_places(self, windows: Tensor, places: Tensor) -> Question:
        """See `Objective`; the first token of a window is not read."""
        return self._hide(windows[:, 1:], places)

    def _hide(self, inputs: Tensor, places: Tensor) -> Question:
        return Question(inputs.masked_fill(places, self.mask_id), places, inputs[places])


def objective_of(model: ModelConfig, rank: int = 0, world_size: int = 1) -> Objective:
    """What a model of these sizes is asked; the last row of the table of one that is not causal hides others.

    Example:
        >>> type(objective_of(ModelConfig(vocab_size=8))).__name__
        'NextToken'
    """
    return NextToken() if model.causal else HiddenTokens(model.vocab_size - 1, rank, world_size)


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Whole numbers to numbers that look random, uint64 (Steele et al. 2014, SplitMix64)."""
    x = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
