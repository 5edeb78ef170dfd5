"""Of which rows an atlas shows the nearest ones: all, or of a very large vocabulary the most frequent."""

import numpy as np
import torch
from torch import Tensor

_ALL, _SOME = 65_536, 50_000  # up to so many rows all are asked for; else so many, the most frequent


def rows_to_ask(vocab_size: int, counts: np.ndarray | None) -> Tensor | None:
    """Which rows of a table have their neighbours sought: all (None), or of a very large one the most frequent."""
    return None if vocab_size <= _ALL else most_frequent(np.arange(vocab_size), counts, _SOME)


def most_frequent(ids: np.ndarray, counts: np.ndarray | None, number: int) -> Tensor:
    """Some of `ids`, sorted: those that occur most often, or where nobody counted the first ones.

    Example:
        >>> most_frequent(np.array([0, 2, 3]), np.array([5, 9, 1, 7]), 2)
        tensor([0, 3])
    """
    order = np.arange(len(ids)) if counts is None else np.argsort(-counts[ids], kind="stable")
    return torch.from_numpy(np.sort(ids[order[:number]]))
