"""What an atlas measures of a table and of positions, against numpy in float64 and plain loops."""

import math

import numpy as np
import pytest
import torch

from tokenspace import inspection, positions
from tokenspace.atlas import panels
from tokenspace.atlas.health import equal_rows, health, mean_cosine, partition_ratio
from tokenspace.checkpoint.components import principal_components
from tokenspace.inspection import nearest as search
from tokenspace.inspection import nearest_rows
from tokenspace.model import LanguageModel, ModelConfig
from tokenspace.positions import Layout
from tokenspace.tokenizer import Tokenizer

SHAPES = [(40, 6), (300, 48), (6, 40), (17, 17)]
pytestmark = pytest.mark.usefixtures("one_thread")


def table(rows, columns, seed=0):
    """Rows that are neither centred nor alike in all directions."""
    draw = torch.Generator().manual_seed(seed)
    stretched = torch.randn(rows, columns, generator=draw) * torch.linspace(3, 0.1, columns)
    return stretched @ torch.randn(columns, columns, generator=draw) / columns**0.5 + torch.randn(
        columns, generator=draw
    )


def model(scheme, **settings):
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "d_model": 16, "num_heads": 2, "num_layers": 3, "context_length": 24}
    made = LanguageModel(ModelConfig(**{**sizes, **settings}, positions=scheme)).eval()
    with torch.no_grad():
        for parameter in made.parameters():  # a first draw would leave most scores near 0
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return made


def text(length=24, seed=1):
    return torch.randint(60, (1, length), generator=torch.Generator().manual_seed(seed))


# principal components


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_principal_components_are_those_of_numpy(shape):
    points = table(*shape)
    basis = principal_components(points, 8)
    rows = points.numpy().astype(np.float64)
    centred = rows - rows.mean(axis=0)
    _, scales, axes = np.linalg.svd(centred, full_matrices=False)
    number = min(8, shape[1], shape[0] - 1)
    axes = axes[:number] * np.sign(axes[np.arange(number), np.abs(axes[:number]).argmax(axis=1)])[:, None]
    np.testing.assert_allclose(basis.mean, rows.mean(axis=0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(basis.components[:number], axes, atol=2e-5)
    np.testing.assert_allclose(basis.explained[:number], (scales**2 / (scales**2).sum())[:number], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(basis.project(points)[:, :number], centred @ axes.T, atol=2e-4)


def test_principal_components_of_many_rows_are_summed_in_pieces(monkeypatch):
    points = table(100, 5)
    whole = principal_components(points)
    monkeypatch.setattr("tokenspace.checkpoint.components._ROWS_AT_ONCE", 7)
    pieces = principal_components(points)
    torch.testing.assert_close(pieces.components, whole.components)
    torch.testing.assert_close(pieces.mean, whole.mean)


# neighbours


def brute_force(points, k):
    """All cosines in float64, and for each row the k largest of the others."""
    rows = points.double().numpy()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-300)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(cosines, order, axis=1)


@pytest.mark.parametrize("block", [1, 7, 64, 2048])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_neighbours_of_all_rows_are_those_of_brute_force(monkeypatch, shape, block):
    monkeypatch.setattr(search, "_BLOCK", block)
    monkeypatch.setattr(search, "_ROWS_AT_ONCE", 5)
    points = table(*shape)
    k = min(9, shape[0] - 1)
    order, cosines = brute_force(points, k)
    found = nearest_rows(points, k)
    assert found.rows.tolist() == list(range(shape[0]))
    np.testing.assert_array_equal(found.nearest, order)
    np.testing.assert_allclose(found.cosines, cosines, atol=1e-6)


@pytest.mark.parametrize("block", [1, 7, 2048])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_neighbours_of_some_rows_are_sought_among_all(monkeypatch, shape, block):
    monkeypatch.setattr(search, "_BLOCK", block)
    points, rows = table(*shape), torch.tensor([1, 3, shape[0] - 1])
    order, cosines = brute_force(points, 5)
    found = nearest_rows(points, 5, rows)
    assert found.rows.tolist() == rows.tolist()
    np.testing.assert_array_equal(found.nearest, order[rows])
    np.testing.assert_allclose(found.cosines, cosines[rows], atol=1e-6)


def test_neighbours_are_those_of_inspection():
    tokenizer = Tokenizer.train(["the cat sat on the mat and the dog sat by the door. " * 20], 300)
    points = table(tokenizer.vocab_size, 24)
    found = nearest_rows(points, 20)
    for row in range(len(points)):
        one = inspection.neighbours(points, row, tokenizer, k=20).nearest
        assert found.nearest[row].tolist() == [near.id for near in one]
        assert found.cosines[row].tolist() == pytest.approx([near.cosine for near in one], abs=1e-6)


# health


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_spectrum_and_effective_rank_are_those_of_numpy(shape):
    points = table(*shape)
    numbers, spectrum = health(points, equal_rows(points))
    expected = np.linalg.svd(points.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(spectrum, expected, rtol=1e-5)
    shares = expected / expected.sum()
    assert numbers["effective_rank"] == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-5)


def test_the_effective_rank_of_equal_directions_is_their_number():
    points = torch.eye(12)[:7] * 3.0
    assert health(points, equal_rows(points))[0]["effective_rank"] == pytest.approx(7)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_mean_cosine_is_that_of_all_pairs(shape):
    rows = table(*shape).double().numpy()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = [unit[i] @ unit[j] for i in range(len(unit)) for j in range(len(unit)) if i != j]
    assert mean_cosine(table(*shape)) == pytest.approx(np.mean(pairs), abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_partition_ratio_is_that_of_its_definition(shape):
    rows = table(*shape).double().numpy()
    _, axes = np.linalg.eigh(rows.T @ rows)
    axes = np.concatenate([axes, -axes], axis=1)  # an eigenvector has no sign
    sums = np.exp(rows @ axes).sum(axis=0)
    assert partition_ratio(table(*shape)) == pytest.approx(sums.min() / sums.max(), rel=1e-6)


def test_equal_rows_are_those_of_all_pairs():
    points = torch.randint(3, (60, 3), generator=torch.Generator().manual_seed(0)).float()
    expected = []
    for later in range(60):
        earlier = next(row for row in range(60) if torch.equal(points[row], points[later]))
        expected += [[earlier, later]] if earlier != later else []
    assert equal_rows(points).tolist() == expected


# positions at the input


@pytest.mark.parametrize("scheme", ["learned", "sinusoidal"])
def test_the_similarity_of_positions_is_the_cosine_of_what_is_added(scheme):
    made = model(scheme)
    ids = torch.zeros(1, 24, dtype=torch.int64)
    with torch.no_grad():
        added = made.embedding(ids)[0] - made.embedding.scale * made.embedding.token(ids)[0]
    found = panels.input_positions(made.embedding, made.config.context_length)
    torch.testing.assert_close(found, added, rtol=0, atol=1e-6)
    unit = added.double().numpy()
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    similar, ticks = panels.similarity(found)
    assert ticks.tolist() == list(range(24))
    np.testing.assert_allclose(similar, unit @ unit.T, atol=1e-5)


# scores


def test_alibi_falls_by_its_slope_a_step():
    found = panels.score_by_distance(model("alibi", num_heads=4), text())
    slopes = [2.0 ** (-8 * (head + 1) / 4) for head in range(4)]
    expected = torch.tensor([[-slope * distance for distance in range(24)] for slope in slopes])
    torch.testing.assert_close(found, expected.expand(3, 4, 24))


def test_t5_is_its_table_by_bucket():
    transformers = pytest.importorskip("transformers.models.t5.modeling_t5")
    made = model("t5", position_settings={"num_buckets": 8, "max_distance": 16})
    found = panels.score_by_distance(made, text())
    buckets = transformers.T5Attention._relative_position_bucket(
        -torch.arange(24), bidirectional=False, num_buckets=8, max_distance=16
    )
    (weight,) = made.embedding.position.parameters()
    torch.testing.assert_close(found[0], weight.detach()[buckets].t(), rtol=0, atol=1e-6)
    assert (found == found[0]).all()  # one table for all layers


def test_t5_that_sees_both_sides_is_its_table_by_bucket():
    transformers = pytest.importorskip("transformers.models.t5.modeling_t5")
    made = model("t5", causal=False, position_settings={"num_buckets": 8, "max_distance": 16})
    found = panels.score_by_distance(made, text())
    relative = -torch.tensor(panels.distances(24, ahead=True))
    buckets = transformers.T5Attention._relative_position_bucket(
        relative, bidirectional=True, num_buckets=8, max_distance=16
    )
    (weight,) = made.embedding.position.parameters()
    torch.testing.assert_close(found[0], weight.detach()[buckets].t(), rtol=0, atol=1e-6)
    alone = panels.score_without_content(made.embedding.position, 24, ahead=True)
    torch.testing.assert_close(alone[0], found[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("scheme", ["alibi", "t5", "kerple", "fire"])
def test_a_score_without_contents_is_that_of_any_query_and_key(scheme):
    made = model(scheme)
    found = panels.score_by_distance(made, text())
    layout = Layout.contiguous(24)
    q, k = torch.randn(2, 1, 2, 24, 8, generator=torch.Generator().manual_seed(0)).unbind()
    asked = made.embedding.position
    with torch.no_grad():
        scores = asked.score(q, k, layout, asked.prepare(layout), 0)[0]
    for head in range(2):
        for distance in range(24):
            pairs = [scores[head, query, query - distance] for query in range(distance, 24)]
            assert found[0, head, distance] == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-5)


@pytest.mark.parametrize("scheme", ["cope", "deberta", "nezha", "shaw", "transformer_xl"])
def test_a_score_of_contents_is_the_mean_over_a_text(scheme, monkeypatch):
    made, heard = model(scheme), []
    kind = type(made.embedding.position)
    score = kind.score

    def listen(self, q, k, layout, state, layer=0):
        heard.append(score(self, q, k, layout, state, layer))
        return heard[-1]

    monkeypatch.setattr(kind, "score", listen)
    with torch.no_grad():
        made(text())
    scores = [one[0].numpy() for one in heard]
    found = panels.score_by_distance(made, text()).numpy()
    assert found.shape == (3, 2, 24)
    for layer in range(3):
        for head in range(2):
            for distance in range(24):
                pairs = [scores[layer][head, query, query - distance] for query in range(distance, 24)]
                assert found[layer, head, distance] == pytest.approx(np.mean(pairs), rel=1e-4, abs=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-4


# rotary


@pytest.mark.parametrize("settings", [{}, {"theta": 100.0}, {"order": "interleaved"}], ids=str)
def test_the_rotary_kernel_is_the_cosine_of_the_angles(settings):
    scheme = positions.get("rotary", head_dim=16, **settings)
    found = panels.rotary_kernel(scheme, 40)
    theta = settings.get("theta", 10_000.0)
    angles = theta ** (-np.arange(8) / 8)  # a component each two, fastest first, so 8 bands of one angle
    np.testing.assert_allclose(found, np.cos(angles[:, None] * np.arange(40)), atol=2e-5)


def test_bands_are_means_over_the_angles_next_to_each_other():
    found = panels.rotary_kernel(positions.get("rotary", head_dim=64), 30)
    angles = 10_000.0 ** (-np.arange(32) / 32)
    kernel = np.cos(angles[:, None] * np.arange(30)).reshape(8, 4, 30).mean(axis=1)
    np.testing.assert_allclose(found, kernel, atol=2e-5)


def test_components_that_do_not_turn_are_the_slowest():
    found = panels.rotary_kernel(positions.get("rotary", head_dim=16, rotary_dim=8), 20)
    assert found.shape == (8, 20)
    np.testing.assert_allclose(found[4:], 1.0, atol=1e-6)
    np.testing.assert_allclose(found[0], np.cos(np.arange(20)), atol=2e-5)


def test_xpos_decays_beside_turning():
    turning = positions.get("xpos", head_dim=16)
    found = panels.rotary_kernel(turning, 40)
    only = panels.rotary_kernel(positions.get("rotary", head_dim=16), 40)
    torch.testing.assert_close(found[:, 0], torch.ones(8))
    assert (found.abs() <= only.abs() + 1e-5).all() and found[0].abs()[30:].max() < only[0].abs()[30:].max()
