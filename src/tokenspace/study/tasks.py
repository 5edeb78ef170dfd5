"""Three order probes that a program makes up, each with one right answer.

    copy       letters after a first marker, then the same letters after a second one
    previous   the letter that stood before a marker
    count      how many tokens ago a marker stood

Letters are drawn evenly, so there is nothing to know but the order. Who is trained on
them is told in `probing`. They are those of Kazemnejad et al. 2023 (copying) and of
the counting that Haviv et al. 2022 found in models without positions, in small.

Axis letters: B batch, T length.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NUM_LETTERS = 16
MOST_COUNT = 16
_COUNTS = NUM_LETTERS  # the id of a count of 0
_FIRST, _SECOND, _BEFORE, _MARK, _HOW_LONG = range(NUM_LETTERS + MOST_COUNT + 1, NUM_LETTERS + MOST_COUNT + 6)
NUM_IDS = _HOW_LONG + 1
CHANCE = {"copy": 1 / NUM_LETTERS, "previous": 1 / NUM_LETTERS, "count": 1 / MOST_COUNT}

_Row = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Examples:
    """Sequences of tasks.

    Attributes:
        ids: int64, (B, T + 1).
        answers: Which of the last T tokens are answers, bool, (B, T).
    """

    ids: Tensor
    answers: Tensor


def draw_examples(task: str, number: int, length: int, generator: np.random.Generator) -> Examples:
    """Sequences of one task.

    Args:
        task: A key of `TASKS`.
        number: B.
        length: T; at least 4.
        generator: Draws them.

    Example:
        >>> examples = draw_examples("copy", 1, 9, np.random.default_rng(0))
        >>> ids = examples.ids[0].tolist()
        >>> int(examples.answers.sum()), ids[1:5] == ids[6:]
        (4, True)
    """
    rows = [TASKS[task](length + 1, generator) for _ in range(number)]
    ids, answers = (np.stack(part) for part in zip(*rows, strict=True))
    return Examples(torch.from_numpy(ids), torch.from_numpy(answers[:, 1:]))


def _copy(length: int, generator: np.random.Generator) -> _Row:
    most = (length - 2) // 2
    number = int(generator.integers(max(1, most // 2), most + 1))
    ids = generator.integers(0, NUM_LETTERS, length)
    middle = length - 1 - number
    ids[middle - 1 - number], ids[middle] = _FIRST, _SECOND
    ids[middle + 1 :] = ids[middle - number : middle]
    return ids, np.arange(length) > middle


def _previous(length: int, generator: np.random.Generator) -> _Row:
    ids = generator.integers(0, NUM_LETTERS, length)
    answers = np.zeros(length, bool)
    place = int(generator.integers(1, 4))
    while place + 1 < length:
        ids[place], ids[place + 1] = _BEFORE, ids[place - 1]
        answers[place + 1] = True
        place += int(generator.integers(3, 8))  # 3: the letter before is no answer itself
    return ids, answers


def _count(length: int, generator: np.random.Generator) -> _Row:
    ids = generator.integers(0, NUM_LETTERS, length)
    answers = np.zeros(length, bool)
    place = 0
    while True:
        count = int(generator.integers(1, MOST_COUNT + 1))
        if place + count + 1 >= length:
            return ids, answers
        ids[place], ids[place + count], ids[place + count + 1] = _MARK, _HOW_LONG, _COUNTS + count
        answers[place + count + 1] = True
        place += count + 2


TASKS: dict[str, Callable[[int, np.random.Generator], _Row]] = {
    "copy": _copy,
    "previous": _previous,
    "count": _count,
}
