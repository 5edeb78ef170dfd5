"""What only one of the schemes does: sizes, first draws, orders, limits."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tokenspace.errors import SettingError, ShapeError
from tokenspace.positions import Layout, get
from tokenspace.positions.learned import Learned
from tokenspace.positions.sinusoidal import Sinusoidal


def test_learned_adds_the_rows_of_its_table():
    scheme = Learned(num_positions=4, d_model=3)
    x = torch.ones(2, 4, 3)
    assert torch.equal(scheme.embed(x.clone()), 1 + scheme.weight.expand(2, 4, 3))


def test_learned_draws_with_the_given_standard_deviation():
    torch.manual_seed(0)
    assert Learned(num_positions=1000, d_model=64, std=0.3).weight.std().item() == pytest.approx(0.3, rel=0.02)


def test_learned_reports_its_last_row():
    assert Learned(num_positions=7, d_model=2).max_position == 6


def test_a_sequence_longer_than_the_table_is_refused():
    with pytest.raises(ShapeError) as caught:
        Learned(num_positions=4, d_model=2).embed(torch.zeros(1, 5, 2))
    assert str(caught.value) == (
        "`length` must be at most 4 for 'learned' positions, but is 5. "
        "Shorten the sequence, or lengthen the table with its `resized`."
    )


def test_a_position_behind_the_table_is_refused():
    with pytest.raises(ShapeError) as caught:
        Learned(num_positions=4, d_model=2).embed(torch.zeros(1, 2, 2), torch.tensor([0, 4]))
    assert str(caught.value) == (
        "`positions` must be at most 3, but is 4. Shorten the sequence, or lengthen the table with its `resized`."
    )


def test_only_the_rows_that_were_used_get_a_gradient():
    scheme = Learned(num_positions=5, d_model=2)
    scheme.embed(torch.zeros(3, 2, 2), torch.tensor([1, 4])).sum().backward()
    assert scheme.weight.grad[:, 0].tolist() == [0.0, 3.0, 0.0, 0.0, 3.0]


@pytest.mark.parametrize("sizes", [{"num_positions": 0, "d_model": 2}, {"num_positions": 2, "d_model": 0}])
def test_learned_refuses_an_empty_table(sizes):
    with pytest.raises(SettingError, match="must be a whole number of at least 1, but is 0"):
        Learned(**sizes)


def test_the_two_orders_hold_the_same_numbers():
    where = torch.arange(9)
    interleaved = Sinusoidal(d_model=6).waves(where)
    halves = Sinusoidal(d_model=6, order="halves").waves(where)
    assert torch.equal(halves, torch.cat([interleaved[:, 0::2], interleaved[:, 1::2]], dim=-1))


def test_waves_stay_float32_when_the_module_is_bfloat16():
    assert Sinusoidal(d_model=4).to(torch.bfloat16).waves(torch.tensor([100_000])).dtype == torch.float32


def test_waves_in_bfloat16_vectors_are_rounded_once():
    where = torch.tensor([0, 99_999, 100_000])
    x = torch.randn(1, 3, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    scheme = Sinusoidal(d_model=64)
    assert torch.equal(scheme.embed(x.clone(), where), (x.float() + scheme.waves(where)).bfloat16())


def test_sinusoidal_stores_nothing():
    assert Sinusoidal(d_model=4).state_dict() == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_model": 5}, "`d_model` must be even for sinusoidal positions, but is 5. Use 6."),
        ({"d_model": 0}, "`d_model` must be a whole number of at least 2, but is 0. Give 2 or more."),
        ({"d_model": 4, "theta": 0}, "`theta` must be above 0, but is 0. Use 10000.0, as the paper does."),
        (
            {"d_model": 4, "theta": float("nan")},
            "`theta` must be above 0, but is nan. Use 10000.0, as the paper does.",
        ),
        (
            {"d_model": 4, "order": "mixed"},
            "`order` must be 'interleaved' or 'halves', but is 'mixed'. Use 'interleaved', as the paper does.",
        ),
    ],
)
def test_sinusoidal_refuses_settings_by_name(settings, message):
    with pytest.raises(SettingError) as caught:
        Sinusoidal(**settings)
    assert str(caught.value) == message


def test_a_longer_table_keeps_its_rows_and_draws_new_ones():
    torch.manual_seed(0)
    scheme = Learned(num_positions=4, d_model=64, std=0.3)
    longer = scheme.resized(500)
    assert torch.equal(longer.weight[:4], scheme.weight)
    assert longer.weight[4:].std().item() == pytest.approx(0.3, rel=0.02)
    assert (longer.max_position, scheme.max_position) == (499, 3)


def test_a_shorter_table_keeps_its_first_rows():
    scheme = Learned(num_positions=9, d_model=3)
    assert torch.equal(scheme.resized(4).weight, scheme.weight[:4])


@pytest.mark.parametrize("length", [1, 2, 5, 9, 17, 100])
def test_interpolation_reads_the_table_between_its_rows(length):
    scheme = Learned(num_positions=9, d_model=3, std=1.0)
    stretched = scheme.resized(length, interpolate=True).weight
    for row in range(length):
        place = row * 8 / max(1, length - 1)
        low, part = int(place), place - int(place)
        expected = scheme.weight[low] * (1 - part) + (scheme.weight[min(low + 1, 8)] * part if part else 0)
        torch.testing.assert_close(stretched[row], expected, rtol=1e-5, atol=1e-5)


def test_a_resized_table_keeps_dtype_and_can_be_trained():
    scheme = Learned(num_positions=3, d_model=2).to(torch.bfloat16)
    for interpolate in (False, True):
        resized = scheme.resized(5, interpolate)
        assert (resized.weight.dtype, resized.weight.requires_grad) == (torch.bfloat16, True)


def test_a_table_cannot_be_resized_to_nothing():
    with pytest.raises(SettingError, match="`num_positions` must be a whole number of at least 1, but is 0"):
        Learned(num_positions=3, d_model=2).resized(0)


# What a scheme does not do


@pytest.mark.parametrize("layout", [Layout.contiguous(9), Layout.packed([5, 4])], ids=["contiguous", "packed"])
def test_fire_in_parts_is_fire_at_once(layout, monkeypatch):
    torch.manual_seed(0)
    scheme = get("fire", num_heads=3, width=4).double()
    whole = scheme.prepare(layout)
    wanted = torch.autograd.grad(whole.sin().sum(), list(scheme.parameters()))
    monkeypatch.setattr("tokenspace.positions.fire._HIDDEN_AT_ONCE", 2 * 4 * 9)  # two rows at once
    parts = scheme.prepare(layout)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts.sin().sum(), list(scheme.parameters())), wanted)


def test_fire_keeps_no_hidden_units_of_all_pairs(monkeypatch):
    monkeypatch.setattr("tokenspace.positions.fire._HIDDEN_AT_ONCE", 32 * 64 * 4)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda saved: kept.append(saved.numel()) or saved, lambda saved: saved
    ):
        get("fire", num_heads=2).prepare(Layout.contiguous(64))
    assert max(kept) <= 64 * 64


@pytest.mark.parametrize("bound", [False, True])
def test_deberta_with_one_query_reads_no_more_of_its_table_than_the_keys_reach(bound):
    scheme = get("deberta", d_model=32, num_heads=2, head_dim=16)  # 512 rows
    if bound:
        scheme.bind(torch.nn.Linear(32, 32), torch.nn.Linear(32, 32))
    cache = SimpleNamespace(layout=Layout.contiguous(9))
    layout = Layout.contiguous(1).extend(cache)
    q, k = torch.randn(1, 2, 1, 16), torch.randn(1, 2, 10, 16)
    with FlopCounterMode(display=False) as counter:
        scheme.score(q, k, layout, scheme.prepare(layout))
    assert counter.get_total_flops() <= 2 * (10 * 32 * 32) * 2 + 2 * 32 * 10 * 32 * 2


@pytest.mark.parametrize("layout", [Layout.contiguous(3), Layout.packed([2, 1])], ids=["contiguous", "packed"])
def test_deberta_is_the_same_for_few_queries_as_for_many(layout, monkeypatch):
    torch.manual_seed(0)
    scheme = get("deberta", d_model=8, num_heads=2, head_dim=4, position_buckets=4, max_distance=9).double()
    torch.nn.init.normal_(scheme.key_bias)
    q, k = (torch.randn(2, 2, 3, 4, dtype=torch.float64) for _ in range(2))
    few = scheme.score(q, k, layout, scheme.prepare(layout))
    monkeypatch.setattr("tokenspace.positions.deberta._FEW", 0)
    torch.testing.assert_close(few, scheme.score(q, k, layout, scheme.prepare(layout)))
