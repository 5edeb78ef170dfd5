"""Settings and their owners, the schedule of the learning rate, sizes that suit a text."""

import math
from dataclasses import replace

import pytest

from tokenspace.errors import SettingError
from tokenspace.model import LanguageModel, ModelConfig
from tokenspace.training.config import Budget, TrainingConfig, split_settings
from tokenspace.training.sizes import choose_sizes

CONFIG = TrainingConfig(
    steps=100, batch_size=4, stride=8, learning_rate=1.0, final_learning_rate=0.1, warmup_steps=10,
    evaluate_every=10, checkpoint_every=10,
)  # fmt: skip
NOTHING = {"model": {}, "training": {}, "budget": {}}


def refused(**settings):
    with pytest.raises(SettingError) as error:
        split_settings(settings)
    return str(error.value)


def out_of_range(**settings):
    with pytest.raises(SettingError) as error:
        replace(CONFIG, **settings)
    return str(error.value)


# the schedule


@pytest.mark.parametrize(("step", "rate"), [(0, 0.1), (4, 0.5), (9, 1.0)])
def test_the_learning_rate_rises_in_a_line(step, rate):
    assert CONFIG.learning_rate_at(step) == pytest.approx(rate)


def test_after_the_warm_up_comes_the_top_of_the_cosine():
    assert CONFIG.learning_rate_at(10) == pytest.approx(1.0)


def test_half_way_down_the_cosine_is_the_mean():
    config = replace(CONFIG, steps=111)
    assert config.learning_rate_at(60) == pytest.approx(0.55)


def test_a_quarter_of_the_way_down():
    config = replace(CONFIG, steps=111)
    assert config.learning_rate_at(35) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize("step", [99, 100, 1000])
def test_the_last_step_has_the_final_learning_rate(step):
    assert CONFIG.learning_rate_at(step) == pytest.approx(0.1)


def test_a_training_without_warm_up():
    assert replace(CONFIG, warmup_steps=0).learning_rate_at(0) == 1.0


@pytest.mark.parametrize(("steps", "warmup_steps"), [(1, 0), (1, 1), (5, 9)])
def test_a_training_as_short_as_its_warm_up(steps, warmup_steps):
    config = replace(CONFIG, steps=steps, warmup_steps=warmup_steps)
    assert all(0 < config.learning_rate_at(step) <= 1 for step in range(steps))


# ranges


@pytest.mark.parametrize(
    "name",
    ["steps", "batch_size", "stride", "evaluate_every", "evaluation_tokens", "checkpoint_every", "logits_mib"],
)
def test_counts_below_1(name):
    assert out_of_range(**{name: 0}) == f"`{name}` must be a whole number of at least 1, but is 0. Give 1 or more."


@pytest.mark.parametrize("name", ["warmup_steps", "seed"])
def test_numbers_below_0(name):
    assert out_of_range(**{name: -1}) == f"`{name}` must be a whole number of at least 0, but is -1. Give 0 or more."


@pytest.mark.parametrize("name", ["learning_rate", "gradient_clip"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_numbers_not_above_0(name, value):
    message = out_of_range(**{name: value})
    assert message == f"`{name}` must be above 0, but is {value}. Use 0.001, or 1.0 for gradient_clip."


@pytest.mark.parametrize("name", ["final_learning_rate", "weight_decay"])
@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_rates_below_0(name, value):
    assert out_of_range(**{name: value}) == f"`{name}` must be at least 0, but is {value}. Use 0.0 for none."


@pytest.mark.parametrize("name", ["beta1", "beta2"])
@pytest.mark.parametrize("value", [1.0, -0.1, math.nan])
def test_decays_of_moments_outside_0_to_1(name, value):
    message = out_of_range(**{name: value})
    assert message == f"`{name}` must lie in [0, 1), but is {value}. Use 0.9, or 0.95 for beta2."


def test_a_seed_that_torch_cannot_hold():
    largest = 2**63 - 1
    assert out_of_range(seed=largest + 1) == f"`seed` must be at most {largest}, but is {2**63}. Use a smaller one."


def test_a_dtype_that_is_not_offered():
    message = "`dtype` must be 'float32' or 'bfloat16', but is 'float16'. Use float32 where in doubt."
    assert out_of_range(dtype="float16") == message


@pytest.mark.parametrize("value", [0, -3.0, math.nan])
def test_a_budget_of_no_time(value):
    with pytest.raises(
        SettingError, match=r"^`minutes` must be above 0, but is .*\. Use 3\.0, or give steps instead\.$"
    ):
        Budget(minutes=value)


# owners


def test_settings_are_sorted_by_owner():
    given = split_settings({"d_model": 64, "steps": 5, "minutes": 1})
    assert given == {"model": {"d_model": 64}, "training": {"steps": 5}, "budget": {"minutes": 1}}


def test_tables_and_flat_names_may_be_mixed():
    given = split_settings({"model": {"d_model": 64}, "training": {"steps": 5}, "seed": 3})
    assert given == {"model": {"d_model": 64}, "training": {"steps": 5, "seed": 3}, "budget": {}}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("stepps", "steps"), ("d_modell", "d_model"), ("n_layers", "num_layers"), ("batchsize", "batch_size")],
)
def test_an_unknown_setting_names_the_nearest(name, nearest):
    message = refused(**{name: 1})
    assert message.startswith("`setting` must be one of batch_size, beta1, beta2, ")
    assert message.endswith(f", but is '{name}'. Did you mean '{nearest}'?")


def test_an_unknown_setting_in_a_table():
    assert refused(training={"stepps": 1}).endswith("but is 'stepps'. Did you mean 'steps'?")


def test_a_value_where_a_table_belongs():
    message = "`model` must be a table of settings, but is 3. Write model.NAME = VALUE, or leave model out."
    assert refused(model=3) == message


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("steps", 2.5, "be a whole number"),
        ("steps", "ten", "be a whole number"),
        ("steps", True, "be a whole number"),
        ("learning_rate", "0.1", "be a number"),
        ("dropout", False, "be a number"),
        ("tie_head", 1, "be true or false"),
        ("positions", 3, "be text"),
        ("position_settings", 3, "be a table"),
    ],
)
def test_a_value_of_the_wrong_type(name, value, rule):
    shown = repr(value) if isinstance(value, str) else value
    message = f"`{name}` must {rule}, but is {shown}. Correct it, or leave it out for what suits the text."
    assert refused(**{name: value}) == message


def test_a_whole_number_does_for_a_number():
    assert split_settings({"learning_rate": 1})["training"] == {"learning_rate": 1}


# sizes


def sizes(num_tokens, vocab_size=50257, **given):
    return choose_sizes(num_tokens, max(2, num_tokens // 10), vocab_size, {**NOTHING, **given})


def num_parameters(chosen):
    return LanguageModel(**chosen["model"], positions="none").num_parameters()


def test_a_short_story_gets_sizes_that_run():
    chosen = sizes(5000)
    model, training = ModelConfig(**chosen["model"]), TrainingConfig(**chosen["training"])
    assert model.context_length < 500
    assert training.batch_size * training.stride <= 5000
    assert training.steps >= 20


@pytest.mark.parametrize("num_tokens", [3, 10, 65, 300])
def test_a_few_words_get_sizes_that_run(num_tokens):
    chosen = choose_sizes(num_tokens, num_tokens, 300, NOTHING)
    model, training = ModelConfig(**chosen["model"]), TrainingConfig(**chosen["training"])
    windows = -(-(num_tokens - model.context_length) // training.stride)
    assert 1 <= training.batch_size <= windows


def test_a_text_of_one_token():
    with pytest.raises(SettingError) as error:
        choose_sizes(1, 1, 300, NOTHING)
    assert str(error.value) == (
        "`text` must have more than 1 tokens in each part, but is 1. Give more text, or context_length below 1."
    )


def test_a_validation_part_shorter_than_a_window():
    with pytest.raises(SettingError) as error:
        choose_sizes(10_000, 40, 300, {**NOTHING, "model": {"context_length": 64}})
    assert str(error.value) == (
        "`text` must have more than 64 tokens in each part, but is 40. Give more text, or context_length below 40."
    )


def test_more_tokens_never_give_a_smaller_model():
    counts = [num_parameters(sizes(n, 300)) for n in (300, 10_000, 30_001, 300_001, 3_000_001, 30_000_001, 10**10)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_given_sizes_are_kept():
    model = {"d_model": 24, "num_layers": 3, "num_heads": 3, "context_length": 10, "dropout": 0.3}
    training = {"steps": 7, "batch_size": 2, "stride": 3, "learning_rate": 0.5, "warmup_steps": 0, "evaluate_every": 4}
    chosen = sizes(5000, model=model, training=training)
    assert chosen["model"] == {"vocab_size": 50257, **model}
    assert chosen["training"].items() >= training.items()


def test_a_table_may_have_rows_to_spare():
    assert sizes(5000, 300, model={"vocab_size": 304})["model"]["vocab_size"] == 304


def test_a_table_too_small_for_the_tokenizer():
    with pytest.raises(SettingError) as error:
        sizes(5000, 300, model={"vocab_size": 299})
    assert str(error.value) == (
        "`vocab_size` must be at least the tokenizer's 300, but is 299. Leave it out, or use another tokenizer."
    )


@pytest.mark.parametrize("d_model", [1, 6, 7, 9, 100])
def test_heads_divide_a_given_d_model(d_model):
    ModelConfig(**sizes(5000, model={"d_model": d_model})["model"])


def test_more_minutes_buy_more_steps():
    short, long = (sizes(10**7, 300, budget={"minutes": minutes})["training"]["steps"] for minutes in (1.0, 4.0))
    assert long == pytest.approx(4 * short, rel=0.01)


def test_the_schedule_follows_from_the_steps():
    training = sizes(5000, training={"steps": 1000, "learning_rate": 0.02})["training"]
    assert training["final_learning_rate"] == pytest.approx(0.001)
    assert [training[name] for name in ("warmup_steps", "evaluate_every", "checkpoint_every")] == [50, 100, 100]


def test_the_same_text_gives_the_same_sizes():
    assert sizes(123_456) == sizes(123_456)


@pytest.mark.parametrize("name", ["stride", "batch_size", "steps"])
def test_a_given_size_below_1(name):
    with pytest.raises(SettingError, match=rf"^`{name}` must be a whole number of at least 1, but is 0\. "):
        sizes(5000, training={name: 0})
