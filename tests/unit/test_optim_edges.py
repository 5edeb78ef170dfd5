"""RowwiseAdamW where tables are moved, replaced, shared, averaged, compiled; where states come from elsewhere."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from tokenspace import RowwiseAdamW, TokenEmbedding
from tokenspace.errors import CheckpointError, SettingError

V, D = 200, 6
EVERYTHING = torch.arange(V)
SETTINGS = {"lr": 0.01, "weight_decay": 0.1}


def batches(number, seed=3):
    """Ids, most of them small, and gradients of the size that language models have."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(number):
        ids = torch.randint(0, V, (2, 4), generator=generator) ** 2 // V
        yield ids, torch.randn(2, 4, D, generator=generator).double() * 1e-4


def train(embedding, optimizer, some):
    for ids, gradient in some:
        optimizer.zero_grad()
        embedding(ids).backward(gradient.to(embedding.weight.dtype))
        optimizer.step()


class Pair:
    """A float64 table stepped by rows, and the same stepped by torch's AdamW."""

    def __init__(self):
        torch.manual_seed(1)
        first = torch.randn(V, D).double()
        self.rowwise = TokenEmbedding(V, D, sparse=True, _weight=first.clone())
        self.dense = nn.Embedding(V, D, _weight=first.clone())
        self.optimizer = RowwiseAdamW(self.rowwise.parameters(), **SETTINGS)
        self.dense_optimizer = torch.optim.AdamW(self.dense.parameters(), **SETTINGS)

    @property
    def sides(self):
        return (self.rowwise, self.optimizer), (self.dense, self.dense_optimizer)

    def train(self, number, seed=3):
        for embedding, optimizer in self.sides:
            train(embedding, optimizer, batches(number, seed))
        return self

    def assert_together(self, table=None):
        table = self.rowwise.current_weight() if table is None else table.detach()
        torch.testing.assert_close(table.double(), self.dense.weight.detach(), rtol=0, atol=3e-6)


@pytest.fixture
def pair():
    """Both sides after some steps; rows of one lag."""
    pair = Pair().train(60)
    assert (pair.rowwise.weight - pair.dense.weight).abs().max() > 0.1
    return pair


def fresh(sparse=True):
    embedding = TokenEmbedding(V, D, sparse=sparse).double()
    return embedding, RowwiseAdamW(embedding.parameters())


class TestStates:
    """`state_dict` and `load_state_dict`."""

    def test_its_own_state_can_be_loaded_at_once(self, pair):
        pair.optimizer.load_state_dict(pair.optimizer.state_dict())
        pair.assert_together()
        pair.train(30, seed=4).assert_together()

    def test_two_optimizers_do_not_share_a_state(self, pair):
        other, its_optimizer = fresh()
        other.load_state_dict(pair.rowwise.state_dict())
        its_optimizer.load_state_dict(pair.optimizer.state_dict())  # not copied
        train(other, its_optimizer, batches(30, seed=9))
        pair.train(30, seed=4).assert_together()

    def test_the_model_may_be_loaded_after_the_optimizer(self, pair):
        other, its_optimizer = fresh()
        its_optimizer.load_state_dict(copy.deepcopy(pair.optimizer.state_dict()))
        other.load_state_dict(pair.rowwise.state_dict())
        pair.rowwise, pair.optimizer = other, its_optimizer
        pair.train(30, seed=4).assert_together()

    @pytest.mark.parametrize("setting", [{"betas": (0.95, 0.99)}, {"eps": 1e-4}])
    def test_what_a_scheduler_sets_before_saving_counts_from_the_next_step_on(self, pair, setting):
        for _, optimizer in pair.sides:
            optimizer.param_groups[0].update(setting)
        other, its_optimizer = fresh()
        other.load_state_dict(pair.rowwise.state_dict())
        its_optimizer.load_state_dict(copy.deepcopy(pair.optimizer.state_dict()))
        pair.assert_together(other.current_weight())
        pair.rowwise, pair.optimizer = other, its_optimizer
        pair.train(30, seed=4).assert_together()

    def test_a_table_made_sparse_later_restores_bit_for_bit(self, pair):
        other, its_optimizer = fresh(sparse=False)
        other.sparse = True
        other.load_state_dict(pair.rowwise.state_dict())
        its_optimizer.load_state_dict(copy.deepcopy(pair.optimizer.state_dict()))
        assert torch.equal(other.weight, pair.rowwise.weight)

    @pytest.mark.parametrize("kind", [TokenEmbedding, nn.Embedding])
    def test_a_state_with_lagging_rows_goes_into_a_dense_table(self, pair, kind):
        other = kind(V, D).double()
        its_optimizer = RowwiseAdamW(other.parameters())
        other.load_state_dict(pair.rowwise.state_dict())
        its_optimizer.load_state_dict(copy.deepcopy(pair.optimizer.state_dict()))
        pair.assert_together(other(EVERYTHING))
        pair.rowwise, pair.optimizer = other, its_optimizer
        pair.train(30, seed=4).assert_together(other.weight)
        assert its_optimizer.ways() == {"parameter 0": "dense"}

    @pytest.mark.parametrize(("dtype", "atol"), [(torch.bfloat16, 0.05), (torch.float32, 1e-5)])
    def test_a_state_goes_into_a_table_of_another_type(self, pair, dtype, atol):
        other = TokenEmbedding(V, D, sparse=True, dtype=dtype)
        its_optimizer = RowwiseAdamW(other.parameters())
        other.load_state_dict(pair.rowwise.state_dict())
        its_optimizer.load_state_dict(copy.deepcopy(pair.optimizer.state_dict()))
        torch.testing.assert_close(other(EVERYTHING).double(), pair.dense(EVERYTHING), rtol=0, atol=atol)

    def test_moments_that_lag_alone_are_flushed_after_loading(self):
        pair = Pair()
        for embedding, optimizer in pair.sides:
            optimizer.param_groups[0]["weight_decay"] = 0.0
            train(embedding, optimizer, batches(20))
            train(embedding, optimizer, [(torch.tensor([[150]]), torch.full((1, 1, D), 1e-4).double())] * 300)
        other, its_optimizer = fresh()
        other.load_state_dict(pair.rowwise.state_dict())
        its_optimizer.load_state_dict(copy.deepcopy(pair.optimizer.state_dict()))
        its_optimizer.flush()
        mine, theirs = its_optimizer.state_dict()["state"][0], pair.dense_optimizer.state_dict()["state"][0]
        torch.testing.assert_close(mine["exp_avg_sq"], theirs["exp_avg_sq"], rtol=1e-9, atol=0)

    def test_a_flushed_state_goes_into_torch_adamw(self, pair):
        pair.optimizer.flush()
        other = nn.Embedding(V, D).double()
        its_optimizer = torch.optim.AdamW(other.parameters())
        other.load_state_dict(pair.rowwise.state_dict())
        its_optimizer.load_state_dict(copy.deepcopy(pair.optimizer.state_dict()))
        pair.rowwise, pair.optimizer = other, its_optimizer
        pair.train(30, seed=4).assert_together(other.weight)

    @pytest.mark.parametrize("variant", ["amsgrad", "maximize"])
    def test_the_state_of_a_variant_is_refused(self, variant):
        layer = nn.Linear(2, 2)
        state = torch.optim.AdamW(layer.parameters(), **{variant: True}).state_dict()
        with pytest.raises(SettingError, match=f"`{variant}` must be left out with RowwiseAdamW, but is True"):
            RowwiseAdamW(layer.parameters()).load_state_dict(state)

    def test_a_group_that_asks_for_a_variant_is_refused(self):
        with pytest.raises(SettingError, match="`maximize` must be left out"):
            RowwiseAdamW([{"params": nn.Linear(2, 2).parameters(), "maximize": True}])

    def test_the_state_of_another_optimizer_is_refused(self):
        layer = nn.Linear(2, 2)
        sgd = torch.optim.SGD(layer.parameters(), momentum=0.9)  # has no state before its first step
        with pytest.raises(CheckpointError, match="must be that of AdamW, but is 'without betas, eps'"):
            RowwiseAdamW(layer.parameters()).load_state_dict(sgd.state_dict())
        adamax = torch.optim.Adamax(layer.parameters())
        layer(torch.ones(2)).sum().backward()
        adamax.step()
        with pytest.raises(CheckpointError, match="must be that of AdamW, but is 'that of step, exp_avg, exp_inf'"):
            RowwiseAdamW(layer.parameters()).load_state_dict(adamax.state_dict())

    def test_a_state_of_more_parameters_is_refused_as_torch_does(self):
        model = nn.Linear(2, 2)
        optimizer = RowwiseAdamW(model.parameters())
        model(torch.ones(2)).sum().backward()
        optimizer.step()
        with pytest.raises(ValueError, match="doesn't match the size"):
            RowwiseAdamW([model.weight]).load_state_dict(optimizer.state_dict())


class TestTables:
    """Tables that are written, moved, replaced, shared or averaged on the way."""

    @pytest.mark.parametrize(("dtype", "atol"), [(torch.float16, 2e-3), (torch.float32, 1e-5)])
    def test_a_copy_of_another_type_is_caught_up(self, pair, dtype, atol):
        copied = copy.deepcopy(pair.rowwise).to(dtype)
        torch.testing.assert_close(copied(EVERYTHING).double(), pair.dense(EVERYTHING), rtol=0, atol=atol)

    def test_moving_to_where_it_is_changes_no_bit(self, pair):
        before = pair.rowwise.weight.detach().clone()
        pair.rowwise.to("cpu", torch.float64)
        assert torch.equal(pair.rowwise.weight, before)

    @pytest.mark.parametrize("assign", [True, False])
    def test_loaded_weights_replace_lagging_ones(self, pair, assign):
        wanted = torch.randn(V, D).double()
        pair.rowwise.load_state_dict({"weight": wanted}, assign=assign)
        assert torch.equal(pair.rowwise(EVERYTHING), wanted)

    def test_loading_mends_what_others_wrote(self, pair):
        with torch.no_grad():
            pair.rowwise.weight[3] = 1.0
        for embedding, _ in pair.sides:
            embedding.load_state_dict({"weight": torch.ones(V, D).double()})
        pair.train(30, seed=4).assert_together()

    def test_a_table_drawn_anew_keeps_the_draw(self, pair):
        pair.rowwise.reset_parameters()
        assert torch.equal(pair.rowwise(EVERYTHING), pair.rowwise.weight)

    def test_a_weight_may_be_replaced_after_a_flush(self, pair):
        pair.optimizer.flush()
        pair.rowwise.weight = nn.Parameter(torch.ones(V, D).double())
        assert torch.equal(pair.rowwise(torch.tensor(3)), torch.ones(D).double())

    def test_a_weight_replaced_while_rows_lag_is_refused(self, pair):
        pair.rowwise.weight = nn.Parameter(pair.rowwise.weight.detach().clone())
        with pytest.raises(SettingError, match=r"must stay the same, .* call the optimiser's flush\(\) before"):
            pair.rowwise(torch.tensor(3))

    def test_a_write_between_backward_and_step_stops_the_whole_step(self, pair):
        layer = nn.Linear(D, 2).double()
        optimizer = RowwiseAdamW([{"params": layer.parameters()}, {"params": pair.rowwise.weight}], **SETTINGS)
        for _ in range(2):
            layer(pair.rowwise(torch.tensor([1]))).sum().backward()
            optimizer.step()
        before = layer.weight.detach().clone()
        with torch.no_grad():
            pair.rowwise.weight[3] = 1.0
        with pytest.raises(SettingError, match="must be written by its optimiser alone"):
            optimizer.step()
        assert torch.equal(layer.weight, before)

    def test_writing_to_a_lagging_copy_is_refused(self, pair):
        averaged = AveragedModel(pair.rowwise)
        averaged.update_parameters(pair.rowwise)
        with pytest.raises(SettingError, match="must be written by its optimiser alone"):
            averaged(torch.tensor([3]))

    def test_an_average_of_flushed_tables_is_right(self):
        pair = Pair()
        averages = [AveragedModel(embedding) for embedding, _ in pair.sides]
        for seed in range(10):
            pair.train(5, seed).optimizer.flush()
            for average, (embedding, _) in zip(averages, pair.sides, strict=True):
                average.update_parameters(embedding)
        torch.testing.assert_close(averages[0](EVERYTHING), averages[1](EVERYTHING), rtol=0, atol=1e-6)

    def test_a_dense_reader_of_a_lagging_weight_is_refused(self, pair):
        reader = TokenEmbedding(V, D)
        reader.weight = pair.rowwise.weight
        with pytest.raises(SettingError, match="`sparse` must stay True while rows lag"):
            reader(torch.tensor([3]))

    def test_one_weight_in_two_tables(self):
        pair = Pair()
        seconds = TokenEmbedding(V, D, sparse=True), nn.Embedding(V, D)
        for second, (first, optimizer) in zip(seconds, pair.sides, strict=True):
            second.weight = first.weight
            for ids, gradient in batches(60):
                optimizer.zero_grad()
                (first(ids) + second(ids.flip(1))).backward(gradient)
                optimizer.step()
        pair.assert_together()
        pair.assert_together(seconds[0](EVERYTHING))

    @pytest.mark.parametrize("sparse", [True, False])
    def test_a_frozen_table_is_let_go(self, sparse):
        embedding = TokenEmbedding(V, D, sparse=sparse)
        embedding.freeze([1])
        embedding(torch.tensor([1, 2])).sum().backward()
        weight = weakref.ref(embedding.weight)
        del embedding
        gc.collect()
        assert weight() is None

    @pytest.mark.parametrize("sparse", [True, False])
    def test_rows_frozen_before_the_table_changes_type_stay_frozen(self, sparse):
        embedding = TokenEmbedding(V, D, sparse=sparse)
        embedding.freeze([1])
        embedding.double()
        before = embedding.weight.detach().clone()
        train(embedding, RowwiseAdamW(embedding.parameters(), **SETTINGS), batches(20))
        assert torch.equal(embedding.current_weight(torch.tensor([1])), before[1:2])

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    @pytest.mark.parametrize("sparse", [True, False])
    def test_rows_frozen_before_the_table_moves_stay_frozen(self, sparse):
        embedding = TokenEmbedding(V, D, sparse=sparse)
        embedding.freeze([1])
        embedding.cuda().freeze([2])
        before = embedding.weight.detach().clone()
        embedding(torch.tensor([1, 2, 3]).cuda()).sum().backward()
        RowwiseAdamW(embedding.parameters(), **SETTINGS).step()
        assert (embedding.weight != before).any(dim=1)[:4].tolist() == [not sparse, False, False, True]


class TestLoops:
    """Training loops of other shapes."""

    @pytest.mark.parametrize("use_reentrant", [True, False])
    def test_activation_checkpointing(self, use_reentrant):
        pair, one = Pair(), torch.ones(1, requires_grad=True)
        for embedding, optimizer in pair.sides:
            for ids, gradient in batches(60):
                optimizer.zero_grad()
                found = checkpoint(lambda ids, x, e=embedding: e(ids) * x, ids, one, use_reentrant=use_reentrant)
                found.backward(gradient)
                optimizer.step()
        pair.assert_together()

    def test_gradients_that_are_set_to_zero_count_as_gradients(self):
        """As in AdamW: a table whose gradient is zero still moves, one whose gradient is None does not."""
        pair = Pair()
        for embedding, optimizer in pair.sides:
            for step, (ids, gradient) in enumerate(batches(60)):
                if step % 3 == 0:
                    embedding(ids).backward(gradient)
                optimizer.step()
                optimizer.zero_grad(set_to_none=step % 2 == 0)
        pair.assert_together()

    def test_empty_batches_are_steps(self):
        pair = Pair()
        for embedding, optimizer in pair.sides:
            for ids, gradient in batches(60):
                train(embedding, optimizer, [(ids, gradient), (ids[:0], gradient[:0])])
        pair.assert_together()

    @pytest.mark.parametrize("name", ["OneCycleLR", "CosineAnnealingWarmRestarts"])
    def test_schedulers(self, name):
        pair = Pair()
        settings = {"max_lr": 0.02, "total_steps": 61} if name == "OneCycleLR" else {"T_0": 20}
        for embedding, optimizer in pair.sides:
            scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **settings)
            for batch in batches(60):
                train(embedding, optimizer, [batch])
                scheduler.step()
        pair.assert_together()

    def test_tables_of_one_row_or_one_column(self):
        for shape in ((1, 1), (1, 3), (40, 1)):
            first = torch.randn(shape).double()
            embeddings = TokenEmbedding(*shape, sparse=True, _weight=first), nn.Embedding(*shape, _weight=first.clone())
            for kind, embedding in zip((RowwiseAdamW, torch.optim.AdamW), embeddings, strict=True):
                train(embedding, kind(embedding.parameters()), [(torch.tensor([0]), torch.ones(1, shape[1]))] * 9)
            torch.testing.assert_close(embeddings[0].current_weight(), embeddings[1].weight.detach())

    @pytest.mark.filterwarnings("ignore")  # torch's own, compiling
    def test_a_compiled_step_is_left_out_of_the_graphs(self):
        pair, graphs = Pair(), []
        step = torch.compile(pair.optimizer.step, backend=lambda graph, _: graphs.append(graph) or graph)
        for batch in batches(20):
            train(pair.dense, pair.dense_optimizer, [batch])
            pair.optimizer.zero_grad()
            pair.rowwise(batch[0]).backward(batch[1])
            step()
        pair.assert_together()
        assert not graphs

    def test_the_default_device_does_not_matter(self):
        pair, some = Pair(), list(batches(60))
        with torch.device("meta"):
            for embedding, optimizer in pair.sides:
                train(embedding, optimizer, some)
        pair.assert_together()

    def test_the_default_type_does_not_matter(self):
        tables = [TokenEmbedding(V, D, sparse=True, _weight=torch.ones(V, D)) for _ in range(2)]
        for table, dtype in zip(tables, (torch.float32, torch.bfloat16), strict=True):
            optimizer = RowwiseAdamW(table.parameters(), **SETTINGS)
            some = list(batches(600))  # steps from 257 on have no bfloat16 of their own
            torch.set_default_dtype(dtype)
            try:
                train(table, optimizer, some)
            finally:
                torch.set_default_dtype(torch.float32)
        assert torch.equal(tables[0].weight, tables[1].weight)

    def test_complex_parameters_go_the_dense_way(self):
        parameter = nn.Parameter(torch.ones(3, dtype=torch.complex64))
        optimizer = RowwiseAdamW([parameter])
        parameter.abs().sum().backward()
        optimizer.step()
        assert optimizer.ways() == {"parameter 0": "dense"}
        parameter.grad[1] = complex(0.0, float("nan"))
        with pytest.raises(SettingError, match="must be finite"):
            optimizer.step()
