"""RowwiseAdamW walks the trajectory of torch's dense AdamW, as near to it in float64 as float32 itself is."""

import math

import pytest
import torch
from torch import nn

from tokenspace import RowwiseAdamW, TokenEmbedding

V, D, PEAK = 120, 8, 1e-3


def cosine(step, steps):
    return PEAK * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)


def rms(difference):
    return difference.double().pow(2).mean().sqrt().item()


def walk(steps, scale, betas=(0.9, 0.999), weight_decay=0.1, spread=0.0):
    """The table after so many steps: as it began, dense in float64, dense in float32, by rows in float32."""
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(V, D, generator=generator) * 0.02
    how_often = 1 / torch.arange(1, V + 1).float() ** 1.3  # Zipf: some rows lag for hundreds of steps
    how_large = scale * torch.exp(spread * torch.randn(V, 1, generator=generator))
    rowwise = TokenEmbedding(V, D, sparse=True, _weight=first.clone())
    tables = [nn.Embedding(V, D, _weight=first.double()), nn.Embedding(V, D, _weight=first.clone()), rowwise]
    classes = torch.optim.AdamW, torch.optim.AdamW, RowwiseAdamW
    settings = {"lr": PEAK, "betas": betas, "weight_decay": weight_decay}
    optimizers = [kind(table.parameters(), **settings) for kind, table in zip(classes, tables, strict=True)]
    for step in range(steps):
        ids = torch.multinomial(how_often, 6, generator=generator)
        gradient = torch.randn(6, D, generator=generator) * how_large[ids]
        for table, optimizer in zip(tables, optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = cosine(step, steps)
            optimizer.zero_grad()
            table(ids).backward(gradient.to(table.weight.dtype))
            optimizer.step()
    assert optimizers[2].ways()["parameter 0"].startswith("rows:")
    return first, tables[0].weight.detach(), tables[1].weight.detach(), rowwise.current_weight()


def assert_as_near_as_float32(first, exact, dense, rowwise):
    distance = rms(rowwise - exact)
    assert distance <= 2 * rms(dense - exact) or distance <= 1e-4 * rms(exact - first)
    assert distance <= 1e-4 * rms(exact - first)  # float32's own rounding is far below that in all these cases


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-5, 1e-6])
def test_1500_steps_with_a_cosine_at_each_size_of_gradient(scale):
    assert_as_near_as_float32(*walk(1500, scale))


@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.9, 0.9), (0.0, 0.999), (0.95, 0.999), (0.8, 0.85)])
def test_other_betas_with_gradients_of_many_sizes(betas):
    assert_as_near_as_float32(*walk(400, 1e-6, betas, spread=2.0))


def test_without_weight_decay():
    assert_as_near_as_float32(*walk(400, 1e-5, weight_decay=0.0))


def test_10000_steps():
    assert_as_near_as_float32(*walk(10_000, 1e-5))


def test_a_float64_table_is_exact_to_a_millionth_of_the_movement():
    generator = torch.Generator().manual_seed(2)
    first = torch.randn(V, D, generator=generator).double()
    dense, rowwise = nn.Embedding(V, D, _weight=first.clone()), TokenEmbedding(V, D, sparse=True, _weight=first.clone())
    optimizers = torch.optim.AdamW(dense.parameters(), lr=0.01), RowwiseAdamW(rowwise.parameters(), lr=0.01)
    for _ in range(600):
        ids = torch.randint(0, V, (4,), generator=generator) ** 2 // V
        gradient = torch.randn(4, D, generator=generator).double() * 1e-6
        for table, optimizer in zip((dense, rowwise), optimizers, strict=True):
            optimizer.zero_grad()
            table(ids).backward(gradient)
            optimizer.step()
    assert rms(rowwise.current_weight() - dense.weight) <= 1e-6 * rms(dense.weight - first)


def test_sparse_adam_walks_another_way():
    """What this is for: the lazy optimiser that people use leaves out decay and momentum of rows not seen."""
    generator = torch.Generator().manual_seed(3)
    first = torch.randn(V, D, generator=generator) * 0.02
    dense, lazy = (nn.Embedding(V, D, _weight=first.clone(), sparse=sparse) for sparse in (False, True))
    optimizers = torch.optim.AdamW(dense.parameters(), lr=PEAK), torch.optim.SparseAdam(lazy.parameters(), lr=PEAK)
    for _ in range(300):
        ids = torch.randint(0, V, (6,), generator=generator) ** 2 // V
        gradient = torch.randn(6, D, generator=generator) * 1e-5
        for table, optimizer in zip((dense, lazy), optimizers, strict=True):
            optimizer.zero_grad()
            table(ids).backward(gradient)
            optimizer.step()
    assert rms(lazy.weight - dense.weight) > 0.05 * rms(dense.weight - first)
