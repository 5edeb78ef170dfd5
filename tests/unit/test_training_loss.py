"""The loss in chunks is the loss; the baseline is what its formula says."""

import contextlib
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tokenspace.training.baseline import unigram_loss
from tokenspace.training.loss import token_loss

V, D = 37, 8
PLENTY, LITTLE = 1 << 30, V * 4 * 5  # bytes: all logits at once; those of five rows
WAYS = ["torch's", "checkpoint"]


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """How chunks are made: by torch's own function, or where torch has none."""
    if request.param == "checkpoint":
        monkeypatch.delattr(F, "linear_cross_entropy", raising=False)
    elif not hasattr(F, "linear_cross_entropy"):
        pytest.skip("this torch has no linear_cross_entropy")
    return request.param


def loss_and_gradients(logits_bytes, autocast=False, B=3, T=7):
    """Of a random head and random features; the same ones at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        head = nn.Linear(D, V, bias=False)
        features = torch.randn(B, T, D, requires_grad=True)
        targets = torch.randint(V, (B, T))
    context = torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext()
    with context:
        loss = token_loss(features * 1.0, head, targets, logits_bytes)
    loss.backward()
    return loss.detach(), features.grad, head.weight.grad


def test_the_plain_loss_is_the_mean_negative_log_probability():
    torch.manual_seed(0)
    head, features, targets = nn.Linear(D, V, bias=False), torch.randn(2, 3, D), torch.randint(V, (2, 3))
    probabilities = (features @ head.weight.T).double().softmax(-1)
    expected = -sum(probabilities[b, t, targets[b, t]].log() for b in range(2) for t in range(3)) / 6
    assert token_loss(features, head, targets, PLENTY).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("T", [1, 2, 7, 10])
def test_chunks_give_the_same_loss_and_gradients(way, T):
    plain, chunked = (loss_and_gradients(size, T=T) for size in (PLENTY, LITTLE))
    torch.testing.assert_close(chunked, plain, rtol=1e-5, atol=1e-6)


def test_chunks_under_autocast_give_the_same_to_bfloat16s_rounding(way):
    plain, chunked = (loss_and_gradients(size, autocast=True) for size in (PLENTY, LITTLE))
    torch.testing.assert_close(chunked, plain, rtol=2e-2, atol=2e-3)


def test_a_budget_below_one_row_still_takes_one_row_at_a_time(way):
    plain, chunked = (loss_and_gradients(size) for size in (PLENTY, 1))
    torch.testing.assert_close(chunked, plain, rtol=1e-5, atol=1e-6)


def test_without_gradients(way):
    head, features = nn.Linear(D, V, bias=False), torch.randn(2, 8, D)
    targets = torch.randint(V, (2, 8))
    with torch.no_grad():
        plain, chunked = (token_loss(features, head, targets, size) for size in (PLENTY, LITTLE))
    torch.testing.assert_close(chunked, plain)


def test_chunks_are_taken_only_where_the_logits_do_not_fit(monkeypatch):
    rows = []
    monkeypatch.delattr(F, "linear_cross_entropy", raising=False)
    monkeypatch.setattr(
        "tokenspace.training.loss.checkpoint", lambda f, x, *rest, **_: rows.append(len(x)) or f(x, *rest)
    )
    head, features, targets = nn.Linear(D, V, bias=False), torch.randn(3, 4, D), torch.zeros(3, 4, dtype=torch.long)
    token_loss(features, head, targets, 12 * V * 4)
    assert rows == []
    token_loss(features, head, targets, 12 * V * 4 - 1)
    assert rows == [11, 1]


# the baseline


def part(ids, vocab_size):
    counts = np.bincount(ids, minlength=vocab_size)
    return SimpleNamespace(counts=lambda: counts, num_tokens=len(ids), vocab_size=vocab_size)


def plain_unigram(ids, vocab_size, targets, smoothing):
    """Nats a token of p(t) = (count(t) + a) / (total + a * vocab_size), one token at a time."""
    total = 0.0
    for target in targets:
        probability = (sum(i == target for i in ids) + smoothing) / (len(ids) + smoothing * vocab_size)
        total -= math.log(probability)
    return total / len(targets)


def test_the_baseline_is_the_best_smoothing_of_its_list():
    ids, targets = [0, 0, 0, 1, 2, 2, 5], [0, 2, 4, 4, 5, 0]
    expected = min(plain_unigram(ids, 8, targets, a) for a in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0))
    assert unigram_loss(part(np.array(ids), 8), np.array(targets, np.uint16)) == pytest.approx(expected, rel=1e-12)


def test_the_baseline_is_the_entropy_where_training_and_validation_agree():
    ids = np.repeat(np.arange(4), [8000, 4000, 2000, 2000])
    assert unigram_loss(part(ids, 4), ids) == pytest.approx(1.75 * math.log(2), abs=1e-4)


def test_the_baseline_of_tokens_never_seen_is_finite():
    assert math.isfinite(unigram_loss(part(np.zeros(10, int), 100), np.array([99])))
