"""What models are asked: the next token, or hidden ones; and models that see both sides."""

import numpy as np
import pytest
import torch

from tokenspace import positions
from tokenspace.errors import SettingError
from tokenspace.model import LanguageModel, ModelConfig
from tokenspace.model.gpt2 import save_gpt2
from tokenspace.positions import Layout
from tokenspace.training.objective import HiddenTokens, NextToken, objective_of

SIZES = {"vocab_size": 30, "d_model": 16, "num_layers": 2, "num_heads": 2, "context_length": 12}
IDS = torch.randint(0, 29, (3, 12), generator=torch.Generator().manual_seed(0))


def both_sides(scheme):
    torch.manual_seed(0)
    made = LanguageModel(**SIZES, positions=scheme, causal=False, init="torch").eval()
    for parameter in made.embedding.position.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def test_the_question_follows_from_the_model():
    assert isinstance(objective_of(ModelConfig(**SIZES)), NextToken)
    hidden = objective_of(ModelConfig(**SIZES, causal=False))
    assert isinstance(hidden, HiddenTokens) and hidden.mask_id == 29


def test_every_row_hides_the_same_number_and_asks_for_what_is_hidden():
    ids = torch.arange(80).view(2, 40)
    question = HiddenTokens(99).of_step(ids, ids, seed=1, step=0)
    assert question.places.sum(1).tolist() == [6, 6]  # 0.15 of 40
    assert torch.equal(question.targets, ids[question.places])
    assert torch.equal(question.inputs, torch.where(question.places, 99, ids))


def test_places_depend_on_seed_and_step_alone():
    ids = torch.zeros(4, 40, dtype=torch.long)
    asked = HiddenTokens(1)
    first = asked.of_step(ids, ids, 1, 5).places
    torch.manual_seed(99)
    assert torch.equal(first, asked.of_step(ids, ids, 1, 5).places)
    assert not torch.equal(first, asked.of_step(ids, ids, 1, 6).places)
    assert not torch.equal(first, asked.of_step(ids, ids, 2, 5).places)


def test_processes_share_the_places_of_one_batch():
    ids = torch.zeros(4, 40, dtype=torch.long)
    whole = HiddenTokens(1).of_step(ids, ids, 3, 0).places
    for rank in (0, 1):
        own = HiddenTokens(1, rank, 2).of_step(ids[:2], ids[:2], 3, 0).places
        assert torch.equal(own, whole[rank::2])


def test_in_an_evaluation_a_token_is_hidden_or_not_whatever_its_window():
    text = torch.arange(201)
    long = HiddenTokens(999).of_windows(text[None, :201], np.array([0])).places[0]
    short = HiddenTokens(999).of_windows(text[None, 120:201], np.array([120])).places[0]
    assert torch.equal(long[120:], short)
    assert 0.08 < long.double().mean() < 0.25


def test_next_tokens_are_asked_for_everywhere():
    question = NextToken().of_windows(IDS, np.array([0]))
    assert question.places is None
    assert torch.equal(question.inputs, IDS[:, :-1]) and torch.equal(question.targets, IDS[:, 1:].flatten())


SCHEMES = [name for name in positions.available() if name not in ("compose", "xpos", "cope")]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_model_that_is_not_causal_sees_what_comes_after(scheme):
    made, other = both_sides(scheme), IDS.clone()
    other[:, -1] = (other[:, -1] + 1) % 29
    with torch.no_grad():
        assert (made(IDS)[:, 0] - made(other)[:, 0]).abs().max() > 1e-4


@pytest.mark.parametrize("scheme", SCHEMES)
def test_only_without_positions_the_order_is_lost(scheme):
    made, order = both_sides(scheme), torch.randperm(12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        difference = (made(IDS)[:, order] - made(IDS[:, order])).abs().max()
    assert (difference < 1e-4) == (scheme == "none")


@pytest.mark.parametrize("scheme", ["xpos", "cope"])
def test_schemes_for_causal_models_are_refused(scheme):
    with pytest.raises(SettingError, match="where the model is not causal"):
        LanguageModel(**SIZES, positions=scheme, causal=False)


def test_it_has_no_next_token_no_memory_and_no_place_in_gpt2(tmp_path):
    made = both_sides("learned")
    with pytest.raises(SettingError) as caught:
        list(made.generate([1], 1))
    assert str(caught.value) == (
        "`model` must be causal to go on with a text, but is 'not causal'. Train one with causal = true."
    )
    with pytest.raises(SettingError, match="`memory_length` must be 0 where causal is false, but is 4"):
        ModelConfig(**SIZES, causal=False, memory_length=4)
    with pytest.raises(SettingError, match="`model` must be causal to fit into GPT-2's form"):
        save_gpt2(made, tmp_path / "out")


@pytest.mark.parametrize("scheme", positions.available())
def test_models_that_differ_in_scheme_begin_equal_in_all_else(scheme):
    if scheme == "compose":
        return
    begun = []
    for name in ("none", scheme):
        torch.manual_seed(5)
        begun.append(LanguageModel(**SIZES, positions=name).state_dict())
    plain, other = begun
    assert all(torch.equal(plain[name], other[name]) for name in plain)


def test_logits_with_a_layout_are_those_without():
    made = both_sides("rotary")
    with torch.no_grad():
        assert torch.equal(made(IDS), made(IDS, Layout.contiguous(12)))
