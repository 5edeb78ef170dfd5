"""`positions.get`, `for_model`, `available`: names, settings, and what is said when they are wrong."""

import ast
from pathlib import Path

import pytest
import torch

from tokenspace import positions
from tokenspace.errors import SettingError
from tokenspace.model import LanguageModel
from tokenspace.positions import ModelShape, Scheme

SETTINGS = {"compose": {"members": [{"name": "none"}]}}  # the only scheme that a shape says nothing about
SHAPE = ModelShape(d_model=8, num_heads=2, head_dim=4, num_layers=1, context_length=12)


def test_available_names_are_sorted_and_hold_all_that_there_are():
    names = positions.available()
    first_wave = ["none", "learned", "sinusoidal", "rotary", "alibi", "t5", "shaw", "nezha"]
    first_wave += ["transformer_xl", "deberta", "pope", "compose"]
    assert names == sorted([*first_wave, "xpos", "kerple", "fire", "cope"])


@pytest.mark.parametrize("name", positions.available())
def test_a_scheme_knows_the_name_it_is_found_by(name):
    assert positions.for_model(name, SHAPE, **SETTINGS.get(name, {})).name == name


@pytest.mark.parametrize("name", positions.available())
def test_a_scheme_is_an_attribute_of_the_package_by_its_class_name(name):
    kind = type(positions.for_model(name, SHAPE, **SETTINGS.get(name, {})))
    assert getattr(positions, kind.__name__) is kind


def test_the_package_lists_its_schemes():
    assert {"Rotary", "Learned", "TransformerXL", "get"} <= set(dir(positions))


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Nowhere'"):
        positions.Nowhere  # noqa: B018


def test_an_unknown_name_lists_the_names_nearest_first():
    with pytest.raises(SettingError) as caught:
        positions.get("learnt")
    assert str(caught.value).startswith("`positions` must be one of learned, ")
    assert str(caught.value).endswith("but is 'learnt'. Did you mean 'learned'?")


def test_a_private_file_is_no_scheme():
    with pytest.raises(SettingError, match="`positions` must be one of"):
        positions.get("_layout")


def test_an_unknown_setting_is_named_with_those_that_exist():
    with pytest.raises(SettingError) as caught:
        positions.get("learned", num_positions=4, d_model=8, lenght=3)
    assert str(caught.value) == (
        "`setting of 'learned' positions` must be one of num_positions, d_model, std, but is 'lenght'. "
        "Correct or remove it."
    )


def test_a_scheme_without_settings_takes_none():
    with pytest.raises(SettingError) as caught:
        positions.get("none", theta=1.0)
    assert str(caught.value) == "`setting of 'none' positions` must not be given, but is 'theta'. Correct or remove it."


def test_a_model_shape_implies_settings_and_settings_override_it():
    assert positions.for_model("learned", SHAPE).weight.shape == (12, 8)
    assert positions.for_model("learned", SHAPE, num_positions=99).weight.shape == (99, 8)


def test_a_model_passes_position_settings_on():
    model = LanguageModel(
        vocab_size=5, d_model=8, num_heads=2, positions="sinusoidal", position_settings={"order": "halves"}
    )
    assert model.embedding.position.order == "halves"


def test_the_base_class_encodes_no_order_anywhere():
    scheme, x = Scheme(), torch.randn(1, 2, 3, 4)
    layout = positions.Layout.contiguous(3)
    assert scheme.prepare(layout) is None
    assert scheme.embed(x) is x
    assert scheme.rotate(x, x, layout, None) == (x, x)
    assert scheme.score(x, x, layout, None) is None
    assert scheme.value(x, layout, None) is None
    assert scheme.local_heads(0, 1).state_dict() == {}


def test_no_code_outside_a_schemes_file_compares_with_its_name():
    root = Path(positions.__file__).parents[1]
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                compared = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
                assert not compared & set(positions.available()), f"{path}:{node.lineno}"
