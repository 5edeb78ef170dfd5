"""What a study says of its figures: which scheme is best, which one guesses, and of how many seeds."""

from dataclasses import replace

import pytest

from tokenspace import LanguageModel
from tokenspace.study import Measure, StudyPlan
from tokenspace.study.conclusions import conclusions
from tokenspace.study.plan import StudySettings
from tokenspace.study.probing import commonest_answer
from tokenspace.study.summary import summarize
from tokenspace.study.tables import rows

PLAN = StudyPlan(
    asked={},
    settings=StudySettings(extend=1),
    corpus="corpus",
    corpus_identity="x",
    model={"context_length": 32, "vocab_size": 300},
    training={"steps": 10, "batch_size": 4},
)


def run(scheme, seed, loss, original=0.9, count=0.5, step_bytes=1 << 20, parameters=100):
    return {
        "scheme": scheme,
        "seed": seed,
        "loss": loss,
        "loss_by_position": [loss] * 32,
        "lengths": [32],
        "loss_at_lengths": [loss],
        "probes": {"original": {"accuracy": [original], "pairs": 256}, "count": {"accuracy": [count]}},
        "tokens_per_second": 1000.0 + seed,
        "step_bytes": step_bytes + seed,
        "num_parameters": parameters,
        "untrained_rows": False,
    }


def study_of(values, **others):
    """Runs from losses by scheme, seeds from 1; other figures in the same form."""
    return summarize(
        PLAN,
        [
            run(scheme, seed, loss, **{name: found[scheme][seed - 1] for name, found in others.items()})
            for scheme, losses in values.items()
            for seed, loss in enumerate(losses, 1)
        ],
    )


def order_of(summary, probe):
    (paragraph,) = (one for one in conclusions(summary) if one.startswith("Order probes"))
    (sentence,) = (one for one in paragraph.split(". ") if f"{probe}:" in one)
    return sentence


LOSSES = {"a": [3.0, 3.1], "b": [3.2, 3.29]}


def test_a_wide_interval_is_no_proof_of_guessing():
    told = order_of(study_of(LOSSES, original={"a": [0.8, 0.95], "b": [0.5, 0.51]}), "original")
    assert told.endswith("; at guessing: b; seeds differ too much to tell: a")


def test_a_share_that_is_surely_above_guessing_is_in_no_list():
    told = order_of(study_of(LOSSES, original={"a": [0.9, 0.91], "b": [0.8, 0.81]}), "original")
    assert "guessing:" not in told and "too much" not in told


def test_schemes_with_the_same_share_are_all_named():
    told = order_of(study_of(LOSSES, original={"a": [1.0, 1.0], "b": [1.0, 1.0]}), "original")
    assert "right answers is a and b 1.00" in told


def test_the_interval_of_the_best_is_that_of_the_shared_level():
    losses = {"a": [1.0, 1.0, 1.0], "b": [1.3, 1.301, 1.302], "c": [2.0, 2.001, 2.002]}
    loss = study_of(losses).loss
    shared = loss.difference("a", "b", 0.975).half_width
    assert loss.best() == "a" and round(shared, 3) != round(loss.difference("a", "b").half_width, 3)
    assert f"± {shared:.3f} nats" in conclusions(study_of(losses))[0]


@pytest.mark.parametrize("b", [{1: 0.5, 2: 0.75}, {1: 0.5, 2: 0.75 + 1e-15}])
def test_gaps_that_are_equal_in_both_seeds_name_no_best(b):
    assert Measure("x", "x", {"a": {1: 0.25, 2: 0.5}, "b": b}).best() is None


def test_a_gap_that_does_not_show_names_no_best():
    values = {"a": {1: 1.0, 2: 2.0}, "b": {1: 1.0001, 2: 2.000100001}}
    assert Measure("x", "x", values).best() is None
    assert Measure("x", "x", values, digits=4).best() == "a"


def test_a_winner_at_guessing_is_no_best():
    measure = Measure("p", "p", {"a": {1: 0.51, 2: 0.52}, "b": {1: 0.4, 2: 0.4101}}, lower_is_better=False)
    assert measure.best() == "a"
    assert replace(measure, chance=0.5).best() is None


@pytest.mark.parametrize("name", ["memory", "parameters"])
def test_costs_that_are_no_merit_have_no_star(name):
    figures = {"step_bytes": {"a": [1 << 20, 1 << 20], "b": [1 << 30, (1 << 30) + 9]}}
    assert getattr(study_of(LOSSES, **figures), name).best() is None


def test_schemes_are_ranked_by_the_seeds_that_they_share():
    summary = study_of({"a": [3.0, 3.4, 3.4], "b": [3.1]})
    assert summary.schemes == ["a", "b"]
    assert "Not all have the same seeds (a 1, 2, 3; b 1)" in conclusions(summary)[0]
    assert [row[0] for row in rows(summary, [summary.loss])] == ["a", "b (1 of 3 seeds)"]


@pytest.mark.parametrize(
    "losses",
    [
        {"a": [1.0, 1.1], "b": [1.0, 1.1]},
        {"a": [1.0], "b": [1.2, 1.3]},
        {"a": [1.0, 1.5, 1.2], "b": [1.01, 1.49]},
    ],
)
def test_who_cannot_be_told_from_the_first_is_always_named(losses):
    assert "but b cannot be told from it" in conclusions(study_of(losses))[0]


def test_guessing_a_count_is_the_share_of_its_commonest_answer():
    summary = study_of(LOSSES)
    chance = summary.probes["count"][0].chance
    assert chance == commonest_answer("count", 32, 1) and 0.08 < chance < 0.11


def test_schemes_that_share_no_seed_are_told():
    summary = summarize(PLAN, [run("a", 1, 3.0), run("b", 2, 3.5)])
    assert "Not all have the same seeds (a 1; b 2)" in conclusions(summary)[0]


def beyond(**far):
    """What is said of schemes whose loss is 3.0 at the trained length, and this at twice that."""
    plan = replace(PLAN, settings=StudySettings(extend=2))
    runs = [
        {**run(scheme, seed, 3.0), "lengths": [32, 64], "loss_at_lengths": [3.0, loss]}
        for scheme, losses in far.items()
        for seed, loss in enumerate(losses, 1)
    ]
    return conclusions(summarize(plan, runs))[1]


def test_what_happens_beyond_the_trained_length_is_a_matter_of_intervals():
    told = beyond(a=[3.001, 2.998, 3.0], b=[3.2, 3.201, 3.202], c=[3.0, 3.1, 3.4])
    assert told == (
        "Read in windows of 2 times the trained length, the same tokens cost "
        "at most 0.05 nats more than at the trained length under a (+0.00 ± 0.00); more under b (+0.20 ± 0.00); "
        "maybe more, maybe not, as seeds differ too much to tell, under c (+0.17 ± 0.52)."
    )


def test_one_seed_beyond_the_trained_length_has_no_interval():
    assert beyond(a=[3.2]).endswith("cost over 0.05 nats more than at the trained length under a (+0.20).")


def test_a_probe_that_all_guess_has_no_highest_share():
    told = order_of(study_of(LOSSES, original={"a": [0.5, 0.5], "b": [0.49, 0.51]}), "original")
    assert told.endswith("original: no share is above guessing (0.5)")


def test_a_best_share_is_told():
    told = order_of(study_of(LOSSES, original={"a": [0.9, 0.91], "b": [0.8, 0.811]}), "original")
    assert "a 0.91, more than all others by more than the intervals (guessing" in told


def test_a_probe_without_questions_has_no_shares():
    summary = study_of(LOSSES, original={"a": [None, None], "b": [None, None]})
    assert order_of(summary, "original").endswith("no sentence of the text has words to shuffle")
    assert rows(summary, [summary.probes["original"][0]])[0][1] == "–"


def test_parameters_are_added_to_a_model_without_positions():
    """Also where the study has no such model."""
    sizes = {"d_model": 16, "num_layers": 1, "num_heads": 2, "context_length": 32, "vocab_size": 300}
    plan = replace(PLAN, model=sizes)
    found = {scheme: LanguageModel(**sizes, positions=scheme).num_parameters() for scheme in ("learned", "t5")}
    runs = [run(scheme, 1, 3.0, parameters=number) for scheme, number in found.items()]
    assert summarize(plan, runs).parameters.values == {"learned": {1: 32 * 16}, "t5": {1: 32 * 2}}
    own = replace(plan, asked={"build": True})
    assert summarize(own, runs).parameters.values == {"learned": {1: 32 * 16 - 32 * 2}, "t5": {1: 0}}


def test_equal_shares_of_all_seeds_have_an_interval_too():
    summary = study_of(LOSSES, original={"a": [1.0, 1.0], "b": [0.8, 0.9]})
    assert rows(summary, [summary.probes["original"][0]])[0][1] == "1.000 ± 0.000"
    assert rows(summary, [summary.parameters])[0][1] == "0"
