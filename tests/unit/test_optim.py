"""RowwiseAdamW and the tables it knows: what training may rely on beyond the numbers themselves."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

from tokenspace import RowwiseAdamW, TokenEmbedding
from tokenspace.errors import CheckpointError, SettingError, ShapeError
from tokenspace.optim import clip_grad_norm_

V, D = 200, 6


def table(seed=1, sparse=True, **options):
    torch.manual_seed(seed)
    return TokenEmbedding(V, D, sparse=sparse, **options)


def batches(number, seed=3):
    """Ids, most of them small, and gradients of the size that language models have."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(number):
        ids = torch.randint(0, V, (2, 4), generator=generator) ** 2 // V
        yield ids, torch.randn(2, 4, D, generator=generator) * 1e-4


def train(embedding, optimizer, some):
    for ids, gradient in some:
        optimizer.zero_grad()
        embedding(ids).backward(gradient)
        optimizer.step()


@pytest.fixture
def lagging():
    """A table some of whose rows lag, and its optimiser."""
    embedding = table()
    optimizer = RowwiseAdamW(embedding.parameters(), lr=0.01, weight_decay=0.1)
    train(embedding, optimizer, batches(40))
    assert not torch.equal(embedding.current_weight(), embedding.weight)
    return embedding, optimizer


def test_looking_changes_no_later_bit():
    looked_at, alone = table(), table()
    optimizers = [RowwiseAdamW(e.parameters(), lr=0.01, weight_decay=0.1) for e in (looked_at, alone)]
    for one, other in zip(batches(60), batches(60), strict=True):
        looked_at(torch.arange(V))  # in training mode, with a gradient that nobody asks for
        looked_at.eval()(torch.arange(7))
        with torch.no_grad():
            looked_at.train()(torch.arange(9))
        looked_at.state_dict()
        looked_at.current_weight(slice(3, 50))
        optimizers[0].state_dict()
        copy.deepcopy(looked_at)
        train(looked_at, optimizers[0], [one])
        train(alone, optimizers[1], [other])
        assert torch.equal(looked_at.weight, alone.weight)
    assert torch.equal(looked_at.current_weight(), alone.current_weight())


def test_reading_saving_and_copying_give_the_caught_up_rows(lagging):
    embedding, optimizer = lagging
    now = embedding.current_weight()
    saved = io.BytesIO()
    torch.save(embedding, saved)
    saved.seek(0)
    readings = [
        embedding(torch.arange(V)),
        embedding.state_dict()["weight"],
        embedding.current_weight(torch.arange(V)),
        copy.deepcopy(embedding)(torch.arange(V)),
        torch.load(saved, weights_only=False)(torch.arange(V)),
    ]
    optimizer.flush()
    for reading in [*readings, embedding.weight]:
        torch.testing.assert_close(reading.detach(), now, rtol=0, atol=1e-7)  # other groups of rows, other roundings


def test_a_flush_changes_the_trajectory_by_rounding_alone(lagging):
    embedding, optimizer = lagging
    other, its_optimizer = copy.deepcopy((embedding, optimizer))
    its_optimizer.flush()
    assert torch.equal(other.weight, other.current_weight())
    train(embedding, optimizer, batches(40, seed=4))
    train(other, its_optimizer, batches(40, seed=4))
    torch.testing.assert_close(other.current_weight(), embedding.current_weight(), rtol=0, atol=1e-6)


def test_after_a_flush_the_state_is_that_of_torch_adamw(lagging):
    _, optimizer = lagging
    dense = nn.Embedding(V, D, _weight=table().weight.detach().clone())
    its_optimizer = torch.optim.AdamW(dense.parameters(), lr=0.01, weight_decay=0.1)
    train(dense, its_optimizer, batches(40))
    optimizer.flush()
    mine, theirs = optimizer.state_dict()["state"][0], its_optimizer.state_dict()["state"][0]
    for name in ("step", "exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_state_restores_bit_for_bit(weight_decay):
    embedding = table()
    optimizer = RowwiseAdamW(embedding.parameters(), lr=0.01, weight_decay=weight_decay)
    train(embedding, optimizer, batches(300))  # more than a window of missed steps
    saved = io.BytesIO()
    torch.save((embedding.state_dict(), optimizer.state_dict()), saved)
    saved.seek(0)
    model_state, optimizer_state = torch.load(saved)  # plain tensors and numbers
    other = table(seed=9)
    its_optimizer = RowwiseAdamW(other.parameters())
    other.load_state_dict(model_state)
    its_optimizer.load_state_dict(optimizer_state)
    assert torch.equal(other.weight, embedding.weight)
    train(embedding, optimizer, batches(300, seed=5))
    train(other, its_optimizer, batches(300, seed=5))
    assert torch.equal(other.weight, embedding.weight)
    assert torch.equal(other.current_weight(), embedding.current_weight())


def test_a_pickled_optimizer_and_table_go_on_together(lagging):
    embedding, optimizer = lagging
    saved = io.BytesIO()
    torch.save((embedding, optimizer), saved)
    saved.seek(0)
    other, its_optimizer = torch.load(saved, weights_only=False)
    train(embedding, optimizer, batches(30, seed=5))
    train(other, its_optimizer, batches(30, seed=5))
    assert torch.equal(other.weight, embedding.weight)


def test_the_state_of_torch_adamw_is_taken_over():
    dense, embedding = nn.Embedding(V, D, _weight=table().weight.detach().clone()), table()
    its_optimizer = torch.optim.AdamW(dense.parameters(), lr=0.01, weight_decay=0.1)
    train(dense, its_optimizer, batches(30))
    optimizer = RowwiseAdamW(embedding.parameters())
    embedding.load_state_dict(dense.state_dict())
    optimizer.load_state_dict(copy.deepcopy(its_optimizer.state_dict()))
    train(dense, its_optimizer, batches(30, seed=6))
    train(embedding, optimizer, batches(30, seed=6))
    assert optimizer.ways()["parameter 0"].startswith("rows:")
    torch.testing.assert_close(embedding.current_weight(), dense.weight.detach(), rtol=0, atol=1e-5)


def test_a_state_for_another_vocabulary_is_refused(lagging):
    other = TokenEmbedding(V + 1, D, sparse=True)
    with pytest.raises(
        CheckpointError, match=r"`optimiser state of parameter 0` must be \[201, 6\], but is \[200, 6\]"
    ):
        RowwiseAdamW(other.parameters()).load_state_dict(lagging[1].state_dict())


def test_loaded_weights_stand_as_of_now(lagging):
    embedding, _ = lagging
    wanted = torch.randn(V, D)
    embedding.load_state_dict({"weight": wanted})
    assert torch.equal(embedding(torch.arange(V)), wanted)


def test_a_new_optimizer_starts_from_the_caught_up_table(lagging):
    embedding, _ = lagging
    now = embedding.current_weight()
    train(embedding, RowwiseAdamW(embedding.parameters(), lr=0.0, weight_decay=0.0), batches(1))
    torch.testing.assert_close(embedding.current_weight(), now, rtol=0, atol=1e-7)


def test_writing_behind_the_optimizer_is_refused_until_a_flush(lagging):
    embedding, _ = lagging
    with torch.no_grad():
        embedding.weight[3] = 1.0
    with pytest.raises(SettingError, match=r"Call the optimiser's flush\(\) before you write to it"):
        embedding(torch.tensor([3]))


def test_writing_after_a_flush_is_kept(lagging):
    embedding, optimizer = lagging
    optimizer.flush()
    with torch.no_grad():
        embedding.weight[3] = 1.0
    assert torch.equal(embedding(torch.tensor(3)), torch.ones(D))


def test_writing_between_a_lookup_and_its_step_is_kept():
    embedding = table()
    optimizer = RowwiseAdamW(embedding.parameters(), lr=0.0, weight_decay=0.0)
    train(embedding, optimizer, batches(1))
    optimizer.flush()
    embedding(torch.tensor([3])).sum().backward()
    with torch.no_grad():
        embedding.weight[3] = 1.0
    optimizer.step()
    assert torch.equal(embedding(torch.tensor(3)), torch.ones(D))


def test_gradients_of_several_batches_add_up():
    together, one_by_one = table(), table()
    optimizers = [RowwiseAdamW(e.parameters(), lr=0.01) for e in (together, one_by_one)]
    some = list(batches(24))
    for start in range(0, 24, 3):
        three = some[start : start + 3]
        together(torch.cat([ids for ids, _ in three])).backward(torch.cat([gradient for _, gradient in three]))
        for ids, gradient in three:
            one_by_one(ids).backward(gradient)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(one_by_one.current_weight(), together.current_weight(), rtol=0, atol=1e-6)


def test_betas_may_change_on_the_way():
    dense, embedding = nn.Embedding(V, D, _weight=table().weight.detach().clone()), table()
    optimizers = torch.optim.AdamW(dense.parameters(), lr=0.01), RowwiseAdamW(embedding.parameters(), lr=0.01)
    for step, (ids, gradient) in enumerate(batches(60)):
        for some, optimizer in zip((dense, embedding), optimizers, strict=True):
            optimizer.param_groups[0]["betas"] = (0.9 - 0.05 * (step // 20), 0.999)
            train(some, optimizer, [(ids, gradient)])
    torch.testing.assert_close(embedding.current_weight(), dense.weight.detach(), rtol=0, atol=1e-5)


def test_one_optimizer_trains_a_whole_model_like_adamw():
    models, optimizers = [], []
    for kind, sparse in ((torch.optim.AdamW, False), (RowwiseAdamW, True)):
        torch.manual_seed(0)
        models.append(nn.Sequential(TokenEmbedding(V, D, sparse=sparse), nn.LayerNorm(D), nn.Linear(D, V)))
        optimizers.append(kind(models[-1].named_parameters(), lr=0.01, weight_decay=0.1))
    for ids, _ in batches(50):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.roll(-1).flatten()).backward()
            optimizer.step()
    for name, parameter in models[0].state_dict().items():
        torch.testing.assert_close(models[1].state_dict()[name], parameter, rtol=0, atol=2e-5)
    ways = optimizers[1].ways()
    assert ways["0.weight"].startswith("rows: ") and ways["0.weight"].endswith(" of 200")
    assert ways["2.weight"] == "dense"


def test_a_batch_of_most_rows_takes_the_whole_table():
    dense, embedding = nn.Embedding(V, D, _weight=table().weight.detach().clone()), table()
    optimizers = (
        torch.optim.AdamW(dense.parameters(), lr=0.01, fused=True),
        RowwiseAdamW(embedding.parameters(), lr=0.01),
    )
    everything = (torch.arange(V), torch.randn(V, D))
    for some, optimizer in zip((dense, embedding), optimizers, strict=True):
        train(some, optimizer, [*batches(20), everything, *batches(20), everything])
    assert optimizers[1].ways() == {"parameter 0": "whole table: 200 of 200 rows"}
    torch.testing.assert_close(embedding.weight, dense.weight, rtol=0, atol=1e-5)


def test_a_foreign_table_with_sparse_gradients_is_stepped_densely():
    foreign, dense = (nn.Embedding(V, D, _weight=table().weight.detach().clone(), sparse=s) for s in (True, False))
    optimizers = RowwiseAdamW(foreign.parameters(), lr=0.01), torch.optim.AdamW(dense.parameters(), lr=0.01)
    for some, optimizer in zip((foreign, dense), optimizers, strict=True):
        train(some, optimizer, batches(20))
    assert optimizers[0].ways() == {"parameter 0": "dense"}
    torch.testing.assert_close(foreign.weight, dense.weight, rtol=0, atol=1e-6)


def test_a_bfloat16_table_is_stepped_densely():
    embedding = table().bfloat16()
    optimizer = RowwiseAdamW(embedding.parameters(), lr=0.01)
    train(embedding, optimizer, [(ids, gradient.bfloat16()) for ids, gradient in batches(3)])
    assert optimizer.ways() == {"parameter 0": "dense"}


def test_the_gradient_holds_the_rows_of_the_batch_alone():
    embedding = table(padding_idx=5)
    embedding(torch.tensor([[7, 5, 7], [9, 5, 9]])).sum().backward()
    gradient = embedding.weight.grad
    assert gradient.is_sparse and gradient._indices().tolist() == [[5, 7, 9]]
    assert gradient._values()[:, 0].tolist() == [0.0, 2.0, 2.0]


@pytest.mark.parametrize("ids", [torch.zeros(0, 4, dtype=torch.int64), torch.tensor(3), torch.tensor([[1, 1]])])
def test_ids_of_any_shape(ids):
    assert torch.equal(table()(ids), table(sparse=False)(ids))
    assert table()(ids.int()).shape == (*ids.shape, D)


def test_clipping_takes_sparse_gradients_and_dense_ones_together():
    sparse, dense = (nn.Sequential(table(sparse=s), nn.Linear(D, 3)) for s in (True, False))
    dense.load_state_dict(sparse.state_dict())
    for ids, _ in batches(2):  # the second time gradients of another batch are added
        for model in (sparse, dense):
            model(ids).square().sum().backward()
    torch.testing.assert_close(
        clip_grad_norm_(sparse.parameters(), 0.5), nn.utils.clip_grad_norm_(dense.parameters(), 0.5)
    )
    for mine, theirs in zip(sparse.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(mine.grad.to_dense(), theirs.grad)


def test_clipping_adds_up_a_row_that_stands_twice():
    foreign = nn.Embedding(V, D, sparse=True)
    foreign(torch.tensor([4, 4])).sum().backward()
    assert clip_grad_norm_(foreign.weight, 100.0).item() == pytest.approx((D * 2**2) ** 0.5)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_after_clipping_the_gradient_that_was_not_finite_is_still_named(bad):
    model = nn.Sequential(table(), nn.Linear(D, 3))
    optimizer = RowwiseAdamW(model.named_parameters(), lr=0.01)
    model(torch.tensor([[3, 4]])).sum().backward()
    model[1].bias.grad[1] = bad
    before = [parameter.grad.to_dense().clone() for parameter in model.parameters()]
    assert not clip_grad_norm_(model.parameters(), 0.1).isfinite()
    after = [parameter.grad.to_dense() for parameter in model.parameters()]
    assert all(torch.equal(a.nan_to_num(9), b.nan_to_num(9)) for a, b in zip(after, before, strict=True))
    with pytest.raises(SettingError, match=r"`gradient of 1.bias at step 1` must be finite"):
        optimizer.step()


def test_clipping_takes_gradients_whose_squares_are_beyond_float32():
    layer = nn.Linear(2, 2)
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, 1e30)
    assert clip_grad_norm_(layer.parameters(), 1.0).item() == pytest.approx(6**0.5 * 1e30)
    assert clip_grad_norm_(layer.parameters(), 9.0).item() == pytest.approx(1.0)


def test_a_large_gradient_whose_sum_overflows_is_finite():
    layer = nn.Linear(2, 2)
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, 2e38)
    RowwiseAdamW(layer.parameters()).step()


def test_two_parameters_of_one_name_are_told_apart():
    embedding, head = table(), nn.Linear(D, 3)
    optimizer = RowwiseAdamW([*embedding.named_parameters(), *head.named_parameters()])
    head(embedding(torch.tensor([3, 4]))).sum().backward()
    optimizer.step()
    assert optimizer.ways() == {"weight": "rows: 2 of 200", "weight (parameter 1)": "dense", "bias": "dense"}


def test_a_gradient_that_is_not_finite_changes_nothing():
    model = nn.Sequential(table(), nn.Linear(D, 3))
    optimizer = RowwiseAdamW(model.named_parameters(), lr=0.01)
    ids, _ = next(iter(batches(1)))
    model(ids).sum().backward()
    optimizer.step()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model[1].bias.grad[1] = float("nan")
    with pytest.raises(SettingError, match=r"`gradient of 1.bias at step 2` must be finite") as caught:
        optimizer.step()
    assert "no parameter was changed" in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
def test_a_row_gradient_that_is_not_finite_is_named(bad):
    embedding = table()
    optimizer = RowwiseAdamW(embedding.parameters())
    embedding(torch.tensor([3])).sum().backward()
    embedding.weight.grad._values()[0, 2] = bad
    with pytest.raises(SettingError, match="`gradient of parameter 0 at step 1` must be finite"):
        optimizer.step()


def test_a_tied_table_is_refused():
    embedding, head = table(), nn.Linear(D, V, bias=False)
    head.weight = embedding.weight
    optimizer = RowwiseAdamW(embedding.parameters())
    head(embedding(torch.tensor([1, 2]))).sum().backward()
    with pytest.raises(SettingError, match=r"must be sparse, .* but is 'dense'. Untie .* or make it with sparse=False"):
        optimizer.step()


def test_a_tied_table_with_dense_gradients_is_stepped_densely():
    embedding, head = table(sparse=False), nn.Linear(D, V, bias=False)
    head.weight = embedding.weight
    optimizer = RowwiseAdamW(embedding.parameters())
    head(embedding(torch.tensor([1, 2]))).sum().backward()
    optimizer.step()
    assert optimizer.ways() == {"parameter 0": "dense"}


def test_a_table_whose_rows_lag_must_stay_sparse(lagging):
    embedding, optimizer = lagging
    embedding.sparse = False
    with pytest.raises(SettingError, match=r"`sparse` must stay True while rows lag"):
        embedding(torch.tensor([1]))
    optimizer.flush()
    train(embedding, optimizer, batches(2))
    assert optimizer.ways() == {"parameter 0": "dense"}
    embedding.sparse = True
    train(embedding, optimizer, batches(2))
    assert optimizer.ways()["parameter 0"].startswith("rows:")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "`lr` must be a number of at least 0"),
        ({"eps": float("nan")}, "`eps` must be a number of at least 0"),
        ({"weight_decay": -0.1}, "`weight_decay` must be a number of at least 0"),
        ({"betas": (1.0, 0.999)}, r"`betas` must lie in \[0, 1\)"),
        ({"betas": (0.9999, 0.99999)}, "`betas` must let a gradient count for at most 65,536 steps"),
        ({"betas": (0.99, 0.98)}, "`betas` must have the second at least as large as the first"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(SettingError, match=message):
        RowwiseAdamW(table().parameters(), **settings)


def test_weight_decay_of_a_whole_step_is_refused():
    embedding = table()
    optimizer = RowwiseAdamW(embedding.parameters(), lr=10.0, weight_decay=0.1)
    with pytest.raises(SettingError, match=r"`lr \* weight_decay` must be below 1"):
        train(embedding, optimizer, batches(1))


@pytest.mark.parametrize("option", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}])
def test_options_that_do_not_go_with_sparse(option):
    with pytest.raises(SettingError, match=f"`{next(iter(option))}` must be left out with sparse=True"):
        table(**option)


def test_a_gradient_scaler_unscales_rows_too():
    plain, scaled = table(), table()
    optimizers = [RowwiseAdamW(e.parameters(), lr=0.01) for e in (plain, scaled)]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    for ids, gradient in batches(10):
        train(plain, optimizers[0], [(ids, gradient)])
        optimizers[1].zero_grad()
        scaler.scale((scaled(ids) * gradient).sum()).backward()
        scaler.step(optimizers[1])
        scaler.update()
    torch.testing.assert_close(scaled.current_weight(), plain.current_weight(), rtol=0, atol=1e-6)


def test_step_hooks_and_a_closure_are_called_once():
    embedding, calls = table(), []
    optimizer = RowwiseAdamW(embedding.parameters())
    optimizer.register_step_post_hook(lambda *_: calls.append("hook"))

    def closure():
        calls.append("closure")
        loss = embedding(torch.tensor([1])).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).requires_grad
    assert calls == ["closure", "hook"]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, compiling
def test_a_compiled_model_leaves_the_lookup_out():
    plain, compiled = (nn.Sequential(table(), nn.Linear(D, 3)) for _ in range(2))
    compiled.load_state_dict(plain.state_dict())
    optimizers = [RowwiseAdamW(m.parameters(), lr=0.01) for m in (plain, compiled)]
    run = torch.compile(compiled, backend="aot_eager")
    for ids, _ in batches(6):
        for forward, optimizer in zip((plain, run), optimizers, strict=True):
            optimizer.zero_grad()
            forward(ids).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(compiled[0].current_weight(), plain[0].current_weight())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_as_on_the_cpu():
    here, there = table(), table().cuda()
    optimizers = [RowwiseAdamW(e.parameters(), lr=0.01, weight_decay=0.1) for e in (here, there)]
    some = list(batches(300))
    train(here, optimizers[0], some)
    train(there, optimizers[1], [(ids.cuda(), gradient.cuda()) for ids, gradient in some])
    torch.testing.assert_close(there.current_weight().cpu(), here.current_weight(), rtol=0, atol=1e-5)


class TestFrozenRows:
    """`freeze`, `train_only` and learning-rate factors, by rows and dense."""

    @pytest.mark.parametrize("sparse", [True, False])
    def test_frozen_rows_keep_every_bit(self, sparse):
        embedding = table(sparse=sparse)
        with torch.no_grad():
            embedding.weight[2] = -0.0
        optimizer = RowwiseAdamW(embedding.parameters(), lr=0.01, weight_decay=0.1)
        train(embedding, optimizer, batches(20))
        embedding.freeze([0, 1, 2, 50])
        optimizer.flush()
        before = embedding.weight.detach().clone()
        train(embedding, optimizer, batches(300, seed=8))
        after = embedding.current_weight()
        frozen = torch.tensor([0, 1, 2, 50])
        assert torch.equal(after[frozen].view(torch.int32), before[frozen].view(torch.int32))
        assert (after != before).any(dim=1).sum() == V - 4

    @pytest.mark.parametrize("sparse", [True, False])
    def test_train_only_freezes_the_others(self, sparse):
        embedding = table(sparse=sparse)
        before = embedding.weight.detach().clone()
        embedding.train_only(torch.tensor([3, 4]))
        train(embedding, RowwiseAdamW(embedding.parameters(), lr=0.01, weight_decay=0.1), batches(60))
        moved = (embedding.current_weight() != before).any(dim=1)
        assert moved.nonzero().flatten().tolist() == [3, 4]

    @pytest.mark.parametrize("sparse", [True, False])
    def test_a_factor_is_a_learning_rate_of_ones_own(self, sparse):
        """As if those rows had been trained by an AdamW of another rate."""
        embedding = table(sparse=sparse)
        embedding.scale_learning_rate(range(10), 0.25)
        train(embedding, RowwiseAdamW(embedding.parameters(), lr=0.01, weight_decay=0.1), batches(80))
        for rows, rate in ((slice(0, 10), 0.0025), (slice(10, V), 0.01)):
            dense = nn.Embedding(V, D, _weight=table().weight.detach().clone())
            train(dense, torch.optim.AdamW(dense.parameters(), lr=rate, weight_decay=0.1), batches(80))
            torch.testing.assert_close(embedding.current_weight()[rows], dense.weight[rows], rtol=0, atol=1e-5)

    def test_rows_freed_again_move_on(self, lagging):
        embedding, optimizer = lagging
        embedding.freeze([0, 1])
        train(embedding, optimizer, batches(20, seed=5))
        frozen = embedding.current_weight(slice(0, 2))
        embedding.scale_learning_rate([0, 1], 1.0)
        assert torch.equal(embedding.current_weight(slice(0, 2)), frozen)
        train(embedding, optimizer, batches(20, seed=6))
        assert (embedding.current_weight(slice(0, 2)) != frozen).all(dim=1).all()

    def test_freezing_on_the_way_leaves_the_others_alone(self):
        some_frozen, none_frozen = table(), table()
        for embedding in (some_frozen, none_frozen):
            optimizer = RowwiseAdamW(embedding.parameters(), lr=0.01, weight_decay=0.1)
            train(embedding, optimizer, batches(40))
            if embedding is some_frozen:
                embedding.freeze([0, 150])
            train(embedding, optimizer, batches(40, seed=4))
        others = [row for row in range(V) if row not in (0, 150)]
        after = some_frozen.current_weight()[others], none_frozen.current_weight()[others]
        torch.testing.assert_close(*after, rtol=0, atol=1e-6)

    def test_a_state_with_frozen_rows_restores_bit_for_bit(self, lagging):
        embedding, optimizer = lagging
        embedding.freeze([0, 1])
        train(embedding, optimizer, batches(20, seed=5))
        other = table(seed=9)  # knows nothing of frozen rows
        its_optimizer = RowwiseAdamW(other.parameters())
        other.load_state_dict(embedding.state_dict())
        its_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        train(embedding, optimizer, batches(20, seed=6))
        train(other, its_optimizer, batches(20, seed=6))
        assert torch.equal(other.weight, embedding.weight)

    def test_frozen_rows_get_no_gradient_under_any_optimizer(self):
        for sparse in (True, False):
            embedding = table(sparse=sparse)
            embedding.freeze([3])
            embedding(torch.tensor([3, 4])).sum().backward()
            assert embedding.weight.grad.to_dense()[:, 0].nonzero().flatten().tolist() == [4]

    def test_a_copy_stays_frozen(self):
        embedding = table(sparse=False)
        embedding.freeze([3])
        other = copy.deepcopy(embedding)
        before = other.weight.detach().clone()
        train(
            other, RowwiseAdamW(other.parameters(), weight_decay=0.1), [(torch.tensor([[3, 4]]), torch.ones(1, 2, D))]
        )
        assert torch.equal(other.weight[3], before[3]) and not torch.equal(other.weight[4], before[4])

    @pytest.mark.parametrize("assign", [True, False])
    @pytest.mark.parametrize("sparse", [True, False])
    def test_loading_weights_frees_no_row(self, sparse, assign):
        embedding = table(sparse=sparse)
        embedding.freeze([3])
        embedding.load_state_dict(copy.deepcopy(table(seed=2).state_dict()), assign=assign)
        loaded = embedding.weight.detach().clone()
        train(embedding, RowwiseAdamW(embedding.parameters(), weight_decay=0.1), batches(60))
        moved = (embedding.current_weight() != loaded).any(dim=1)
        assert moved.logical_not().nonzero().flatten().tolist() == [3]

    @pytest.mark.parametrize("sparse", [True, False])
    def test_loading_an_optimizer_frees_no_row(self, sparse):
        embedding = table(sparse=sparse)
        optimizer = RowwiseAdamW(embedding.parameters(), lr=0.01, weight_decay=0.1)
        embedding.freeze([0])
        embedding.scale_learning_rate([1, 2], 0.5)
        train(embedding, optimizer, batches(20))
        weights, state = copy.deepcopy((embedding.state_dict(), optimizer.state_dict()))
        embedding.freeze([1, 3])
        embedding.load_state_dict(weights)
        optimizer.load_state_dict(state)
        train(embedding, optimizer, batches(60, seed=4))
        unmoved = (embedding.current_weight() == weights["weight"]).all(dim=1)
        assert unmoved.nonzero().flatten().tolist() == [0, 1, 3]

    @pytest.mark.parametrize("steps", [0, 20])
    @pytest.mark.parametrize("sparse", [True, False])
    def test_the_state_of_an_optimizer_knows_frozen_rows(self, sparse, steps):
        embedding = table(sparse=sparse)
        optimizer = RowwiseAdamW(embedding.parameters(), lr=0.01, weight_decay=0.1)
        embedding.freeze([0, 1])
        train(embedding, optimizer, batches(steps))
        other = table(seed=9, sparse=sparse)
        its_optimizer = RowwiseAdamW(other.parameters(), lr=0.01, weight_decay=0.1)
        other.load_state_dict(embedding.state_dict())
        its_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for one, its in ((embedding, optimizer), (other, its_optimizer)):
            train(one, its, batches(20, seed=6))
        assert torch.equal(other.weight, embedding.weight)
        assert torch.equal(other.weight[:2], table().weight[:2])

    @pytest.mark.parametrize("sparse", [True, False])
    def test_a_frozen_row_stays_so_in_a_weight_put_in_its_place(self, sparse):
        embedding = table(sparse=sparse)
        embedding.freeze([3])
        embedding.weight = nn.Parameter(torch.ones(V, D))
        train(embedding, RowwiseAdamW(embedding.parameters()), batches(60))
        assert (embedding.current_weight() == 1).all(dim=1).nonzero().flatten().tolist() == [3]

    def test_a_table_of_other_rows_in_the_place_of_one_with_frozen_rows_is_refused(self):
        embedding = table(sparse=False)
        embedding.freeze([3])
        embedding.weight = nn.Parameter(torch.ones(V + 1, D))
        with pytest.raises(SettingError, match=r"must keep its 200 rows, but is 201\. Use tokenspace.vocabulary"):
            embedding(torch.tensor([1]))

    @pytest.mark.parametrize("sparse", [True, False])
    def test_a_state_comes_back_from_torch_adamw(self, sparse):
        """Which makes floats of all that it holds: the lagging rows are then no longer of its step."""
        embedding, dense = table(sparse=sparse), nn.Embedding(V, D)
        optimizer = RowwiseAdamW(embedding.parameters(), lr=0.01, weight_decay=0.1)
        embedding.freeze([199])
        train(embedding, optimizer, batches(20))
        optimizer.flush()
        dense.load_state_dict(embedding.state_dict())
        its_optimizer = torch.optim.AdamW(dense.parameters())
        its_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        train(dense, its_optimizer, batches(20, seed=4))
        embedding.load_state_dict(dense.state_dict())
        optimizer.load_state_dict(copy.deepcopy(its_optimizer.state_dict()))
        before = embedding.current_weight(torch.tensor([199]))
        for one, its in ((embedding, optimizer), (dense, its_optimizer)):
            train(one, its, batches(20, seed=6))
        torch.testing.assert_close(embedding.current_weight()[:199], dense.weight[:199], rtol=0, atol=1e-5)
        assert torch.equal(embedding.current_weight(torch.tensor([199])), before)

    def test_rows_of_a_table_without_weights_cannot_be_frozen(self):
        with pytest.raises(SettingError, match=r"`token table` must be there .* but is \"on 'meta'\""):
            TokenEmbedding(V, D, device="meta").freeze([1])

    @pytest.mark.parametrize("rows", [[3, V], [-1], torch.ones(V, dtype=torch.bool)])
    def test_train_only_with_rows_that_are_none_changes_nothing(self, rows):
        embedding = table(sparse=False)
        with pytest.raises(ShapeError, match="`rows` must"):
            embedding.train_only(rows)
        embedding(torch.arange(V)).sum().backward()
        assert (embedding.weight.grad == 1).all()

    def test_a_mask_of_rows_is_refused_with_a_way_that_works(self):
        embedding, mask = table(), torch.arange(V) > 190
        with pytest.raises(ShapeError, match=r"`rows` must be whole numbers, but is torch.bool. Use rows.nonzero\(\)"):
            embedding.freeze(mask)
        embedding.freeze(mask.nonzero())
        embedding(torch.arange(V)).sum().backward()
        assert torch.equal((embedding.weight.grad.to_dense() == 0).all(dim=1), mask)

    @pytest.mark.parametrize("rows", [[V], [-1], torch.tensor([0.5]), 1j, "a", None, ["a"], [[1, 2], [3]], {1, 2}])
    def test_rows_that_are_none_are_refused(self, rows):
        with pytest.raises(ShapeError, match="`rows` must"):
            table().freeze(rows)

    @pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64])
    def test_ids_as_tokenizers_and_corpora_give_them_are_rows(self, dtype):
        embedding = table()
        embedding.freeze(np.array([3, 199], dtype))
        embedding(torch.arange(V)).sum().backward()
        frozen = (embedding.weight.grad.to_dense() == 0).all(dim=1)
        assert frozen.nonzero().flatten().tolist() == [3, 199]

    @pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf"), "a", None])
    def test_a_factor_that_is_none_is_refused(self, factor):
        with pytest.raises(SettingError, match="`factor` must be a number of at least 0"):
            table().scale_learning_rate([1], factor)

    def test_too_many_factors_are_refused(self):
        embedding = table()
        with pytest.raises(SettingError, match="must be at most 16 different ones"):
            for row in range(20):
                embedding.scale_learning_rate([row], 2.0 + row)

    @pytest.mark.parametrize("sparse", [True, False])
    def test_a_state_with_too_many_factors_is_refused_before_anything_is_changed(self, sparse):
        pairs = []
        for first in (0, 20):
            embedding = table(sparse=sparse)
            for row in range(first, first + 10):
                embedding.scale_learning_rate([row], 2.0 + row)
            optimizer = RowwiseAdamW(embedding.parameters(), lr=0.001)
            train(embedding, optimizer, batches(20, seed=first))
            pairs.append((embedding, optimizer))
        (embedding, optimizer), (_, other) = pairs
        before = copy.deepcopy((embedding.weight.detach(), optimizer.state_dict()))
        state = other.state_dict()
        state["param_groups"][0]["lr"] = 0.5
        with pytest.raises(SettingError, match="must be at most 16 different ones, but is 21"):
            optimizer.load_state_dict(state)
        torch.testing.assert_close((embedding.weight.detach(), optimizer.state_dict()), before, rtol=0, atol=0)
        train(embedding, optimizer, batches(2))
