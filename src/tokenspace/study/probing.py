"""Trains a fresh model on the tasks of `tasks`, and asks it at the trained length and beyond.

One model learns all tasks at once, from its own first draw: what is measured is what a
scheme lets this architecture learn of order, not what a text happened to teach it.

Axis letters: B batch, T length.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tokenspace.positions import Layout
from tokenspace.study.lengths import can_read, reading
from tokenspace.study.scoring import rows_at_once
from tokenspace.study.tasks import TASKS, Examples, draw_examples
from tokenspace.training.generators import Generators
from tokenspace.training.objective import Objective, Question

LONGEST_WINDOW = 32  # of training
_BATCH_SIZE = 48  # a third for each task
_LEARNING_RATE, _WARMUP_STEPS = 1e-3, 50
NUM_EXAMPLES = 256  # of each task, to ask
_TEST_SEED = 0


def train_on_tasks(
    model: nn.Module,
    objective: Objective,
    window: int,
    steps: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Train a model on all tasks at once; every model of one seed sees the same examples.

    Args:
        model: Token ids and a `Layout` to logits; trained in place.
        objective: How windows become questions.
        window: T.
        steps: Of AdamW, with a warm-up and half a cosine down.
        seed: Of the examples.
        progress: Called with the steps taken.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=0.0, fused=True)
    generators = Generators({}, device, seed)  # of a dropout of the model's own
    warmup = min(_WARMUP_STEPS, max(1, steps // 10))
    model.train()
    for step in range(steps):
        question = _mixed_question(objective, window, np.random.default_rng([seed + 1, step]))
        for group in optimizer.param_groups:
            rising = min(1.0, (step + 1) / warmup)
            group["lr"] = _LEARNING_RATE * rising * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.zero_grad(set_to_none=True)
        with generators.active():
            logits = model(question.inputs.to(device), Layout.contiguous(window, device))
            F.cross_entropy(question.asked(logits).float(), question.targets.to(device)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if progress:
            progress(step + 1)
    model.eval()


@torch.no_grad()
def task_accuracies(
    model: nn.Module, objective: Objective, window: int, multiples: list[int], vocab_size: int
) -> dict[str, list[float | None]]:
    """Share of right answers to each task in the last half window, at each multiple of the trained length.

    None where the model cannot read so much. Of logits at each place there are `vocab_size`.
    """
    device = next(model.parameters()).device
    found: dict[str, list[float | None]] = {}
    for task in TASKS:
        found[task] = []
        for multiple in multiples:
            length = multiple * window
            examples = _asked_examples(task, window, multiple)
            question = objective.of_places(examples.ids, examples.answers)
            reader = reading(model, length)
            if not can_read(reader, length):
                found[task].append(None)
                continue
            layout, rows = Layout.contiguous(length, device), rows_at_once(length, vocab_size)
            parts = zip(question.inputs.split(rows), question.places.split(rows), strict=True)
            said = [reader(ids.to(device), layout)[places].argmax(-1).cpu() for ids, places in parts]
            found[task].append(float((torch.cat(said) == question.targets).double().mean()))
    return found


def commonest_answer(task: str, window: int, multiple: int) -> float:
    """Share of the answers to a task that are the commonest one: what guessing without reading gives."""
    examples = _asked_examples(task, window, multiple)
    found = examples.ids[:, 1:][examples.answers]
    return float(found.bincount().max()) / len(found)


def task_window(context_length: int) -> int:
    """Tokens of a window of the trained probes."""
    return min(LONGEST_WINDOW, context_length)


def _asked_examples(task: str, window: int, multiple: int) -> Examples:
    length = multiple * window
    examples = draw_examples(task, NUM_EXAMPLES, length, np.random.default_rng(_TEST_SEED))
    examples.answers[:, : length - window // 2] = False
    return examples


def _mixed_question(objective: Objective, window: int, generator: np.random.Generator) -> Question:
    """As many examples of each task, in one batch."""
    parts = [draw_examples(task, _BATCH_SIZE // len(TASKS), window, generator) for task in TASKS]
    examples = Examples(torch.cat([part.ids for part in parts]), torch.cat([part.answers for part in parts]))
    return objective.of_places(examples.ids, examples.answers)
