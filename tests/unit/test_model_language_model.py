"""LanguageModel: sizes, first draw, tied head, layouts, generation; logits are compared in tests/reference."""

import pytest
import torch

from tokenspace.errors import SettingError, ShapeError
from tokenspace.model import LanguageModel, ModelConfig
from tokenspace.positions import Layout


def model(seed=0, **fields):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 30, "d_model": 8, "num_layers": 2, "num_heads": 2, "context_length": 6}
    return LanguageModel(**{**sizes, **fields}).eval()


def lively(**fields):
    """A model whose next token depends on all it reads, so that a wrong cache or window shows."""
    made = model(seed=4, init="torch", tie_head=False, **fields)
    for module in made.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.5)
    return made


def greedy_without_cache(made, prompt, count):
    read = list(prompt)
    for _ in range(count):
        window = torch.tensor([read[-made.config.context_length :]])
        read.append(int(made(window)[0, -1].argmax()))
    return read[len(prompt) :]


def test_logits_have_one_number_for_each_token_of_the_vocabulary():
    assert model()(torch.zeros(3, 5, dtype=torch.long)).shape == (3, 5, 30)


def test_the_head_reads_the_features():
    made, tokens = model(), torch.tensor([[1, 2, 3]])
    assert torch.equal(made.head(made.features(tokens)), made(tokens))


def test_a_config_and_its_fields_give_the_same_model():
    config = ModelConfig(vocab_size=30, d_model=8, num_layers=2, num_heads=2, context_length=6)
    torch.manual_seed(0)
    from_config = LanguageModel(config)
    for name, tensor in model().state_dict().items():
        assert torch.equal(from_config.state_dict()[name], tensor)


def test_a_tied_head_is_the_token_table():
    made = model()
    assert made.head.weight is made.embedding.token.weight


def test_an_untied_head_has_its_own_matrix():
    made = model(tie_head=False)
    assert made.num_parameters() == model().num_parameters() + 30 * 8


def test_a_step_on_a_tied_model_moves_head_and_table_together():
    made = model()
    made(torch.tensor([[1, 2]])).square().sum().backward()
    torch.optim.SGD(made.parameters(), lr=0.1).step()
    assert torch.equal(made.head.weight, made.embedding.token.weight)


def test_num_parameters_counts_what_the_sizes_imply():
    d, layers, vocab, context = 8, 2, 30, 6
    block = 4 * d + (d * 3 * d + 3 * d) + (d * d + d) + (d * 4 * d + 4 * d) + (4 * d * d + d)
    assert model().num_parameters() == vocab * d + context * d + layers * block + 2 * d


@pytest.mark.parametrize(
    ("part", "std"),
    [
        ("embedding.token.weight", 0.02),
        ("embedding.position.weight", 0.01),
        ("blocks.0.attention.qkv.weight", 0.02),
        ("blocks.0.mlp_in.weight", 0.02),
        ("blocks.0.attention.out.weight", 0.02 / 8**0.5),
        ("blocks.3.mlp_out.weight", 0.02 / 8**0.5),
    ],
)
def test_the_first_draw_has_gpt2s_spread(part, std):
    made = model(vocab_size=500, d_model=64, num_layers=4, context_length=128)
    weight = made.state_dict()[part]
    assert weight.std().item() == pytest.approx(std, rel=0.05)
    assert weight.mean().item() == pytest.approx(0, abs=0.05 * std)


def test_biases_begin_at_0_and_norms_at_1():
    for name, tensor in model().state_dict().items():
        if name.endswith("bias"):
            assert not tensor.any()
        elif "norm" in name:
            assert (tensor == 1).all()


@pytest.mark.parametrize(("recipe", "token_std", "position_std"), [("torch", 1.0, 1.0), ("scaled", 0.125, 0.125)])
def test_a_recipe_reaches_both_tables(recipe, token_std, position_std):
    made = model(vocab_size=500, d_model=64, context_length=128, init=recipe)
    assert made.embedding.token.weight.std().item() == pytest.approx(token_std, rel=0.05)
    assert made.embedding.position.weight.std().item() == pytest.approx(position_std, rel=0.05)


def test_the_same_seed_gives_the_same_model():
    for ours, again in zip(model(3).parameters(), model(3).parameters(), strict=True):
        assert torch.equal(ours, again)


def test_dropout_moves_logits_in_training_only():
    made, tokens = model(dropout=0.5), torch.tensor([[1, 2, 3]])
    assert torch.equal(made(tokens), made(tokens))
    made.train()
    assert not torch.equal(made(tokens), made(tokens))


def test_no_token_sees_what_comes_after_it():
    made = lively()
    first = made(torch.tensor([[1, 2, 3, 4]]))
    second = made(torch.tensor([[1, 2, 9, 9]]))
    torch.testing.assert_close(first[:, :2], second[:, :2])
    assert not torch.allclose(first[:, 2:], second[:, 2:])


def test_explicit_positions_reach_the_embedding():
    made, tokens = lively(), torch.tensor([[1, 2, 3]])
    moved = made(tokens, Layout.explicit(torch.tensor([3, 4, 5])))
    assert not torch.allclose(moved, made(tokens), atol=1e-3)


def test_heads_must_divide_the_width():
    with pytest.raises(SettingError) as caught:
        model(d_model=10, num_heads=4)
    assert str(caught.value) == (
        "`d_model` must be divisible by num_heads = 4, but is 10. Use d_model = 8, or other num_heads."
    )


@pytest.mark.parametrize("size", ["vocab_size", "d_model", "num_layers", "num_heads", "context_length"])
@pytest.mark.parametrize("value", [0, -3, 2.5, True])
def test_sizes_are_whole_numbers_from_1(size, value):
    with pytest.raises(SettingError) as caught:
        model(**{size: value})
    assert str(caught.value) == f"`{size}` must be a whole number of at least 1, but is {value}. Give 1 or more."


def test_an_id_outside_the_vocabulary_is_refused():
    with pytest.raises(ShapeError, match=r"`token_ids` must lie in \[0, 30\), but is 30"):
        model()(torch.tensor([[30]]))


def test_a_sequence_longer_than_the_learned_table_is_refused():
    with pytest.raises(ShapeError, match="`length` must be at most 6 for 'learned' positions, but is 7"):
        model()(torch.zeros(1, 7, dtype=torch.long))


@pytest.mark.parametrize("scheme", ["learned", "sinusoidal", "none"])
@pytest.mark.parametrize("prompt", [[3], [1, 2, 3, 4, 5], list(range(9))])
def test_greedy_generation_equals_recomputing_every_window(scheme, prompt):
    made = lively(positions=scheme)
    generated = list(made.generate(prompt, 12, temperature=0))
    assert len(set(generated)) > 2
    assert generated == greedy_without_cache(made, prompt, 12)


def test_a_prompt_longer_than_the_context_is_cut_on_the_left():
    made = lively()
    assert list(made.generate(range(20), 3, temperature=0)) == list(made.generate(range(14, 20), 3, temperature=0))


def test_the_same_seed_samples_the_same_tokens():
    made = lively()
    runs = [list(made.generate([1], 20, seed=seed)) for seed in (5, 5, 6)]
    assert runs[0] == runs[1] != runs[2]


def test_sampling_follows_the_probabilities():
    made = lively()
    expected = made(torch.tensor([[4]]))[0, -1].softmax(-1)
    counts = torch.zeros(30)
    for seed in range(400):
        counts[next(made.generate([4], 1, seed=seed))] += 1
    assert (counts / 400 - expected).abs().max() < 0.08


def test_top_k_samples_among_the_most_probable_only():
    made = lively()
    allowed = set(made(torch.tensor([[4]]))[0, -1].topk(3).indices.tolist())
    drawn = {next(made.generate([4], 1, temperature=5.0, top_k=3, seed=seed)) for seed in range(50)}
    assert drawn == allowed


def test_top_k_above_the_vocabulary_takes_all():
    made = lively()
    assert list(made.generate([4], 8, top_k=31, seed=1)) == list(made.generate([4], 8, seed=1))


def test_a_low_temperature_is_nearly_greedy():
    made = lively()
    greedy = list(made.generate([4], 8, temperature=0))
    assert list(made.generate([4], 8, temperature=1e-3, seed=1)) == greedy != list(made.generate([4], 8, seed=1))


def test_top_1_is_greedy():
    made = lively()
    assert list(made.generate([4], 8, top_k=1)) == list(made.generate([4], 8, temperature=0))


def test_generation_ends_before_the_stop_id():
    made = lively()
    whole = list(made.generate([4], 10, temperature=0))
    stop_id = whole[4]
    assert list(made.generate([4], 10, temperature=0, stop_id=stop_id)) == whole[: whole.index(stop_id)]


def test_generation_puts_the_mode_back_and_keeps_no_gradient():
    made = lively(dropout=0.5).train()
    stream = made.generate([4], 3, temperature=0)
    next(stream)
    assert made.training
    assert torch.is_grad_enabled()
    assert list(stream) == list(made.eval().generate([4], 3, temperature=0))[1:]


def test_no_new_tokens_is_a_valid_wish():
    assert list(model().generate([1], 0)) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"token_ids": []},
            "`prompt` must have at least one token, but is 0. Begin with a word, or with the end-of-text token.",
        ),
        (
            {"temperature": -1.0},
            "`temperature` must be at least 0, but is -1.0. Use 0 for the most probable token.",
        ),
        (
            {"temperature": float("nan")},
            "`temperature` must be at least 0, but is nan. Use 0 for the most probable token.",
        ),
        ({"top_k": 0}, "`top_k` must be a whole number of at least 1, but is 0. Give 1 or more."),
        (
            {"max_new_tokens": -1},
            "`max_new_tokens` must be a whole number of at least 0, but is -1. Give 0 or more.",
        ),
        (
            {"token_ids": [1, 99]},
            "`token_ids` must lie in [0, 30), but is 99. Use the tokenizer that the table was made for.",
        ),
    ],
)
def test_wrong_wishes_are_refused_before_the_first_token(arguments, message):
    with pytest.raises((SettingError, ShapeError)) as caught:
        model().generate(**{"token_ids": [1], "max_new_tokens": 3, **arguments})
    assert str(caught.value) == message


@pytest.mark.parametrize("norm_eps", [0.0, -1e-5, float("nan")])
def test_norm_eps_is_above_zero(norm_eps):
    with pytest.raises(SettingError, match=r"`norm_eps` must be above 0, but is .+\. Use 1e-5, as GPT-2 does\."):
        ModelConfig(vocab_size=9, norm_eps=norm_eps)


def test_sinusoidal_waves_are_added_to_tokens_scaled_by_the_root_of_d_model():
    made = model(positions="sinusoidal", d_model=16)
    ids = torch.tensor([[3, 1, 4]])
    waves = made.embedding.position.waves(torch.arange(3))
    assert torch.equal(made.embedding(ids)[0], made.embedding.token.weight[ids[0]] * 4.0 + waves)


@pytest.mark.parametrize("scheme", ["none", "learned", "rotary", "alibi"])
def test_other_schemes_leave_the_tokens_as_they_are(scheme):
    assert model(positions=scheme).embedding.scale == 1.0


def test_a_config_stored_before_tokens_were_scaled_leaves_them_as_they_are():
    assert ModelConfig.stored({"vocab_size": 5, "positions": "sinusoidal"}).token_scale == 1.0


@pytest.mark.parametrize("scale", [0.0, -1.0, "2"])
def test_a_token_scale_that_is_no_number_above_0_is_refused(scale):
    with pytest.raises(SettingError, match="`token_scale` must be above 0"):
        ModelConfig(vocab_size=5, token_scale=scale)
