"""How long a study takes: runs are begun in their order by whoever is free."""

import itertools
import random

import pytest
import torch

from tokenspace import LanguageModel, study
from tokenspace.errors import SettingError
from tokenspace.study import estimating
from tokenspace.study.estimating import Cost, seconds_of_runs, steps_within

COSTS = {"none": Cost(step=1.0, rest=5.0), "t5": Cost(step=3.5, rest=0.0), "shaw": Cost(step=2.0, rest=60.0)}
TEXT = "The cat sat on the mat. The dog sat by the door. The cat saw the dog, and the dog saw the cat. " * 60
TOY = {
    "documents": [TEXT],
    "tokenizer": "train:300",
    "steps": 3,
    "d_model": 16,
    "num_layers": 1,
    "context_length": 16,
    "extend": 2,
    "probe_steps": 2,
}

pytestmark = pytest.mark.usefixtures("one_thread")


def watched(runs, steps, workers):
    """Second by second: who is free takes the next run."""
    left, busy = [COSTS[scheme].step * steps + COSTS[scheme].rest for scheme in runs], []
    for second in itertools.count():
        busy = [end for end in busy if end > second]
        while left and len(busy) < workers:
            busy.append(second + left.pop(0))
        if not busy:
            return second


@pytest.mark.parametrize("workers", [1, 2, 3, 9])
def test_time_is_that_of_workers_who_take_the_next_run(workers):
    runs = random.Random(workers).choices(list(COSTS), k=7)
    assert seconds_of_runs(COSTS, runs, 20, workers) == watched(runs, 20, workers)


def test_an_expensive_run_at_the_end_is_not_shared_out():
    assert seconds_of_runs(COSTS, ["none", "none", "shaw"], 100, workers=2) == 105 + 260


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_time_buys_the_most_steps_that_end_within_it(workers):
    runs = ["none", "t5", "shaw"] * 2
    steps = steps_within(1000, COSTS, runs, workers)
    assert seconds_of_runs(COSTS, runs, steps, workers) <= 1000 < seconds_of_runs(COSTS, runs, steps + 1, workers)


def test_a_time_too_short_for_one_step_of_each_says_which_is_not():
    with pytest.raises(SettingError, match="must be at least 72 seconds for one step"):
        steps_within(71, COSTS, ["none", "t5", "shaw"], 1)
    assert steps_within(72, COSTS, ["none", "t5", "shaw"], 1) == 1


def test_an_estimate_has_the_runs_in_the_order_in_which_they_are_begun(tmp_path):
    asked = {"schemes": ("t5", "none"), "seeds": 2, **TOY}
    made = study.prepare(study.Comparison.of(**asked), tmp_path / "s")
    assert study.estimate(**asked).runs == [scheme for scheme, _ in made.runs] == ["t5", "none", "t5", "none"]


def test_of_a_study_that_is_there_what_is_left_is_estimated(tmp_path):
    study.compare(schemes=("none",), seeds=1, out=tmp_path / "s", **TOY)
    found = study.estimate(schemes=("none", "alibi"), seeds=2, out=tmp_path / "s", **TOY)
    assert found.runs == ["alibi", "none", "alibi"] and found.steps == 3 and set(found.costs) == {"none", "alibi"}
    done = study.estimate(schemes=("none",), seeds=1, out=tmp_path / "s", **TOY)
    assert (done.runs, done.seconds) == ([], 0.0)
    with pytest.raises(SettingError, match="`steps of the study in"):
        study.estimate(schemes=("none",), out=tmp_path / "s", **{**TOY, "steps": 4})


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_an_estimate_counts_the_tokens_that_a_run_reads(objective, tmp_path, monkeypatch):
    asked = {**TOY, "schemes": ("rotary",), "seeds": 1, "steps": 10, "extend": 3, "objective": objective}
    monkeypatch.setattr(estimating, "_read_seconds", lambda model, length, device: 1.0)
    monkeypatch.setattr(estimating, "_seconds", lambda work, device: 0.0)
    found = study.estimate(**asked).costs["rotary"].rest
    read, features = [], LanguageModel.features

    def counting(model, token_ids, *others, **settings):
        if not (model.training or torch.is_grad_enabled()):
            read.append(token_ids.numel())
        return features(model, token_ids, *others, **settings)

    monkeypatch.setattr(LanguageModel, "features", counting)
    assert study.compare(out=tmp_path / "s", **asked).is_done
    assert sum(read) == pytest.approx(found, rel=0.1)


def test_what_lies_between_two_lengths_is_read_at_what_lies_between_two_costs(monkeypatch):
    monkeypatch.setattr(estimating, "_read_seconds", lambda model, length, device: 1.0 + length)
    monkeypatch.setattr(estimating, "can_read", lambda model, length: True)
    near, average = estimating._read_costs(torch.nn.Linear(1, 1), 10, [1, 2, 3, 4], torch.device("cpu"))
    assert near == 11 and average == pytest.approx((1 * 11 + 2 * 21 + 3 * 31 + 4 * 41) / 10)


def test_steps_between_two_pauses_are_not_taken_for_all(monkeypatch):
    """On a busy machine most steps are quick, and some wait until others have had their turn."""
    clock = [0.0]
    took = itertools.cycle([0.01] * 9 + [0.11])
    monkeypatch.setattr(estimating.time, "perf_counter", lambda: clock[0])

    def step():
        clock[0] += next(took)

    assert estimating._seconds(step, torch.device("cpu")) == pytest.approx(0.02, rel=0.3)
