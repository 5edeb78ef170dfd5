"""How long a study will take here, from a few steps of each scheme; and how many steps a time buys.

Every run takes the same number of steps, whatever a step of its scheme costs: a time is
divided so that all of them fit into it.
"""

import heapq
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from tokenspace.corpus import Corpus
from tokenspace.errors import SettingError
from tokenspace.positions import Layout
from tokenspace.study.lengths import can_read, reading
from tokenspace.study.measuring import training_step
from tokenspace.study.pairs import NUM_PAIRS, SENTENCE_TOKENS
from tokenspace.study.plan import StudyPlan
from tokenspace.study.probing import NUM_EXAMPLES, task_window, train_on_tasks
from tokenspace.study.subjects import Subjects
from tokenspace.study.tasks import TASKS
from tokenspace.training.processes import choose_device

_WARM_STEPS, _LEAST_STEPS, _LEAST_SECONDS = 2, 5, 0.3
_READ_TOKENS = 4096
_PROFILED_STEPS = 3  # to find how much memory one takes
_EVALUATIONS = 11  # of a training: ten on part of the validation tokens, the last on all of them


@dataclass(frozen=True)
class Cost:
    """What a run of one scheme takes, in seconds.

    Attributes:
        step: A training step.
        rest: Evaluations and measures.
    """

    step: float
    rest: float

    def seconds(self, steps: int) -> float:
        """Of a run of so many steps."""
        return self.step * steps + self.rest


@dataclass(frozen=True)
class Estimate:
    """How long a study takes.

    Attributes:
        costs: By scheme.
        steps: Of each run.
        runs: The scheme of each run that is left, in the order in which they are begun.
        workers: Runs at once.
    """

    costs: dict[str, Cost]
    steps: int
    runs: Sequence[str]
    workers: int

    @property
    def seconds(self) -> float:
        """Of the whole study."""
        return seconds_of_runs(self.costs, self.runs, self.steps, self.workers)

    def run_seconds(self, scheme: str) -> float:
        """Of one run."""
        return self.costs[scheme].seconds(self.steps)


def seconds_of_runs(costs: Mapping[str, Cost], runs: Sequence[str], steps: int, workers: int) -> float:
    """How long runs take whose next one is begun by the worker that is done first.

    Args:
        costs: By scheme.
        runs: The scheme of each, in the order in which they are begun.
        steps: Of each run.
        workers: Runs at once.

    Example:
        >>> costs = {"none": Cost(step=1.0, rest=0.0), "shaw": Cost(step=3.0, rest=0.0)}
        >>> seconds_of_runs(costs, ["shaw", "none", "none"], steps=10, workers=2)
        30.0
    """
    done = [0.0] * max(1, min(workers, len(runs)))
    for scheme in runs:
        heapq.heapreplace(done, done[0] + costs[scheme].seconds(steps))
    return max(done)


def rounds_of(runs: int, workers: int) -> int:
    """How often, at most, a worker begins a run.

    Example:
        >>> rounds_of(3, workers=2)
        2
    """
    return math.ceil(runs / min(workers, runs))


def calibrate(
    subjects: Subjects,
    plan: StudyPlan,
    corpus: Corpus,
    schemes: Sequence[str],
    device: str = "auto",
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Cost]:
    """What each scheme costs here, from a few steps.

    Args:
        subjects: Whose models are compared.
        plan: Its `training["steps"]` does not matter.
        corpus: The validation part.
        schemes: Their names.
        device: "auto", "cpu", "cuda", …
        threads: Of torch while it is timed, as many as a run will have; None for those it has.
        progress: Called with the name of each scheme before it is timed.
    """
    costs, before = {}, torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        for scheme in schemes:
            if progress:
                progress(scheme)
            costs[scheme] = _cost(subjects, plan, corpus, scheme, choose_device(device))
    finally:
        torch.set_num_threads(before)
    return costs


def steps_within(seconds: float, costs: Mapping[str, Cost], runs: Sequence[str], workers: int) -> int:
    """Steps of each run, as many as let all of them end within a time.

    Args:
        seconds: For all runs.
        costs: By scheme.
        runs: The scheme of each, in the order in which they are begun.
        workers: Runs at once.

    Raises:
        SettingError: it is too short for one step of each.

    Example:
        >>> costs = {"none": Cost(step=1.0, rest=5.0), "rotary": Cost(step=2.0, rest=5.0)}
        >>> steps_within(70.0, costs, ["none", "rotary"] * 2, workers=1)
        8
    """
    needed = seconds_of_runs(costs, runs, 1, workers)
    if seconds < needed:
        rule = f"be at least {math.ceil(needed)} seconds for one step of each run and its measures"
        raise SettingError("budget", rule, f"{seconds:g} seconds", "Raise it, or compare fewer schemes or seeds")
    enough, too_many = 1, 2 + int(seconds / min(costs[scheme].step for scheme in runs))
    while too_many - enough > 1:  # longer runs never end earlier
        middle = (enough + too_many) // 2
        fits = seconds_of_runs(costs, runs, middle, workers) <= seconds
        enough, too_many = (middle, too_many) if fits else (enough, middle)
    return enough


def _cost(subjects: Subjects, plan: StudyPlan, corpus: Corpus, scheme: str, device: torch.device) -> Cost:
    model, settings = subjects.fresh(scheme, 0).to(device), plan.settings
    step = training_step(model, subjects.objective(), corpus, plan, device)
    step_seconds = _seconds(step, device)
    at_trained, at_lengths = _read_costs(model, plan.context_length, plan.multiples, device)
    pairs = min(NUM_PAIRS, corpus.num_tokens // SENTENCE_TOKENS)
    per_pair = 2 * (1 if settings.objective == "causal" else SENTENCE_TOKENS) * SENTENCE_TOKENS
    evaluated = min(plan.training_config(0).evaluation_tokens, corpus.num_tokens) * _EVALUATIONS + corpus.num_tokens
    rest = (corpus.num_tokens + pairs * per_pair + evaluated) * at_trained
    rest += min(settings.scored_tokens, corpus.num_tokens) * 2 * sum(plan.multiples) * at_lengths
    rest += _PROFILED_STEPS * step_seconds
    if settings.probe_steps:
        window = task_window(plan.context_length)
        model, objective = subjects.fresh_for_tasks(scheme, 0, window)
        model = model.to(device)
        rest += settings.probe_steps * _seconds(lambda: train_on_tasks(model, objective, window, 1, 0), device)
        asked = len(TASKS) * NUM_EXAMPLES * window * sum(plan.multiples)
        rest += asked * _read_costs(model, window, plan.multiples, device)[1]
    return Cost(step_seconds, rest)


def _read_costs(
    model: torch.nn.Module, window: int, multiples: Sequence[int], device: torch.device
) -> tuple[float, float]:
    """Seconds a token, of a forward pass: at the trained length, and on average over tokens at all its multiples."""
    near = _read_seconds(model, window, device)
    longest = multiples[-1] * window
    far = _read_seconds(model, longest, device) if can_read(reading(model, longest), longest) else near
    growth = (far - near) / max(1, multiples[-1] - 1)  # a token's cost grows with what it looks back on
    return near, sum(m * (near + growth * (m - 1)) for m in multiples) / sum(multiples)


@torch.no_grad()
def _read_seconds(model: torch.nn.Module, length: int, device: torch.device) -> float:
    """Per token, of a forward pass."""
    rows = max(1, _READ_TOKENS // length)
    ids = torch.zeros(rows, length, dtype=torch.int64, device=device)
    reader, layout = reading(model, length).eval(), Layout.contiguous(length, device)
    return _seconds(lambda: reader(ids, layout), device) / ids.numel()


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The mean of some repetitions, after others that warm up.

    For long enough that other programs have had their turns: between these even a busy machine is fast.
    """
    for _ in range(_WARM_STEPS):
        work()
    _wait(device)
    number, started = 0, time.perf_counter()
    while number < _LEAST_STEPS or time.perf_counter() - started < _LEAST_SECONDS:
        work()
        _wait(device)
        number += 1
    return (time.perf_counter() - started) / number


def _wait(device: torch.device) -> None:
    """Until what was begun there is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
