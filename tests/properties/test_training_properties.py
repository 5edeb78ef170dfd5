import itertools
import json
import math
import random
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tokenspace.checkpoint import Run
from tokenspace.corpus import build_corpus
from tokenspace.model import ModelConfig
from tokenspace.text import Piece
from tokenspace.tokenizer import Tokenizer
from tokenspace.training import Trainer
from tokenspace.training.baseline import unigram_loss
from tokenspace.training.config import TrainingConfig, split_settings
from tokenspace.training.loss import token_loss
from tokenspace.training.prepare import prepare_run_from_corpus
from tokenspace.training.sizes import choose_sizes

quickly = settings(derandomize=True, deadline=None, max_examples=100)
NOTHING = {"model": {}, "training": {}, "budget": {}}
STEPS = 14


pytestmark = pytest.mark.usefixtures("one_thread")


# resuming


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder, draw = tmp_path_factory.mktemp("training"), random.Random(2)
    texts = [" ".join(draw.choice(["one", "two", "three", "four"]) for _ in range(40)) for _ in range(12)]
    corpus = folder / "corpus"
    pieces = [Piece(text, True, "x", row) for row, text in enumerate(texts)]
    build_corpus(pieces, Tokenizer.train(texts, 280), corpus, validation_fraction=0.2)
    sizes = {"d_model": 8, "num_layers": 1, "num_heads": 1, "context_length": 8, "batch_size": 5, "dropout": 0.3}
    intervals = {"steps": STEPS, "checkpoint_every": 4, "evaluate_every": 3}
    return prepare_run_from_corpus(corpus, folder / "run", {**sizes, **intervals}, lambda record: None)


def train_some(run, records, is_stopped):
    """Train for so many records, then ask to stop, or just leave."""
    taken = []
    for record in Trainer(run, "cpu").records(stop=lambda: is_stopped and len(taken) >= records):
        taken.append(record)
        if not is_stopped and len(taken) == records:
            break


def trained_in_parts(prepared, ends):
    """What a copy of the run comes to, given up at the records with these numbers."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(prepared.path, Path(folder, "run"))
        run = Run.open(Path(folder, "run"))
        for records, is_stopped in [*ends, (None, False)]:
            train_some(run, records, is_stopped)
        checkpoint = run.checkpoints / f"{run.step:08d}"
        metrics = [{name: value for name, value in line.items() if name != "seconds"} for line in run.metrics]
        loader = json.loads((checkpoint / "state.json").read_text())["loader"]
        return metrics, loader, *((checkpoint / f"{name}.safetensors").read_bytes() for name in ("model", "training"))


@pytest.fixture(scope="module")
def whole(prepared):
    return trained_in_parts(prepared, [])


@settings(derandomize=True, deadline=None, max_examples=15)
@given(ends=st.lists(st.tuples(st.integers(1, 25), st.booleans()), max_size=4))
def test_a_training_in_any_parts_equals_the_whole(prepared, whole, ends):
    assert trained_in_parts(prepared, ends) == whole


# the schedule

EVERY_STEP = {"batch_size": 1, "stride": 1, "evaluate_every": 1, "checkpoint_every": 1}


@st.composite
def configs(draw):
    rate = draw(st.floats(1e-6, 10))
    return TrainingConfig(
        steps=draw(st.integers(1, 300)),
        warmup_steps=draw(st.integers(0, 50)),
        learning_rate=rate,
        final_learning_rate=rate * draw(st.floats(0, 1)),
        **EVERY_STEP,
    )


@quickly
@given(configs())
def test_the_learning_rate_rises_then_falls_and_never_leaves_its_bounds(config):
    rates = [config.learning_rate_at(step) for step in range(config.steps)]
    top = min(config.warmup_steps, config.steps)
    assert rates[:top] == sorted(rates[:top])
    falling = rates[config.warmup_steps :]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(falling))
    assert all(0 <= rate <= config.learning_rate * (1 + 1e-12) for rate in rates)
    assert all(rate >= config.final_learning_rate * (1 - 1e-12) for rate in falling)


@quickly
@given(configs())
def test_a_training_longer_than_its_warm_up_ends_at_the_final_learning_rate(config):
    assume(config.steps > config.warmup_steps + 1)
    last = config.learning_rate_at(config.steps - 1)
    assert last == pytest.approx(config.final_learning_rate, rel=1e-9, abs=1e-12)


# sizes


@quickly
@given(st.integers(2, 10**12), st.integers(2, 10**6), st.integers(1, 200_000))
def test_any_text_of_two_tokens_or_more_gets_sizes_that_run(num_tokens, num_validation_tokens, vocab_size):
    chosen = choose_sizes(num_tokens, num_validation_tokens, vocab_size, NOTHING)
    model, training = ModelConfig(**chosen["model"]), TrainingConfig(**chosen["training"])
    assert model.context_length < min(num_tokens, num_validation_tokens)
    assert training.batch_size <= -(-(num_tokens - model.context_length) // training.stride)


@quickly
@given(st.integers(2, 10**11), st.integers(0, 10**11))
def test_more_tokens_never_give_a_smaller_model(num_tokens, more):
    small, large = (choose_sizes(n, 100_000, 8000, NOTHING)["model"] for n in (num_tokens, num_tokens + more))
    assert all(small[name] <= large[name] for name in ("d_model", "num_layers", "context_length"))


given_sizes = st.fixed_dictionaries(
    {},
    optional={
        "d_model": st.integers(1, 600), "num_layers": st.integers(1, 9), "context_length": st.integers(1, 90),
        "stride": st.integers(1, 500), "steps": st.integers(1, 10**6), "batch_size": st.integers(1, 99),
        "learning_rate": st.floats(1e-9, 10), "seed": st.integers(0, 2**63 - 1), "evaluate_every": st.integers(1, 99),
    },
)  # fmt: skip


@quickly
@given(st.integers(100, 10**9), given_sizes)
def test_what_is_given_is_kept(num_tokens, given_settings):
    chosen = choose_sizes(num_tokens, 100, 8000, split_settings(given_settings))
    resolved = {**asdict(ModelConfig(**chosen["model"])), **asdict(TrainingConfig(**chosen["training"]))}
    assert resolved.items() >= given_settings.items()


@quickly
@given(given_sizes, st.sets(st.sampled_from(["d_model", "num_layers", "steps", "seed", "stride"])))
def test_a_setting_means_the_same_flat_and_in_its_table(given_settings, in_tables):
    owners = split_settings(given_settings)
    nested = {name: value for name, value in given_settings.items() if name not in in_tables}
    for owner, own in owners.items():
        nested[owner] = {name: value for name, value in own.items() if name in in_tables}
    assert split_settings(nested) == owners


# losses


@quickly
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=60),
    st.lists(st.integers(0, 9), min_size=1, max_size=60),
    st.integers(10, 50),
)
def test_the_baseline_equals_its_formula_told_token_by_token(ids, targets, vocab_size):
    counts = np.bincount(ids, minlength=vocab_size)
    train = SimpleNamespace(counts=lambda: counts, num_tokens=len(ids), vocab_size=vocab_size)
    expected = min(
        sum(-math.log((ids.count(t) + a) / (len(ids) + a * vocab_size)) for t in targets) / len(targets)
        for a in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    )
    assert unigram_loss(train, np.array(targets, np.uint16)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("chunks", ["torch's", "checkpoint"])
@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(2, 60), st.integers(1, 4000), st.integers(0, 99))
def test_the_loss_in_chunks_equals_the_plain_one(chunks, B, T, V, logits_bytes, seed):
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        if chunks == "checkpoint":
            patch.delattr(F, "linear_cross_entropy", raising=False)
        torch.manual_seed(seed)
        head, features, targets = nn.Linear(6, V, bias=False), torch.randn(B, T, 6), torch.randint(V, (B, T))
        features.requires_grad_()
        found = []
        for size in (logits_bytes, 1 << 30):
            loss = token_loss(features * 1.0, head, targets, size)
            found.append((loss, *torch.autograd.grad(loss, [features, head.weight])))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
