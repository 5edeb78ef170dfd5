"""Several streams in one: shares, orders, epochs, resuming."""

import re

import numpy as np
import pytest
import torch

from tokenspace.corpus import build_corpus
from tokenspace.errors import SettingError
from tokenspace.loader import Mixture, TokenArray, WindowLoader
from tokenspace.text import read_strings
from tokenspace.tokenizer import Tokenizer

WINDOW = 4


def stream(begin, windows):
    return TokenArray(np.arange(begin, begin + windows * WINDOW + 1))


def firsts(loader):
    """The first id of every window of an epoch."""
    return np.concatenate([inputs[:, 0].numpy() for inputs, _ in loader])


def make(parts, **settings):
    given = {"batch_size": 1, "context_length": WINDOW, "stride": WINDOW, "seed": 3, **settings}
    return WindowLoader(Mixture(parts), **given)


def test_long_runs_hold_the_weights_exactly():
    streams = [(stream(10**6 * number, 9000), weight) for number, weight in enumerate((0.7, 0.2, 0.1))]
    found = firsts(make(streams))[:10_300]
    assert [int((found // 10**6 == part).sum()) for part in range(3)] == [7210, 2060, 1030]


@pytest.mark.parametrize("shuffle", [True, False])
def test_short_runs_hold_the_weights_nearly(shuffle):
    found = firsts(make([(stream(0, 3000), 3), (stream(10**6, 1000), 1)], shuffle=shuffle))
    share = (found[:200] < 10**6).mean()
    assert abs(share - 0.75) < (0.1 if shuffle else 0.01)


def test_unshuffled_streams_are_spread_evenly_each_in_its_own_order():
    found = firsts(make([(stream(0, 30), 2), (stream(10**6, 30), 1)], shuffle=False))
    of_first = found[found < 10**6]
    assert of_first.tolist() == sorted(of_first.tolist())
    runs = np.diff(np.flatnonzero(found >= 10**6))
    assert set(runs.tolist()) == {3}


def test_an_epoch_ends_when_the_first_stream_has_been_seen_whole():
    loader = make([(stream(0, 512), 1), (stream(10**6, 5000), 1)])
    found = firsts(loader)
    assert len(found) == len(loader) == 1024
    assert sorted(found[found < 10**6].tolist()) == list(range(0, 512 * WINDOW, WINDOW))


def test_streams_go_on_in_the_next_epoch_where_they_stopped():
    loader = make([(stream(0, 512), 1), (stream(10**6, 2048), 1)])
    found = np.concatenate([firsts(loader) for _ in range(4)])
    assert sorted(found[found >= 10**6].tolist()) == list(range(10**6, 10**6 + 2048 * WINDOW, WINDOW))


def test_a_stream_begins_anew_in_another_order():
    loader = make([(stream(0, 512), 1), (stream(10**6, 4096), 1)])
    first, second = (found[found < 10**6].tolist() for found in (firsts(loader), firsts(loader)))
    assert sorted(first) == sorted(second) and first != second


def test_another_seed_is_another_order():
    parts = [(stream(0, 512), 1), (stream(10**6, 512), 1)]
    assert firsts(make(parts, seed=1)).tolist() != firsts(make(parts, seed=2)).tolist()


def test_windows_of_a_stream_never_reach_into_the_next():
    for inputs, targets in make([(stream(0, 9), 1), (stream(10**6, 9), 1)], batch_size=4):
        assert (targets - inputs == 1).all()


def test_it_goes_on_exactly():
    parts = [(stream(0, 300), 0.6), (stream(10**6, 700), 0.4)]
    whole = make(parts, batch_size=5)
    expected = [batch[0] for _ in range(3) for batch in whole]
    loader = make(parts, batch_size=5)
    taken = []
    for number, (inputs, _) in enumerate(loader):
        taken.append(inputs)
        if number == 30:
            break
    resumed = make(parts, batch_size=5)
    resumed.load_state_dict(loader.state_dict())
    taken += [batch[0] for _ in range(3) for batch in resumed]
    assert all(torch.equal(a, b) for a, b in zip(taken, expected, strict=False))


def test_a_state_of_other_weights_is_refused():
    state = make([(stream(0, 30), 1), (stream(10**6, 30), 1)]).state_dict()
    with pytest.raises(SettingError, match="loader state 'tokens'"):
        make([(stream(0, 30), 2), (stream(10**6, 30), 1)]).load_state_dict(state)


def test_corpora_tell_their_documents(tmp_path):
    tokenizer = Tokenizer.train(["the cat sat on the mat " * 9], 270)
    corpora = [
        build_corpus(read_strings([f"{word} cat " * 3] * 40), tokenizer, tmp_path / word, validation_fraction=0)
        for word in ("the", "a")
    ]
    loader = WindowLoader(Mixture([(corpus, 1) for corpus in corpora]), 4, 16, 16, documents=True, seed=0)
    for batch in loader:
        ends = batch.inputs == tokenizer.eot_id
        assert (batch.positions[:, 1:][ends[:, :-1]] == 0).all()
        assert ends.any()


# Mistakes


def test_no_stream():
    with pytest.raises(SettingError, match="`parts` must hold at least one stream"):
        Mixture([])


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_that_is_none(weight):
    with pytest.raises(SettingError, match="`weight` must be a number above 0"):
        Mixture([(stream(0, 9), weight)])


def test_a_weight_too_small_beside_the_others():
    with pytest.raises(SettingError, match=re.escape("weight 1, times 65,536 over all")):
        Mixture([(stream(0, 9), 1), (stream(0, 9), 1e-7)])


def test_corpora_of_two_tokenizers(tmp_path):
    corpora = []
    for number, text in enumerate(["the cat sat " * 9, "a dog ran off " * 9]):
        tokenizer = Tokenizer.train([text], 262)
        corpora.append(build_corpus(read_strings([text]), tokenizer, tmp_path / str(number), validation_fraction=0))
    with pytest.raises(SettingError, match="`parts` must be made with one tokenizer, train:262"):
        Mixture([(corpus, 1) for corpus in corpora])


@pytest.mark.parametrize("setting", [{"block_windows": 4}, {"contiguous": True, "shuffle": False}])
def test_settings_that_a_mixture_has_no_use_for(setting):
    with pytest.raises(SettingError, match="must be left out for a mixture"):
        make([(stream(0, 9), 1)], **setting)
