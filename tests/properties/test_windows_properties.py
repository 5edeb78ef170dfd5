import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenspace.windows import KeyedPermutation, Share, num_windows

quickly = settings(derandomize=True, deadline=None, max_examples=100)
keys = st.integers(-(2**80), 2**80)
splits = st.fixed_dictionaries(
    {
        "start": st.integers(0, 50),
        "stop": st.integers(50, 200),
        "batch_size": st.integers(1, 9),
        "world_size": st.integers(1, 6),
    }
)


def ranks(split, drop_last):
    return [Share(**split, rank=rank, drop_last=drop_last) for rank in range(split["world_size"])]


@quickly
@given(st.integers(1, 5000), keys)
def test_the_keyed_order_is_a_permutation(size, key):
    assert np.array_equal(np.sort(KeyedPermutation(size, key)(np.arange(size))), np.arange(size))


@quickly
@given(st.integers(2**20, 2**62), keys, st.data())
def test_different_indices_stay_different_and_inside_a_huge_range(size, key, data):
    indices = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=50, unique=True))
    out = KeyedPermutation(size, key)(np.array(indices))
    assert len(set(out.tolist())) == len(indices)
    assert ((out >= 0) & (out < size)).all()


@quickly
@given(st.integers(1, 3000), keys, st.data())
def test_an_index_goes_to_the_same_place_whatever_is_asked_beside_it(size, key, data):
    permutation = KeyedPermutation(size, key)
    some = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20)))
    assert np.array_equal(permutation(some), permutation(np.arange(size))[some])


@quickly
@given(splits)
def test_ranks_partition_all_places(split):
    taken = np.concatenate([share.places(0, share.num_batches) for share in ranks(split, drop_last=False)])
    assert np.array_equal(np.sort(taken), np.arange(split["start"], split["stop"]))


@quickly
@given(splits)
def test_with_drop_last_the_ranks_take_all_full_steps_and_nothing_else(split):
    taken = np.concatenate([share.places(0, share.num_batches) for share in ranks(split, drop_last=True)])
    step = split["batch_size"] * split["world_size"]
    end = split["start"] + (split["stop"] - split["start"]) // step * step
    assert np.array_equal(np.sort(taken), np.arange(split["start"], end))


@quickly
@given(splits)
def test_all_ranks_together_take_the_next_places_at_every_step(split):
    shares = ranks(split, drop_last=True)
    for step in range(shares[0].num_batches):
        taken = np.sort(np.concatenate([share.places(step, step + 1) for share in shares]))
        assert np.array_equal(taken, np.arange(shares[0].consumed(step), shares[0].consumed(step + 1)))


@quickly
@given(splits)
def test_the_batches_of_two_ranks_differ_by_one_window_at_most(split):
    lengths = [len(share.places(0, share.num_batches)) for share in ranks(split, drop_last=False)]
    assert max(lengths) - min(lengths) <= 1


@quickly
@given(splits, st.booleans())
def test_no_batch_is_empty(split, drop_last):
    for share in ranks(split, drop_last):
        assert all(len(share.places(batch, batch + 1)) for batch in range(share.num_batches))


@quickly
@given(st.integers(0, 300), st.integers(1, 40), st.integers(1, 50))
def test_the_last_window_ends_inside_and_the_one_after_it_would_not(num_tokens, context_length, stride):
    windows = num_windows(num_tokens, context_length, stride)
    assert not windows or (windows - 1) * stride + context_length < num_tokens
    assert windows * stride + context_length >= num_tokens
