"""Row-wise training by two processes: DDP's replicas stay equal, FSDP2 is dense, with all rows, or refused."""

import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from tokenspace import RowwiseAdamW, TokenEmbedding
from tokenspace.errors import SettingError
from tokenspace.optim import clip_grad_norm_

V, D, WORLD = 100, 4, 2
FROZEN = [0, 1, 90]

pytestmark = [
    pytest.mark.skipif(not dist.is_available() or sys.platform == "win32", reason="needs gloo over a file"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of torch.distributed, about devices
]


def model(sparse):
    torch.manual_seed(0)
    return nn.Sequential(TokenEmbedding(V, D, sparse=sparse), nn.Linear(D, 3))


def train(wrapped, optimizer, rank=None):
    """Some steps; a rank takes its half of each batch."""
    generator = torch.Generator().manual_seed(5)
    for _ in range(40):
        ids = torch.randint(0, V, (4, 6), generator=generator) ** 2 // V
        mine = ids if rank is None else ids.chunk(WORLD)[rank]
        optimizer.zero_grad()
        wrapped(mine).square().mean().backward()
        clip_grad_norm_(wrapped.parameters(), 1.0)
        optimizer.step()


def spoil(weight):
    weight.grad.to_local()[0, 0] = float("inf")


def optimizer_of(module):
    return RowwiseAdamW(module.parameters(), lr=0.01, weight_decay=0.1)


def work(rank, folder, way):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    torch.set_num_threads(1)
    net = model(sparse=way in ("ddp", "ddp frozen", "fsdp sparse"))
    if "frozen" in way.split():
        net[0].freeze(FROZEN)
    if way.startswith("ddp"):
        wrapped = DistributedDataParallel(net)
    else:
        from torch.distributed.fsdp import fully_shard

        wrapped = fully_shard(net, mesh=init_device_mesh("cpu", (WORLD,)))
    optimizer, refused = optimizer_of(wrapped), None
    try:
        if way == "fsdp freezes":
            net[0].freeze(FROZEN)
        if way == "fsdp infinite" and rank == 1:
            net[1].weight.register_post_accumulate_grad_hook(spoil)
        train(wrapped, optimizer, rank)
    except SettingError as error:
        refused = str(error)
    weight = net[0].weight.detach()
    if refused is None and way == "fsdp dense":
        weight = weight.full_tensor()
    found = {"refused": refused, "weight": weight if refused is None else None, "ways": optimizer.ways()}
    if refused is None and way.startswith("ddp"):
        found["current"] = net[0].current_weight()
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def run(way, folder):
    torch.multiprocessing.spawn(work, (str(folder), way), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.fixture(scope="module")
def alone():
    net = model(sparse=True)
    optimizer = optimizer_of(net)
    train(net, optimizer)
    return net[0].current_weight()


def test_ddp_equals_one_process_and_its_replicas_are_equal_bit_for_bit(tmp_path, alone):
    first, second = run("ddp", tmp_path)
    assert first["ways"]["parameter 0"].startswith("rows:")
    assert torch.equal(first["weight"], second["weight"])
    torch.testing.assert_close(first["current"], alone, rtol=0, atol=1e-4)


def test_fsdp_with_dense_gradients_equals_one_process(tmp_path, alone):
    first, second = run("fsdp dense", tmp_path)
    assert first["ways"]["parameter 0"] == "dense"
    assert torch.equal(first["weight"], second["weight"])
    torch.testing.assert_close(first["weight"], alone, rtol=0, atol=1e-4)


def test_fsdp_with_sparse_gradients_is_refused(tmp_path):
    for found in run("fsdp sparse", tmp_path):
        assert "Where FSDP shards it, make it with sparse=False" in found["refused"]


def test_rows_frozen_under_ddp_keep_every_bit(tmp_path):
    first, second = run("ddp frozen", tmp_path)
    assert torch.equal(first["current"], second["current"])
    unmoved = (first["current"] == model(sparse=True)[0].weight).all(dim=1)
    assert unmoved.nonzero().flatten().tolist() == FROZEN


@pytest.mark.parametrize("way", ["fsdp frozen", "fsdp freezes"])
def test_frozen_rows_of_a_sharded_table_are_refused(tmp_path, way):
    for found in run(way, tmp_path):
        assert "FSDP cannot freeze rows: use DistributedDataParallel, or train all rows." in found["refused"]


def test_a_shard_that_is_not_finite_is_named_by_all_processes(tmp_path):
    for found in run("fsdp infinite", tmp_path):
        assert "`gradient of parameter 1 at step 1` must be finite" in found["refused"]
