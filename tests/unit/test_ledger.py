"""The ledger: what it counts and measures, that it changes nothing, and that it goes on exactly."""

import copy
import gc
import itertools
import math
import pickle
import re
import weakref

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

from tokenspace import LanguageModel, Ledger, RowwiseAdamW, TokenEmbedding
from tokenspace.errors import CheckpointError, SettingError, ShapeError
from tokenspace.ledger import STATES, LedgerRecord


def states(ledger):
    return [STATES[state] for state in ledger.record().states]


def train(table, optimizer, batches, ledger=None, targets=()):
    for ids in batches:
        table(torch.tensor(ids)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if ledger:
            ledger.step(*targets)


# What is counted


def test_inputs_and_targets_are_counted_each_as_often_as_they_occur():
    table = nn.Embedding(4, 2)
    ledger = Ledger(table)
    train(table, torch.optim.SGD(table.parameters()), [[0, 0, 1], [0]], ledger, [torch.tensor([[2, -100], [2, 1]])])
    record = ledger.record()
    assert record.input_count.tolist() == [3, 1, 0, 0]
    assert record.target_count.tolist() == [0, 2, 4, 0]


def test_the_last_step_in_which_a_row_was_seen():
    table = nn.Embedding(4, 2)
    ledger = Ledger(table)
    train(table, torch.optim.SGD(table.parameters()), [[0, 1], [1], [3]], ledger)
    assert ledger.record().last_input.tolist() == [1, 2, 0, 3]
    ledger.step(torch.tensor([0]))
    assert ledger.record().last_target.tolist() == [4, 0, 0, 0]


def test_targets_to_ignore_are_those_of_the_loss():
    ledger = Ledger(nn.Embedding(4, 2), ignore_index=3)
    ledger.step(torch.tensor([3, 1]))
    assert ledger.record().target_count.tolist() == [0, 1, 0, 0]


def test_accumulated_batches_are_one_step():
    table = nn.Embedding(4, 2)
    ledger = Ledger(table)
    for ids in ([0], [1]):
        table(torch.tensor(ids)).sum().backward()
    ledger.step(torch.tensor([2]), torch.tensor([2, 3]))
    record = ledger.record()
    assert record.step == 1
    assert record.last_input.tolist() == [1, 1, 0, 0]
    assert record.target_count.tolist() == [0, 0, 2, 1]


@pytest.mark.parametrize("look", ["no_grad", "inference_mode", "loss alone"])
def test_reading_without_training_is_not_counted(look):
    table = nn.Embedding(4, 2)
    ledger = Ledger(table)
    ids = torch.tensor([1, 2])
    if look == "loss alone":
        table(ids).sum()
    else:
        with getattr(torch, look)():
            table(ids)
    assert not ledger.record().input_count.any()


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_counts_once(reentrant):
    table = nn.Embedding(4, 2)
    ledger = Ledger(table)
    other = torch.zeros(1, requires_grad=True)
    out = checkpoint(lambda ids, x: torch.tanh(table(ids) + x), torch.tensor([1, 1]), other, use_reentrant=reentrant)
    out.sum().backward()
    assert ledger.record().input_count.tolist() == [0, 2, 0, 0]


def test_compiled_models_are_counted_without_a_break():
    table = nn.Embedding(4, 2)
    ledger = Ledger(table)
    compiled = torch.compile(lambda ids: torch.tanh(table(ids)).sum(), fullgraph=True, backend="aot_eager")
    for _ in range(3):
        compiled(torch.tensor([1, 2, 2])).backward()
        ledger.step()
    assert ledger.record().input_count.tolist() == [0, 3, 6, 0]
    assert ledger.record().last_input.tolist() == [0, 3, 3, 0]


def test_a_frozen_table_is_counted_when_it_is_read_in_training():
    table = nn.Embedding(4, 2).requires_grad_(False)
    ledger = Ledger(table)
    table(torch.tensor([1]))
    table.eval()(torch.tensor([2]))
    assert ledger.record().input_count.tolist() == [0, 1, 0, 0]


def test_a_model_trained_in_evaluation_mode_is_counted():
    table = nn.Embedding(4, 2).eval()  # as transformers' from_pretrained gives models out
    ledger = Ledger(table)
    table(torch.tensor([1])).sum().backward()
    assert ledger.record().input_count.tolist() == [0, 1, 0, 0]


def test_a_lookup_counts_once_however_many_backward_passes_go_through_it():
    table = nn.Embedding(4, 2)
    ledger = Ledger(table)
    vectors = table(torch.tensor([1]))
    (penalty,) = torch.autograd.grad(vectors.square().sum(), vectors, create_graph=True)
    penalty.square().sum().backward(retain_graph=True)
    vectors.sum().backward()
    assert ledger.record().input_count.tolist() == [0, 1, 0, 0]


def test_a_lookup_counts_whatever_other_hooks_make_of_it():
    table = nn.Embedding(4, 2)
    table.register_forward_hook(lambda module, args, output: {"vectors": output})
    ledger = Ledger(table)
    table(input=torch.tensor([1]))["vectors"].sum().backward()
    assert ledger.record().input_count.tolist() == [0, 1, 0, 0]


class WithMore(nn.Embedding):
    def forward(self, ids, scale=1.0):
        found = super().forward(ids) * scale
        return (found, ids) if scale == 3.0 else found


@pytest.mark.parametrize("how", ["in order", "by name", "a pair"])
def test_a_lookup_that_takes_and_gives_more(how):
    table = WithMore(4, 2)
    ledger, ids = Ledger(table), torch.tensor([1, 1])
    if how == "in order":
        found = table(ids, 2.0)
    elif how == "by name":
        found = table(scale=2.0, ids=ids)
    else:
        found, _ = table(ids, 3.0)
    assert ledger.record().input_count.tolist() == [0, 0, 0, 0]
    found.sum().backward()
    assert ledger.record().input_count.tolist() == [0, 2, 0, 0]


def test_several_modules_that_share_a_weight():
    encoder, decoder = nn.Embedding(4, 2), nn.Embedding(4, 2)
    decoder.weight = encoder.weight
    ledger = Ledger(encoder, decoder)
    for ids in ([1], [1]):
        (encoder(torch.tensor(ids)).sum() + decoder(torch.tensor([2])).sum()).backward()
    assert ledger.record().input_count.tolist() == [0, 2, 2, 0]
    ledger.detach()
    decoder(torch.tensor([3])).sum().backward()
    assert ledger.record().input_count.tolist() == [0, 2, 2, 0]


# What is measured


def test_displacement_and_norms_are_those_of_the_table():
    torch.manual_seed(0)
    table = nn.Embedding(6, 3)
    start = table.weight.detach().double().clone()
    ledger = Ledger(table)
    train(table, torch.optim.SGD(table.parameters(), lr=0.1), [[0, 1], [1, 2], [1]], ledger)
    now, record = table.weight.detach().double(), ledger.record()
    np.testing.assert_allclose(record.displacement, (now - start).norm(dim=1), rtol=1e-6)
    np.testing.assert_allclose(record.norm_start, start.norm(dim=1), rtol=1e-7)
    np.testing.assert_allclose(record.norm_now, now.norm(dim=1), rtol=1e-7)


def walk(table, places, ledger):
    """Put row 0 at one place after another."""
    for place in places:
        with torch.no_grad():
            table.weight[0] = torch.tensor(place)
        ledger.step()


def test_path_is_the_whole_way_where_every_step_is_measured():
    table = nn.Embedding(2, 2, _weight=torch.zeros(2, 2))
    ledger = Ledger(table, every=1)
    walk(table, [[3.0, 4.0], [3.0, 0.0], [0.0, 0.0]], ledger)
    assert ledger.record().path.tolist() == [12.0, 0.0]
    assert ledger.record().displacement.tolist() == [0.0, 0.0]


def test_path_of_rare_measurements_lies_between_displacement_and_whole_way():
    generator = torch.Generator().manual_seed(0)
    table = nn.Embedding(2, 2, _weight=torch.zeros(2, 2))
    each, rarely = Ledger(table, every=1), Ledger(table, every=7)
    for place in torch.randn(50, 2, generator=generator).cumsum(0).tolist():
        with torch.no_grad():
            table.weight[0] = torch.tensor(place)
        each.step()
        rarely.step()
        whole, rare = each.record(), rarely.record()
        assert rare.displacement[0] <= rare.path[0] * (1 + 1e-6) <= whole.path[0] * (1 + 2e-6)
    assert rarely.record().path[0] > 1.2 * rarely.record().displacement[0]


def test_every_row_has_its_turn():
    table = nn.Embedding(10, 2)
    ledger = Ledger(table, every=4)
    with torch.no_grad():
        table.weight += 1
    for _ in range(4):
        ledger.step()
    with torch.no_grad():
        table.weight -= 1
    np.testing.assert_allclose(ledger.record().path, 2 * math.sqrt(2), rtol=1e-6)


def test_large_tables_are_measured_more_rarely():
    assert Ledger(nn.Embedding(100, 4)).every == 1
    assert Ledger(nn.Embedding(1000, 1000)).every == 5


def test_rows_that_lag_are_measured_as_they_stand():
    torch.manual_seed(0)
    table = TokenEmbedding(50, 4, sparse=True)
    optimizer = RowwiseAdamW(table.parameters(), lr=0.1, weight_decay=0.5)
    ledger = Ledger(table)
    start = table.weight.detach().double().clone()
    train(table, optimizer, [[0, 1, 2]] + [[3]] * 20, ledger)
    moved = (table.current_weight().double() - start).norm(dim=1)
    np.testing.assert_allclose(ledger.record().displacement, moved, rtol=1e-5)
    assert (ledger.record().path >= ledger.record().displacement * (1 - 1e-6)).all()


def test_path_stays_below_the_whole_way_where_rows_lag():
    torch.manual_seed(0)
    table = TokenEmbedding(50, 4, sparse=True)
    optimizer = RowwiseAdamW(table.parameters(), lr=0.1, weight_decay=0.5)
    train(table, optimizer, [list(range(40))] + [[3]] * 5)
    optimizer.flush()
    ledger = Ledger(table, every=2)
    places = [table.current_weight().double()]
    for ids in [[3], [0, 1], [3], [4], [1]] * 4:
        train(table, optimizer, [ids], ledger)
        places.append(table.current_weight().double())
    whole = sum((after - before).norm(dim=1) for before, after in itertools.pairwise(places)).numpy()
    assert (ledger.record().path <= whole * (1 + 1e-5)).all()


def test_bfloat16_rows_are_measured_in_float32():
    table = nn.Embedding(2, 2, dtype=torch.bfloat16, _weight=torch.ones(2, 2, dtype=torch.bfloat16))
    ledger = Ledger(table)
    walk(table, [[1.0, 1.0078125]], ledger)
    assert ledger.record().displacement.tolist() == [0.0078125, 0.0]


# The four states


def test_a_tied_head_moves_rows_that_were_never_seen():
    torch.manual_seed(0)
    model = LanguageModel(vocab_size=6, d_model=8, num_layers=1, num_heads=2, context_length=4, tie_head=True)
    ledger = Ledger(model.embedding.token)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs, targets = torch.tensor([[0, 1, 2]]), torch.tensor([[1, 2, 3]])
    nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
    optimizer.step()
    ledger.step(targets)
    assert states(ledger) == [*[STATES[0]] * 3, STATES[1], STATES[2], STATES[2]]


def test_an_untied_table_leaves_rows_that_were_never_seen():
    torch.manual_seed(0)
    table = nn.Embedding(3, 2)
    ledger = Ledger(table)
    train(table, torch.optim.SGD(table.parameters(), lr=0.1), [[1]], ledger)
    assert states(ledger) == ["never moved", "seen as input", "never moved"]


def test_weight_decay_moves_rows_that_were_never_seen():
    table = nn.Embedding(3, 2)
    ledger = Ledger(table)
    train(table, torch.optim.AdamW(table.parameters(), weight_decay=0.1), [[1]], ledger)
    assert states(ledger) == ["never seen, yet moved", "seen as input", "never seen, yet moved"]


def test_rows_that_are_no_longer_numbers_have_moved():
    table = nn.Embedding(2, 2)
    ledger = Ledger(table)
    with torch.no_grad():
        table.weight[0] = math.nan
    assert states(ledger) == ["never seen, yet moved", "never moved"]


# It changes nothing


def trained(watch):
    torch.manual_seed(0)
    table = TokenEmbedding(40, 4, sparse=True)
    optimizer = RowwiseAdamW(table.parameters(), lr=0.1)
    ledger = Ledger(table) if watch else None
    for step in range(30):
        train(table, optimizer, [[step % 7, step % 11]], ledger)
        if ledger:
            ledger.record()
    return table.current_weight()


def test_a_watched_table_is_trained_bit_for_bit_as_an_unwatched_one():
    assert torch.equal(trained(watch=True), trained(watch=False))


def test_the_record_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        Ledger(nn.Embedding(2, 2)).record().path[0] = 1


def test_a_record_does_not_follow_its_ledger():
    ledger = Ledger(nn.Embedding(2, 2))
    before = ledger.record()
    ledger.step(torch.tensor([1]))
    assert before.target_count.tolist() == [0, 0]


def test_detached_ledgers_count_no_more():
    table = nn.Embedding(4, 2)
    with Ledger(table) as ledger:
        table(torch.tensor([1])).sum().backward()
    table(torch.tensor([1])).sum().backward()
    assert ledger.record().input_count.tolist() == [0, 1, 0, 0]


def test_two_ledgers_of_one_table():
    table = nn.Embedding(4, 2)
    first = Ledger(table)
    table(torch.tensor([1])).sum().backward()
    second = Ledger(table)
    table(torch.tensor([2])).sum().backward()
    assert (first.record().input_count.tolist(), second.record().input_count.tolist()) == ([0, 1, 1, 0], [0, 0, 1, 0])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda table: pickle.loads(pickle.dumps(table))])
def test_a_copied_table_is_not_watched(duplicate):
    table = nn.Embedding(4, 2)
    ledger = Ledger(table)
    duplicate(table)(torch.tensor([1])).sum().backward()
    assert not ledger.record().input_count.any()


def test_the_table_does_not_keep_its_ledger():
    table = nn.Embedding(4, 2)
    gone = weakref.ref(Ledger(table))
    gc.collect()
    assert gone() is None
    table(torch.tensor([1])).sum().backward()


# Files and states


def test_a_record_comes_back_from_its_file(tmp_path):
    table = nn.Embedding(5, 2)
    ledger = Ledger(table, every=3)
    train(table, torch.optim.SGD(table.parameters(), lr=0.1), [[1, 2], [3]], ledger, [torch.tensor([4])])
    record = ledger.record()
    record.save(tmp_path / "ledger.safetensors")
    back = LedgerRecord.load(tmp_path / "ledger.safetensors", vocab_size=5)
    assert (back.step, back.every) == (2, 3)
    for name in ("input_count", "target_count", "last_input", "last_target"):
        assert getattr(back, name).tolist() == getattr(record, name).tolist()
    for name in ("path", "displacement", "norm_start", "norm_now"):
        np.testing.assert_array_equal(getattr(back, name), getattr(record, name))


def test_a_ledger_goes_on_where_it_stopped():
    def half(table, optimizer, ledger, ids):
        train(table, optimizer, ids, ledger, [torch.tensor([0, 4])])

    first, second = [[1, 2], [3], [0]], [[1], [2], [2]]
    torch.manual_seed(0)
    whole_table = nn.Embedding(5, 2)
    start = whole_table.weight.detach().clone()
    table = copy.deepcopy(whole_table)
    whole = Ledger(whole_table, every=2)
    optimizer = torch.optim.SGD(whole_table.parameters(), lr=0.1)
    half(whole_table, optimizer, whole, first + second)
    optimizer, ledger = torch.optim.SGD(table.parameters(), lr=0.1), Ledger(table, every=2)
    half(table, optimizer, ledger, first)
    state = copy.deepcopy(ledger.state_dict())
    ledger.detach()
    resumed = Ledger(table, every=2, start=start)
    resumed.load_state_dict(state)
    half(table, optimizer, resumed, second)
    for name, vector in vars(whole.record()).items():
        np.testing.assert_array_equal(getattr(resumed.record(), name), vector, err_msg=name)


def test_a_state_is_a_copy():
    table = nn.Embedding(2, 2)
    ledger = Ledger(table, every=1)
    state = ledger.state_dict()
    before = copy.deepcopy(state)
    train(table, torch.optim.SGD(table.parameters(), lr=0.1), [[0]], ledger, [torch.tensor([1])])
    for name, tensor in before.items():
        assert torch.equal(state[name], tensor), name


def test_a_loaded_state_is_given_back():
    table = nn.Embedding(5, 2)
    start = table.weight.detach().clone()
    ledger = Ledger(table, every=2)
    train(table, torch.optim.SGD(table.parameters(), lr=0.1), [[1, 2], [3]], ledger, [torch.tensor([4])])
    other = Ledger(table, every=2, start=start)
    other.load_state_dict(ledger.state_dict())
    for name, tensor in ledger.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


# Bad input


def test_something_else_than_a_table():
    said = "`embedding` must be an nn.Embedding, but is 'Linear'. Give the token table itself, such as model.embedding"
    with pytest.raises(SettingError, match=re.escape(said)):
        Ledger(nn.Linear(2, 2))


def test_a_table_without_numbers_yet():
    with pytest.raises(SettingError, match="`embedding` must hold its whole table, but is \"on the device 'meta'\""):
        Ledger(nn.Embedding(2, 2, device="meta"))


def test_a_sharded_table():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        table, later = (fully_shard(nn.Embedding(2, 2), mesh=init_device_mesh("cpu", (1,))), nn.Embedding(2, 2))
        with pytest.raises(SettingError, match="`embedding` must hold its whole table, but is 'in shards'"):
            Ledger(table)
        ledger = Ledger(later)
        fully_shard(later, mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(ShapeError, match=re.escape("but is 'sharded, (2, 2) on cpu'")):
            ledger.step()
    finally:
        dist.destroy_process_group()


def test_a_table_with_rows_that_lag():
    table = TokenEmbedding(5, 2, sparse=True)
    optimizer = RowwiseAdamW(table.parameters())
    train(table, optimizer, [[1], [2]])
    said = "`embedding` must have no rows that lag behind their optimiser, but is 'behind'. Call its flush() first"
    with pytest.raises(SettingError, match=re.escape(said)):
        Ledger(table)


def test_a_second_module_with_a_table_of_its_own():
    with pytest.raises(SettingError, match="`others` must share the weight of embedding, but is 'a table of its own'"):
        Ledger(nn.Embedding(2, 2), nn.Embedding(2, 2))


@pytest.mark.parametrize("rows", [1, 3])
def test_a_table_that_was_resized(rows):
    table = nn.Embedding(2, 2)
    ledger = Ledger(table)
    table.weight = nn.Parameter(torch.zeros(rows, 2))
    said = f"`embedding` must stay the table of (2, 2) on cpu that the ledger began with, but is '({rows}, 2) on cpu'."
    for use in (lambda: table(torch.tensor([0])), ledger.step, ledger.record):
        with pytest.raises(ShapeError, match=re.escape(said)):
            use()


def test_measuring_every_zeroth_step():
    with pytest.raises(SettingError, match="`every` must be a whole number of at least 1, but is 0"):
        Ledger(nn.Embedding(2, 2), every=0)


def test_a_start_of_another_table():
    with pytest.raises(ShapeError, match=re.escape("`start` must have the table's shape (2, 2), but is (3, 2).")):
        Ledger(nn.Embedding(2, 2), start=torch.zeros(3, 2))


def test_targets_that_are_a_list():
    with pytest.raises(SettingError, match=re.escape("`targets` must be tensors, but is 'list'.")):
        Ledger(nn.Embedding(2, 2)).step([1])


def test_targets_that_are_logits():
    said = "`targets` must be whole numbers, but is torch.float32. Give the ids, not their logits."
    with pytest.raises(ShapeError, match=re.escape(said)):
        Ledger(nn.Embedding(2, 2)).step(torch.zeros(2))


@pytest.mark.parametrize("target", [-1, 2])
def test_targets_outside_the_table(target):
    ledger = Ledger(nn.Embedding(2, 2))
    said = f"`targets` must lie in [0, 2) or be ignore_index = -100, but is {target}."
    with pytest.raises(ShapeError, match=re.escape(said)):
        ledger.step(torch.tensor([1]), torch.tensor([0, target]))
    assert not ledger.record().target_count.any()  # nothing of a step that failed


def test_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="must be a ledger that can be read"):
        LedgerRecord.load(tmp_path / "ledger.safetensors")


def test_a_damaged_file(tmp_path):
    path = tmp_path / "ledger.safetensors"
    Ledger(nn.Embedding(2, 2)).record().save(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="must be a ledger that can be read"):
        LedgerRecord.load(path)


def test_a_file_of_another_vocabulary(tmp_path):
    path = tmp_path / "ledger.safetensors"
    Ledger(nn.Embedding(2, 2)).record().save(path)
    with pytest.raises(CheckpointError, match="must have 3 rows, but is 2"):
        LedgerRecord.load(path, vocab_size=3)


def test_a_state_of_another_table():
    state = Ledger(nn.Embedding(2, 2)).state_dict()
    with pytest.raises(CheckpointError, match=re.escape("`input_count of the ledger` must be [3], but is [2].")):
        Ledger(nn.Embedding(3, 2)).load_state_dict(state)


def test_a_state_without_the_start_it_belongs_to():
    table = nn.Embedding(2, 2)
    ledger = Ledger(table)
    train(table, torch.optim.SGD(table.parameters(), lr=0.1), [[1]], ledger)
    said = "`start` must be where the rows of this state began, but is 'another table'. Give the table as the"
    with pytest.raises(CheckpointError, match=re.escape(said)):
        Ledger(table).load_state_dict(ledger.state_dict())
