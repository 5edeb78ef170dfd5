"""All that is measured of one finished run: plain numbers, by name."""

import json
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tokenspace.corpus import Corpus
from tokenspace.positions import Layout
from tokenspace.study.footprint import step_bytes
from tokenspace.study.lengths import loss_at_lengths, loss_by_position, reading
from tokenspace.study.pairs import CHANCE, SENTENCE_TOKENS, choose_originals, sentence_pairs
from tokenspace.study.plan import StudyPlan
from tokenspace.study.probing import task_accuracies, task_window, train_on_tasks
from tokenspace.study.subjects import Subjects
from tokenspace.study.tasks import CHANCE as TASK_CHANCE
from tokenspace.training.generators import Generators
from tokenspace.training.objective import Objective
from tokenspace.training.processes import choose_device

Watch = Callable[[str, int, int], None]  # what is measured, how much of it is done, and in all

CHANCES = {"original": CHANCE, **TASK_CHANCE}


@dataclass(frozen=True)
class Measurer:
    """Measures the runs of one study.

    Attributes:
        plan: Of the study.
        subjects: Whose models are compared.
        corpus: The validation part.
        device: "auto", "cpu", "cuda", …
    """

    plan: StudyPlan
    subjects: Subjects
    corpus: Corpus
    device: str = "auto"

    def figures(self, model: nn.Module, scheme: str, seed: int, metrics: Path, watch: Watch) -> dict[str, Any]:
        """The figures of a trained model.

        Args:
            model: After training.
            scheme: Of the run.
            seed: Of the run.
            metrics: The file of its records.
            watch: Called with what is measured.

        Returns:
            Numbers, lists and dicts of them, as JSON holds them; None where a model cannot read so much.
        """
        plan, objective, vocab_size = self.plan, self.subjects.objective(), self.subjects.vocab_size()
        device = choose_device(self.device)
        model = model.to(device).eval()
        watch("loss by position", 0, 1)
        loss, by_position = loss_by_position(model, self.corpus, objective, plan.context_length, vocab_size)
        watch("loss beyond the trained length", 0, 1)
        lengths = [multiple * plan.context_length for multiple in plan.multiples]
        most = plan.settings.scored_tokens
        at_lengths, scored = loss_at_lengths(model, self.corpus, objective, lengths, most, vocab_size)
        watch("order probes", 0, 1)
        probes = {"original": self._original(model, objective, vocab_size)}
        if plan.settings.probe_steps:
            probes |= self._tasks(scheme, seed, device, watch)
        return {
            "scheme": scheme,
            "seed": seed,
            "steps": plan.training["steps"],
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "tokens_per_second": tokens_per_second(metrics),
            "step_bytes": self._step_bytes(scheme, seed, objective, device),
            "loss": loss,
            "loss_by_position": [None if math.isnan(one) else one for one in by_position],
            "lengths": lengths,
            "loss_at_lengths": at_lengths,
            "scored_tokens": scored,
            "untrained_rows": reading(model, lengths[-1]) is not model,
            "probes": probes,
            "device": str(device),
        }

    def _original(self, model: nn.Module, objective: Objective, vocab_size: int) -> dict[str, Any]:
        length = min(SENTENCE_TOKENS, self.plan.context_length)
        pairs = sentence_pairs(self.corpus, self.corpus.tokenizer(), length)
        chosen = choose_originals(model, objective, *pairs, vocab_size)
        return {"accuracy": [chosen.accuracy], "ties": chosen.ties, "pairs": chosen.pairs}

    def _tasks(self, scheme: str, seed: int, device: torch.device, watch: Watch) -> dict[str, Any]:
        steps, window = self.plan.settings.probe_steps, task_window(self.plan.context_length)
        model, objective = self.subjects.fresh_for_tasks(scheme, seed, window)
        model = model.to(device)
        train_on_tasks(model, objective, window, steps, seed, lambda done: watch("training order probes", done, steps))
        found = task_accuracies(model, objective, window, self.plan.multiples, self.subjects.vocab_size())
        return {task: {"accuracy": accuracies} for task, accuracies in found.items()}

    def _step_bytes(self, scheme: str, seed: int, objective: Objective, device: torch.device) -> int:
        model = self.subjects.fresh(scheme, seed).to(device)
        step = training_step(model, objective, self.corpus, self.plan, device)
        step()  # what is made once, such as the optimiser's state, is not the step's
        model.zero_grad(set_to_none=True)
        return step_bytes(step, device)


def training_step(
    model: nn.Module, objective: Objective, corpus: Corpus, plan: StudyPlan, device: torch.device
) -> Callable[[], None]:
    """A step like those of the study's trainings, on one and the same batch of `corpus`."""
    B, T = plan.training["batch_size"], plan.context_length
    windows = torch.from_numpy(corpus.gather([0] * B, T + 1).astype("int64"))
    question = objective.of_step(windows[:, :-1], windows[:, 1:], 0, 0)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    layout = Layout.contiguous(T, device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with Generators({}, device, 0).active():  # of a dropout
            logits = model(question.inputs.to(device), layout)
            F.cross_entropy(question.asked(logits).float(), question.targets.to(device)).backward()
        optimizer.step()

    return step


def tokens_per_second(metrics: Path) -> float:
    """Of the median training step."""
    records = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return statistics.median(record["tokens"] / record["seconds"] for record in records if record["kind"] == "step")
