"""How numbers by relative position come to keys: skews, gathers and Toeplitz matrices, against indexing."""

import copy
import pickle

import pytest
import torch

from tokenspace import positions
from tokenspace.positions import Layout, repeat_heads
from tokenspace.positions._relative import RelativeIndex, clipped_index, skew
from tokenspace.positions._toeplitz import toeplitz
from tokenspace.positions._waves import waves


@pytest.mark.parametrize(("T", "S"), [(1, 1), (3, 7), (64, 65), (130, 130), (200, 70)])
def test_a_toeplitz_matrix_equals_indexing_in_values_and_gradients(T, S):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, T + S - 1, dtype=torch.float64, generator=generator).requires_grad_()
    gradient = torch.randn(2, T, S, dtype=torch.float64, generator=generator)
    expected = values[:, torch.arange(S) - torch.arange(T).unsqueeze(1) + T - 1]
    actual = toeplitz(values, T)
    assert torch.equal(actual, expected)
    torch.testing.assert_close(*(torch.autograd.grad(out, values, gradient)[0] for out in (actual, expected)))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, in forward mode
def test_a_toeplitz_matrix_takes_vmap_and_forward_mode():
    values = torch.randn(3, 2, 6)
    looped = torch.stack([toeplitz(one, 4) for one in values])
    torch.testing.assert_close(torch.func.vmap(lambda one: toeplitz(one, 4))(values), looped)
    _, tangent = torch.func.jvp(lambda one: toeplitz(one, 4), (values[0],), (values[1],))
    torch.testing.assert_close(tangent, looped[1])


@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 6), (4, 4), (3, 8)])
@pytest.mark.parametrize("causal", [True, False])
def test_a_skew_equals_indexing_wherever_there_is_a_column(T, S, causal):
    relative = torch.arange(-S, 1 if causal else T)
    columns = relative.expand(2, 3, T, -1).contiguous()
    wanted = torch.arange(S) - torch.arange(S - T, S).unsqueeze(1)
    got = skew(columns, S)
    known = wanted <= relative[-1]
    assert torch.equal(got[..., known], wanted[known].expand(2, 3, -1))


def test_a_skew_copies_nothing():
    columns = torch.randn(1, 1, 4, 9)
    assert skew(columns, 4).data_ptr() == columns[..., 4:].data_ptr()


LAYOUTS = [Layout.contiguous(6), Layout.packed([2, 4]), Layout.explicit(torch.tensor([[0, 3, 9], [4, 5, 6]]))]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("behind", "ahead"), [(2, 2), (3, 0), (50, 50)])
def test_clipped_rows_equal_a_vector_for_every_pair(layout, behind, ahead):
    """The (T, S, K) tensor that is never made otherwise."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(behind + 1 + ahead, 4, generator=generator)
    T, S = layout.query_length, layout.key_length
    q, probs = torch.randn(2, 3, T, 4, generator=generator), torch.rand(2, 3, T, S, generator=generator)
    k = torch.randn(2, 3, S, 4, generator=generator)
    relative = layout.relative_positions().clamp(-behind, ahead) + behind
    every_pair = table[relative.expand(2, T, S)]
    index, first = clipped_index(layout, behind, ahead)
    rows = table[first : first + index.rows]
    close = torch.testing.assert_close
    close(index.to_keys(q @ rows.t()), torch.einsum("bhtk,btsk->bhts", q, every_pair))
    close(index.to_queries(k @ rows.t()), torch.einsum("bhsk,btsk->bhts", k, every_pair))
    close(index.to_rows(probs) @ rows, torch.einsum("bhts,btsk->bhtk", probs, every_pair))


def test_rows_that_no_pair_can_read_are_left_out():
    index, first = clipped_index(Layout.contiguous(3), behind=511, ahead=511)
    assert (index.rows, first) == (5, 509)


def test_an_index_for_each_row_of_the_batch_gets_an_axis_for_heads():
    assert RelativeIndex.of(torch.zeros(2, 3, 3, dtype=torch.long), 1).index.shape == (2, 1, 3, 3)


def test_key_heads_are_repeated_in_blocks():
    assert repeat_heads(torch.arange(2.0).view(1, 2, 1, 1), 6).flatten().tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]


def transformer_xl():
    return positions.get("transformer_xl", d_model=8, num_heads=2, head_dim=4)


def test_waves_are_made_anew_only_when_a_distance_is_beyond_those_kept():
    scheme, kept = transformer_xl(), []
    for length in range(1, 300):
        scheme.prepare(Layout.contiguous(length))
        kept.append(scheme._kept)
    assert len({table.data_ptr() for table in kept}) <= 10
    assert len(scheme._kept) <= 2 * 300 + 1


def test_waves_kept_in_inference_mode_serve_training_later():
    scheme, layout, q = transformer_xl(), Layout.contiguous(3), torch.zeros(1, 2, 3, 4)
    with torch.inference_mode():
        scheme.prepare(layout)
    scheme.score(q, q, layout, scheme.prepare(layout)).sum().backward()
    assert scheme.matrix.grad is not None


def test_a_copy_carries_no_kept_waves():
    scheme, layout, q = transformer_xl(), Layout.contiguous(500), torch.randn(1, 2, 500, 4)
    light = len(pickle.dumps(scheme))
    score = scheme.score(q, q, layout, scheme.prepare(layout))
    assert len(pickle.dumps(scheme)) < light + 100
    for copied in (copy.deepcopy(scheme), pickle.loads(pickle.dumps(scheme)), scheme.local_heads(0, 2)):
        assert copied._kept is None
        assert torch.equal(copied.score(q, q, layout, copied.prepare(layout)), score)


@pytest.mark.parametrize("causal", [True, False])
def test_a_gap_costs_no_more_than_the_distances_that_occur(causal):
    torch.manual_seed(0)
    scheme = positions.get("transformer_xl", d_model=8, num_heads=2, head_dim=4, causal=causal)
    layout = Layout.explicit(torch.tensor([0, 1, 2, 10_000_000]))
    state = scheme.prepare(layout)
    behind = {0, 1, 2, 9_999_998, 9_999_999, 10_000_000}
    assert len(state.waves) == len(behind if causal else behind | {-distance for distance in behind})
    q, distances = torch.randn(1, 2, 4, 4), -layout.relative_positions()
    matrix = scheme.matrix[0].unflatten(0, (2, 4))
    every_pair = torch.einsum("hkd,tsd->htsk", matrix, waves(distances, 8))
    expected = torch.einsum("bhtk,htsk->bhts", q + scheme.distance_bias[0].unsqueeze(1), every_pair) / 2
    seen = distances >= 0 if causal else torch.ones(4, 4, dtype=torch.bool)
    torch.testing.assert_close(scheme.score(q, q, layout, state)[..., seen], expected[..., seen])


def test_few_queries_and_many_give_the_same_score():
    """They are brought to the waves, or the waves to them, whichever is cheaper."""
    torch.manual_seed(0)
    scheme, layout = transformer_xl(), Layout.contiguous(9)
    q, k = torch.randn(1, 2, 9, 4), torch.randn(1, 2, 9, 4)
    whole = scheme.score(q, k, layout, scheme.prepare(layout))
    cache = type("Cache", (), {"layout": Layout.contiguous(8)})()
    last = Layout.contiguous(1).extend(cache)
    torch.testing.assert_close(scheme.score(q[:, :, -1:], k, last, scheme.prepare(last)), whole[:, :, -1:])
