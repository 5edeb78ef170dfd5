import json

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenspace.loader import TokenArray, WindowLoader

quickly = settings(derandomize=True, deadline=None, max_examples=60)
T, STRIDE = 3, 2
splits = st.tuples(st.integers(1, 7), st.integers(1, 4))  # batch size, ranks


def stream(num_windows):
    """Ids that tell where they stand, just enough for so many windows."""
    return TokenArray(np.arange(num_windows * STRIDE + T - STRIDE + 1))


def loaders(tokens, split, **settings):
    batch_size, world_size = split
    settings = {"seed": 5, "drop_last": False, **settings}
    return [
        WindowLoader(tokens, batch_size, T, STRIDE, rank=rank, world_size=world_size, **settings)
        for rank in range(world_size)
    ]


def windows_of(batch):
    return [row[0].item() // STRIDE for row in batch[0]]


def in_global_order(group, steps=None):
    """The windows that all ranks together consume, in the order of the epoch, over so many steps."""
    epochs = [iter(loader) for loader in group]
    order = []
    while steps is None or steps > 0:
        batches = [windows_of(batch) for batch in (next(epoch, None) for epoch in epochs) if batch is not None]
        if not batches:
            break
        rows = max(map(len, batches))
        order += [batch[row] for row in range(rows) for batch in batches if row < len(batch)]
        steps = None if steps is None else steps - 1
    for epoch in epochs:
        epoch.close()
    return order


@quickly
@given(st.integers(1, 60), splits)
def test_ranks_partition_the_windows(windows, split):
    seen = [window for loader in loaders(stream(windows), split) for batch in loader for window in windows_of(batch)]
    assert sorted(seen) == list(range(windows))


@quickly
@given(st.integers(1, 60), splits, splits)
def test_the_global_order_depends_neither_on_the_ranks_nor_on_the_batch_size(windows, one, other):
    tokens = stream(windows)
    assert in_global_order(loaders(tokens, one)) == in_global_order(loaders(tokens, other))


@quickly
@given(st.integers(1, 60), splits, splits, st.integers(0, 12), st.booleans())
def test_two_halves_joined_by_a_state_equal_the_whole(windows, first, second, steps, shuffle):
    tokens = stream(windows)
    whole = in_global_order(loaders(tokens, (1, 1), shuffle=shuffle))
    group = loaders(tokens, first, shuffle=shuffle)
    half = in_global_order(group, steps)
    state = json.loads(json.dumps(group[0].state_dict()))
    rest = loaders(tokens, second, shuffle=shuffle)
    for loader in rest:
        loader.load_state_dict(state)
    if len(half) < windows:
        half += in_global_order(rest)
    assert half == whole


@quickly
@given(st.integers(4, 40), st.integers(1, 5), st.integers(0, 60))
def test_going_on_from_a_state_equals_never_stopping_over_three_epochs(windows, batch_size, taken):
    tokens = stream(windows)

    def endless(loader):
        while True:
            yield from loader

    def some(batches, number):
        return [windows_of(next(batches)) for _ in range(number)]

    loader = WindowLoader(tokens, batch_size, T, STRIDE, seed=3, drop_last=False)
    taken = min(taken, 2 * len(loader))
    batches = endless(loader)
    some(batches, taken)
    state = loader.state_dict()
    expected = some(batches, len(loader))
    batches.close()
    again = WindowLoader(tokens, batch_size, T, STRIDE, seed=3, drop_last=False)
    again.load_state_dict(state)
    batches = endless(again)
    assert some(batches, len(loader)) == expected
    batches.close()


@quickly
@given(st.lists(st.integers(0, 65_535), min_size=2, max_size=200), st.integers(1, 8), st.integers(1, 5))
def test_windows_that_do_not_overlap_rebuild_the_stream(ids, context_length, batch_size):
    ids = np.array(ids, dtype=np.uint16)
    if len(ids) <= context_length:
        ids = np.resize(ids, context_length + 1)
    loader = WindowLoader(
        TokenArray(ids), batch_size, context_length, context_length, shuffle=False, drop_last=False, seed=0
    )
    inputs, targets = (torch.cat(part).flatten().tolist() for part in zip(*loader, strict=True))
    assert inputs == ids[: len(inputs)].tolist()
    assert targets == ids[1 : len(inputs) + 1].tolist()
    assert len(ids) - len(inputs) <= context_length  # only what fills no window is left out


@quickly
@given(st.integers(1, 50), st.integers(1, 6), st.booleans())
def test_len_is_the_number_of_batches(windows, batch_size, drop_last):
    loader = WindowLoader(stream(windows), batch_size, T, STRIDE, drop_last=drop_last, seed=0)
    assert len(loader) == len(list(loader))


@quickly
@given(st.integers(2, 80), st.integers(1, 5), st.integers(1, 3))
def test_each_row_of_contiguous_batches_is_one_unbroken_stretch(windows, batch_size, world_size):
    """Rows of all ranks together, none overlapping, none left out but what does not fill a row."""
    T = 3
    tokens = TokenArray(np.arange(windows * T + 1, dtype=np.uint16))
    steps = windows // (batch_size * world_size)
    stretches = []
    for rank in range(world_size):
        settings = {"shuffle": False, "contiguous": True, "rank": rank, "world_size": world_size}
        batches = [inputs for inputs, _ in WindowLoader(tokens, batch_size, T, T, **settings)]
        assert len(batches) == steps
        if steps:
            stretches += torch.cat(batches, dim=1).tolist()
    whole = sorted(stretches)
    assert whole == [list(range(row * steps * T, (row + 1) * steps * T)) for row in range(len(whole))]
    assert len(whole) == (batch_size * world_size if steps else 0)
