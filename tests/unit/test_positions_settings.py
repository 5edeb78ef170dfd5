"""What each scheme says to settings that cannot be: one line that names the setting, its value and a way out."""

import inspect

import pytest
import torch
from torch import nn

from scheme_cases import CASES, build
from tokenspace import LanguageModel, positions
from tokenspace.errors import SettingError, ShapeError
from tokenspace.model import Prepared, attend
from tokenspace.positions import Layout, ModelShape

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
LONG |= {"original_max_position_embeddings": 64}
SIZES = {"d_model": 8, "num_heads": 2, "head_dim": 4}
NO_LAYERS = {"name": "learned", "num_positions": 4, "d_model": 8, "layers": [0]}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("rotary", {"head_dim": 7}, "`head_dim` must be even for rotary positions, but is 7. Use 8."),
        (
            "rotary",
            {"head_dim": 8, "rotary_dim": 3},
            "`rotary_dim` must be even for rotary positions, but is 3. Use 4.",
        ),
        (
            "rotary",
            {"head_dim": 8, "rotary_dim": 10},
            "`rotary_dim` must be at most head_dim = 8, but is 10. Lower it.",
        ),
        (
            "rotary",
            {"head_dim": 8, "theta": 0.0},
            "`theta` must be above 0, but is 0.0. Use 10000.0, as the paper does.",
        ),
        (
            "rotary",
            {"head_dim": 8, "theta": "abc"},
            "`theta` must be a number, but is 'abc'. Correct it for 'rotary' positions, or leave it out.",
        ),
        (
            "rotary",
            {"head_dim": 8, "scaling": "yarn"},
            "`scaling` must be a table, but is 'yarn'. Correct it for 'rotary' positions, or leave it out.",
        ),
        (
            "rotary",
            {"head_dim": 8, "order": "pairs"},
            "`order` must be 'halves' or 'interleaved', but is 'pairs'. Use 'halves', as Llama does.",
        ),
        (
            "rotary",
            {"head_dim": 8, "scaling": {"rope_type": "ntk"}},
            "`rope_type` must be one of default, linear, dynamic, yarn, longrope, llama3, proportional, but is 'ntk'. "
            "Correct it.",
        ),
        (
            "rotary",
            {"head_dim": 8, "scaling": {"rope_type": "linear"}},
            "`scaling 'linear'` must have factor, but is []. Add factor.",
        ),
        (
            "rotary",
            {"head_dim": 8, "scaling": {**YARN, "facter": 5.0}},
            "`scaling 'yarn'` must have no numbers but factor, original_max_position_embeddings, "
            "attention_factor, beta_fast, beta_slow, mscale, mscale_all_dim, truncate, but is 'facter'. Remove it.",
        ),
        (
            "rotary",
            {"head_dim": 8, "scaling": {"rope_type": "default", "factor": 5.0}},
            "`scaling 'default'` must have no numbers, but is 'factor'. Remove it.",
        ),
        (
            "rotary",
            {"head_dim": 8, "theta": 7.0, "scaling": {**YARN, "rope_theta": 5.0}},
            "`theta` must be 5.0, as its scaling says, but is 7.0. Give it once.",
        ),
        (
            "rotary",
            {"head_dim": 8, "rotary_dim": 6, "scaling": {**YARN, "partial_rotary_factor": 0.5}},
            "`rotary_dim` must be 4, as its scaling says, but is 6. Give it once.",
        ),
        (
            "rotary",
            {"head_dim": 8, "scaling": {**YARN, "factor": -1.0}},
            "`factor` must be a number above 0, but is -1.0. Take it from the model's config.",
        ),
        (
            "rotary",
            {"head_dim": 8, "scaling": {**YARN, "factor": None}},
            "`factor` must be a number above 0, but is None. Take it from the model's config.",
        ),
        (
            "rotary",
            {"head_dim": 8, "scaling": {**LONG, "long_factor": [1.0]}},
            "`long_factor` must hold 4 numbers, one for each pair, but is 1. Take it from the model's config.",
        ),
        (
            "rotary",
            {"head_dim": 8, "scaling": LONG},
            "`scaling 'longrope'` must have factor or attention_factor, but is 'neither'. "
            "Add factor: the new length over the original one.",
        ),
        ("xpos", {"head_dim": 3}, "`head_dim` must be even for xpos positions, but is 3. Use 4."),
        ("xpos", {"head_dim": 4, "gamma": 0}, "`gamma` must be above 0, but is 0. Leave it out for the paper's."),
        ("alibi", {"num_heads": 0}, "`num_heads` must be a whole number of at least 1, but is 0. Give 1 or more."),
        ("alibi", {"num_heads": 2, "max_bias": 0}, "`max_bias` must be above 0, but is 0. Use 8.0, as the paper does."),
        (
            "t5",
            {"num_heads": 2, "max_distance": 16},
            "`max_distance` must be above the 16 distances that have a bucket each, but is 16. "
            "Raise it, or lower num_buckets.",
        ),
        (
            "kerple",
            {"num_heads": 2, "kernel": "sin"},
            "`kernel` must be 'log' or 'power', but is 'sin'. Use 'log', which the paper found best.",
        ),
        (
            "fire",
            {"num_heads": 2, "threshold": 0},
            "`threshold` must be above 0, but is 0. Use 0.1 for c and 512.0 for threshold.",
        ),
        (
            "shaw",
            {"head_dim": 4, "max_distance": 0},
            "`max_distance` must be a whole number of at least 1, but is 0. Give 1 or more.",
        ),
        ("nezha", {"head_dim": 5}, "`head_dim` must be even for nezha positions, but is 5. Use 6."),
        (
            "transformer_xl",
            {**SIZES, "d_model": 9},
            "`d_model` must be even for transformer_xl positions, but is 9. Use 10.",
        ),
        ("deberta", {**SIZES, "position_buckets": 7}, "`position_buckets` must be even, but is 7. Use 8."),
        (
            "deberta",
            {**SIZES, "terms": ["p2p"]},
            "`terms` must hold 'c2p', 'p2c' or both, but is ['p2p']. Use both, as the paper does.",
        ),
        ("pope", {"num_heads": 2, "head_dim": 4, "theta": -1.0}, "`theta` must be above 0, but is -1.0. Use 10000.0"),
        (
            "cope",
            {"head_dim": 4, "num_positions": 1},
            "`num_positions` must be a whole number of at least 2, but is 1. Give 2 or more.",
        ),
        (
            "compose",
            {"members": []},
            "`members` must hold at least one scheme, but is []. Use 'none' for no positions.",
        ),
        (
            "compose",
            {"members": [{"name": "t5", "num_heads": 2}, {"name": "alibi", "num_heads": 2}]},
            "`member 'alibi'` must have a score for logits of the scale of 't5', but is 'of another scale'. "
            "Give them other layers.",
        ),
        (
            "compose",
            {"members": [NO_LAYERS]},
            "`member 'learned'` must have no layers where it enters the token vectors, but is [0]. Remove layers.",
        ),
        (
            "compose",
            {"members": [{"name": "rotary", "head_dim": 4}, {"name": "xpos", "head_dim": 4, "layers": [1]}]},
            "`member 'xpos'` must change no queries and keys that 'rotary' changes, but is 'in the same layer'. "
            "Give them other layers.",
        ),
        ("compose", {"members": [{"name": "rotery", "head_dim": 4}]}, "`positions` must be one of rotary, "),
        ("compose", {"members": "rotary"}, "`members` must be a list, but is 'rotary'."),
        ("compose", {"members": [3]}, "`member` must be a scheme, a name or a table, but is 3. Write {name = …, "),
        ("compose", {"members": [{"name": "none", "layers": 0}]}, "`layers` must be a list of different layers, but"),
        (
            "compose",
            {"members": [{"name": "none", "layers": "01"}]},
            "`layers` must be a list of different layers, but",
        ),
        ("compose", {"members": [{"name": "none", "layers": [1, 1]}]}, "`layers` must be a list of different layers,"),
        ("compose", {"members": [{"name": "none", "layers": [-1]}]}, "`layers` must be a whole number of at least 0"),
        (
            "compose",
            {"members": [{"scheme": positions.get("none"), "theta": 5.0}]},
            "`member with a scheme` must have no other settings, but is 'theta'. Remove it.",
        ),
        ("compose", {"members": [{"scheme": "none"}]}, "`scheme` must be a Scheme, but is 'none'."),
        ("rotary", {}, "`settings of 'rotary' positions` must have head_dim, but is 'none'. Add head_dim."),
        (
            "learned",
            {"num_positions": 4},
            "`settings of 'learned' positions` must have num_positions, d_model, but is 'num_positions'. Add d_model.",
        ),
        (
            "learned",
            {"num_positions": 4, "d_model": 2, "std": -1},
            "`std` must be a number of at least 0, but is -1. Use 0.01, as GPT-2 does.",
        ),
        ("t5", {"num_heads": 2, "max_distance": 20.5}, "`max_distance` must be a whole number, but is 20.5."),
        ("shaw", {"head_dim": 4, "max_distance": 2, "values": "no"}, "`values` must be true or false, but is 'no'."),
    ],
)
def test_settings_are_refused_by_name(name, settings, message):
    with pytest.raises(SettingError) as caught:
        positions.get(name, **settings)
    assert str(caught.value).startswith(message)


WRONG = ("text", None, 0.5, -1, True, [], {}, float("nan"))
SETTINGS = sorted(
    {
        (case.name, setting)
        for key, case in CASES.items()
        for setting in inspect.signature(type(build(key))).parameters
        if case.name != "none"
    }
)


@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_values_of_any_other_type_are_refused_by_name_or_taken(name, setting):
    case = next(case for case in CASES.values() if case.name == name)
    for value in WRONG:
        try:
            positions.get(name, **{**case.settings, setting: value})
        except SettingError:
            continue


@pytest.mark.parametrize("name", ["xpos", "cope"])
def test_schemes_for_causal_models_refuse_others(name):
    shape = ModelShape(d_model=8, num_heads=2, head_dim=4, num_layers=1, context_length=12, causal=False)
    with pytest.raises(SettingError, match="must be of another kind where the model is not causal"):
        positions.for_model(name, shape)


@pytest.mark.parametrize("name", ["rotary", "xpos", "nezha"])
def test_odd_heads_are_said_in_the_words_of_the_models_settings(name):
    with pytest.raises(SettingError) as caught:
        LanguageModel(vocab_size=9, d_model=12, num_heads=4, num_layers=1, context_length=8, positions=name)
    assert str(caught.value) == (
        f"`d_model` must be a multiple of 8, twice num_heads, for {name} positions, but is 12. "
        "Use 16, or other num_heads."
    )


@pytest.mark.parametrize("name", ["shaw", "cope", "transformer_xl", "deberta"])
def test_fewer_layers_than_the_models_are_refused(name):
    shape = ModelShape(**SIZES, num_layers=3, context_length=12)
    with pytest.raises(
        SettingError, match=f"`num_layers of '{name}' positions` must be at least the model's 3, but is 2"
    ):
        positions.for_model(name, shape, num_layers=2)


def test_layers_that_the_model_does_not_have_are_refused():
    shape = ModelShape(**SIZES, num_layers=3, context_length=12)
    with pytest.raises(SettingError, match="`layers` must be below the model's 3, counted from 0, but is 3"):
        positions.for_model("compose", shape, members=[{"name": "rotary", "layers": [2, 3]}])


class TestCompose:
    """What a composition makes of its members."""

    def test_names_alone_are_members(self):
        shape = ModelShape(**SIZES, num_layers=2, context_length=12)
        scheme = positions.for_model("compose", shape, members=["rotary", "learned"])
        assert [member.name for member in scheme.members] == ["rotary", "learned"]

    def test_one_within_another_is_taken_apart(self):
        inner = {"name": "compose", "members": [{"name": "rotary", "head_dim": 4, "layers": [0, 1]}], "layers": [1, 2]}
        alibi = {"name": "alibi", "num_heads": 2}
        scheme = positions.get("compose", members=[inner, {"name": "xpos", "head_dim": 4, "layers": [0]}, alibi])
        assert [member.name for member in scheme.members] == ["rotary", "xpos", "alibi"]
        assert scheme.layers == [[1], [0], None]

    def test_a_score_that_reads_no_keys_leaves_the_cache_its_turned_keys(self):
        rotary, shaw = {"name": "rotary", "head_dim": 4}, {"name": "shaw", "head_dim": 4, "max_distance": 2}
        alibi = {"name": "alibi", "num_heads": 2}
        assert not positions.get("compose", members=[rotary, alibi]).needs_raw_keys
        assert positions.get("compose", members=[rotary, shaw]).needs_raw_keys

    def test_each_layer_has_the_scale_of_its_own_score(self):
        t5 = {"name": "t5", "num_heads": 2, "layers": [1]}
        scheme = positions.get("compose", members=[{"name": "alibi", "num_heads": 2, "layers": [0]}, t5])
        assert [scheme.scale_of(layer) for layer in (0, 1, 2)] == [None, 1.0, None]

    def test_what_enters_elsewhere_has_no_say_in_the_scale(self):
        t5 = {"name": "t5", "num_heads": 2}
        learned = {"name": "learned", "num_positions": 8, "d_model": 8}
        for other in (learned, {"name": "rotary", "head_dim": 4}):
            q = torch.randn(1, 2, 5, 4)
            composed, alone = (positions.get("compose", members=some) for some in ([other, t5], [t5]))
            composed.members[-1].load_state_dict(alone.members[0].state_dict())
            outputs = [attend(q, q, q, Prepared.of(scheme, Layout.contiguous(5))) for scheme in (composed, alone)]
            assert torch.equal(*outputs)  # q and k are given as turned already


@pytest.mark.parametrize("name", ["t5", "transformer_xl", "shaw"])
def test_a_model_that_is_not_causal_gets_both_directions(name):
    shape = ModelShape(d_model=8, num_heads=2, head_dim=4, num_layers=1, context_length=12, causal=False)
    q = torch.randn(1, 2, 5, 4)
    scheme = positions.for_model(name, shape)
    for parameter in scheme.parameters():
        nn.init.normal_(parameter)
    score = scheme.score(q, q, Layout.contiguous(5), scheme.prepare(Layout.contiguous(5)))
    ahead = score[0, 0, 0]  # what the first query gets for each key
    assert len(ahead.unique()) == 5


def test_a_scaling_without_an_original_length_gets_the_models_context():
    shape = ModelShape(d_model=8, num_heads=1, head_dim=8, num_layers=1, context_length=96)
    scheme = positions.for_model("rotary", shape, scaling={"rope_type": "dynamic", "factor": 2.0})
    assert scheme.scaling.numbers["original_max_position_embeddings"] == 96
    given = positions.for_model("rotary", shape, scaling=YARN)
    assert given.scaling.numbers["original_max_position_embeddings"] == 64


def test_only_scalings_that_depend_on_the_length_need_raw_keys():
    assert positions.get("rotary", head_dim=8, scaling={**LONG, "factor": 2.0}).needs_raw_keys
    assert not positions.get("rotary", head_dim=8, scaling=YARN).needs_raw_keys


def test_keys_of_another_layout_are_refused():
    scheme, q = positions.get("rotary", head_dim=4), torch.zeros(1, 1, 3, 4)
    layout = Layout.contiguous(3)
    with pytest.raises(ShapeError) as caught:
        scheme.rotate(q, torch.zeros(1, 1, 5, 4), layout, scheme.prepare(layout))
    assert str(caught.value) == (
        "`k` must end in the shape (3, 4) of layout and head_dim, but is (1, 1, 5, 4). "
        "Prepare the scheme for this layout."
    )


def test_a_scaling_may_hold_theta_and_the_share_that_turns():
    table = {**YARN, "rope_theta": 5.0, "partial_rotary_factor": 0.5}
    scheme = positions.get("rotary", head_dim=8, scaling=table)
    assert (scheme.theta, scheme.rotary_dim) == (5.0, 4)
    for name in ("rope_type", "type"):  # its older name
        proportional = {name: "proportional", "partial_rotary_factor": 0.5}
        scheme = positions.get("rotary", head_dim=8, scaling=proportional)
        assert (scheme.rotary_dim, scheme.scaling.kind) == (8, "proportional")


def test_xpos_refuses_queries_whose_factors_would_overflow():
    scheme = positions.get("xpos", head_dim=4)
    assert all(part.isfinite().all() for part in scheme.prepare(Layout.contiguous(32_000)).queries)
    with pytest.raises(ShapeError) as caught:
        scheme.prepare(Layout.explicit(torch.tensor([[0, 5], [1, 100_001]])))
    assert str(caught.value) == (
        "`layout` must have the queries of a row within 32695 positions of each other, but is 100000. "
        "Ask fewer at once, or raise scale_base."
    )
    cache = type("Cache", (), {"layout": Layout.contiguous(100_000)})()
    assert scheme.prepare(Layout.contiguous(1).extend(cache, raw_keys=True)).keys.cos.isfinite().all()


def test_projections_of_all_heads_do_not_fit_some_of_them():
    scheme = positions.get("deberta", **SIZES, position_buckets=4, max_distance=9)
    local = scheme.local_heads(1, 1)
    local.bind(nn.Linear(8, 4), nn.Linear(8, 4))
    scheme.bind(nn.Linear(8, 8), nn.Linear(8, 8))
    with pytest.raises(SettingError, match="`local_heads` must be called before bind"):
        scheme.local_heads(1, 1)


def test_bound_projections_are_used_and_stay_the_attentions():
    torch.manual_seed(0)
    scheme = positions.get("deberta", **SIZES, num_layers=2, position_buckets=4, max_distance=9)
    q, layout = torch.randn(1, 2, 5, 4), Layout.contiguous(5)
    state, names = scheme.prepare(layout), set(scheme.state_dict())
    before = [scheme.score(q, q, layout, state, layer) for layer in (0, 1)]
    scheme.bind(nn.Linear(8, 8), nn.Linear(8, 8), layer=1)
    assert torch.equal(scheme.score(q, q, layout, state, 0), before[0])
    assert not torch.allclose(scheme.score(q, q, layout, state, 1), before[1])
    assert set(scheme.state_dict()) == names
    with pytest.raises(SettingError, match=r"`key_proj` must have a weight of shape \(8, 8\), but is \(4, 8\)"):
        scheme.bind(nn.Linear(8, 8), nn.Linear(8, 4))


def test_a_composition_knows_of_its_members_what_a_model_must_know():
    rotary = {"name": "rotary", "head_dim": 4}
    learned = {"name": "learned", "num_positions": 9, "d_model": 8}
    both = positions.get("compose", members=[rotary, learned])
    assert (both.max_position, both.enters_input, both.needs_raw_keys, both.needs_probs) == (8, True, False, False)
    shaw = positions.get("compose", members=[rotary, {"name": "shaw", "head_dim": 4, "max_distance": 3}])
    assert (shaw.needs_raw_keys, shaw.needs_probs, shaw.max_position) == (True, True, None)


def test_a_composition_takes_schemes_that_were_built_before():
    alibi, rotary = positions.get("alibi", num_heads=2), positions.get("rotary", head_dim=4)
    scheme = positions.get("compose", members=[alibi, {"scheme": rotary, "layers": [1]}])
    assert list(scheme.members) == [alibi, rotary]
    assert scheme.layers == [None, [1]]


def test_a_composition_has_the_limit_of_a_member_that_was_resized():
    scheme = positions.get("compose", members=[{"name": "learned", "num_positions": 4, "d_model": 8}])
    scheme.members[0] = scheme.members[0].resized(9)
    assert scheme.max_position == 8


def test_frozen_parameters_stay_frozen_in_local_heads():
    scheme = positions.get("t5", num_heads=4).requires_grad_(False)
    assert not scheme.local_heads(0, 2).weight.requires_grad


def test_the_error_of_a_short_table_within_a_composition_says_how_to_resize():
    scheme = positions.get("compose", members=[{"name": "learned", "num_positions": 4, "d_model": 8}])
    with pytest.raises(ShapeError, match=r"`length` must be at most 4 .* lengthen the table with its `resized`"):
        scheme.embed(torch.zeros(1, 5, 8))
