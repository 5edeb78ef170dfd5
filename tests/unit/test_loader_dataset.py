"""Windows by number inside torch's loaders."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler

from tokenspace.errors import SettingError
from tokenspace.loader import TokenArray, WindowDataset, WindowLoader

TOKENS = TokenArray(np.arange(1000))


def test_windows_are_those_of_the_loader():
    loader = WindowLoader(TOKENS, 4, 8, 3, shuffle=False, drop_last=False)
    dataset = WindowDataset(TOKENS, 8, 3)
    whole = [torch.cat(side) for side in zip(*loader, strict=True)]
    for side in range(2):
        assert torch.equal(torch.stack([window[side] for window in dataset]), whole[side])


def test_a_keyed_order_holds_every_window_once():
    dataset = WindowDataset(TOKENS, 8, 8, shuffle=True, seed=1)
    firsts = [inputs[0].item() for inputs, _ in dataset]
    assert firsts != sorted(firsts)
    assert sorted(firsts) == list(range(0, 8 * len(dataset), 8))


def test_numbers_from_the_end():
    dataset = WindowDataset(TOKENS, 8, 8)
    assert torch.equal(dataset[-1][0], dataset[len(dataset) - 1][0])
    with pytest.raises(IndexError):
        dataset[len(dataset)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_inside_a_data_loader_with_any_sampler(num_workers):
    dataset = WindowDataset(TOKENS, 8, 8)
    sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(0))
    batches = list(DataLoader(dataset, batch_size=5, sampler=sampler, num_workers=num_workers))
    assert batches[0][0].shape == (5, 8)
    assert sorted(torch.cat([inputs[:, 0] for inputs, _ in batches]).tolist()) == list(range(0, 8 * len(dataset), 8))


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11 asks torch for it
@pytest.mark.parametrize("num_workers", [0, 2])
def test_inside_a_stateful_data_loader_it_goes_on_exactly(num_workers):
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def make():
        return stateful(WindowDataset(TOKENS, 8, 8, shuffle=True, seed=2), batch_size=5, num_workers=num_workers)

    expected = [inputs for inputs, _ in make()]
    loader = make()
    batches = iter(loader)
    taken = [next(batches)[0] for _ in range(7)]
    state = loader.state_dict()
    resumed = make()
    resumed.load_state_dict(state)
    taken += [inputs for inputs, _ in resumed]
    assert len(taken) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(taken, expected, strict=True))


def test_a_stream_shorter_than_a_window():
    with pytest.raises(SettingError, match="`text` must have more than 8 tokens, but is 5"):
        WindowDataset(TokenArray(np.arange(5)), 8, 8)
