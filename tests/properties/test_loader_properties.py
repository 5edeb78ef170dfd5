"""However many ranks, workers and windows a batch has: the sequence of samples is the same, wherever it is taken up."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenspace.loader import Mixture, TokenArray, WindowLoader
from tokenspace.windows import WindowOrder

SOURCES = {
    "plain": lambda n: TokenArray(np.arange(n * 2 + 1)),
    "blocks": lambda n: TokenArray(np.arange(n * 2 + 1)),
    "mixture": lambda n: Mixture(
        [(TokenArray(np.arange(n * 2 + 1)), 3), (TokenArray(np.arange(10**6, 10**6 + n + 3)), 2)]
    ),
}


def loaders(kind, size, ranks, batch_size, state=None):
    settings = {"block_windows": 3} if kind == "blocks" else {}
    made = [
        WindowLoader(SOURCES[kind](size), batch_size, 2, 2, seed=5, rank=rank, world_size=ranks, **settings)
        for rank in range(ranks)
    ]
    for loader in made:
        if state:
            loader.load_state_dict(state)
    return made


def steps_of(made):
    """For each step of an epoch the first ids of all ranks' windows, in their global order."""
    for batches in zip(*made, strict=True):
        yield [int(batches[rank][0][row, 0]) for row in range(len(batches[0][0])) for rank in range(len(batches))]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(list(SOURCES)),
    size=st.integers(40, 120),
    first=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(0, 6)),
    second=st.tuples(st.integers(1, 4), st.integers(1, 5)),
)
def test_a_sequence_goes_on_with_other_ranks_and_batches(kind, size, first, second):
    whole = [sample for step in steps_of(loaders(kind, size, 1, 1)) for sample in step]
    ranks, batch_size, steps = first
    before, made = [], loaders(kind, size, ranks, batch_size)
    for _, step in zip(range(steps), steps_of(made), strict=False):
        before += step
    assert before == whole[: len(before)]
    after = [s for step in steps_of(loaders(kind, size, *second, state=made[0].state_dict())) for s in step]
    if len(before) + second[0] * second[1] <= len(whole):  # else the next epoch begins
        assert after == whole[len(before) : len(before) + len(after)]


@settings(derandomize=True, deadline=None, max_examples=200)
@given(num_windows=st.integers(1, 3000), block=st.integers(1, 80), seed=st.integers(0, 2**63), epoch=st.integers(0, 9))
def test_an_order_by_blocks_holds_every_window_once(num_windows, block, seed, epoch):
    order = WindowOrder(num_windows=num_windows, shuffle=True, seed=seed, epoch=epoch, block_windows=block)
    places = np.arange(num_windows)
    windows = order.windows(places)
    assert sorted(windows.tolist()) == places.tolist()
    assert [int(order.windows(places[i : i + 1])[0]) for i in range(0, num_windows, 97)] == windows[::97].tolist()


@settings(derandomize=True, deadline=None, max_examples=50)
@given(num_windows=st.integers(1000, 3000), block=st.integers(2, 40), seed=st.integers(0, 2**63))
def test_an_order_by_blocks_reads_few_blocks_at_a_time(num_windows, block, seed):
    order = WindowOrder(num_windows=num_windows, shuffle=True, seed=seed, epoch=0, block_windows=block)
    whole = num_windows // block * block
    group = 16 * block
    for start in range(0, whole - group + 1, group):
        assert len(set((order.windows(np.arange(start, start + group)) // block).tolist())) == 16
