import itertools

import numpy as np
import pytest

from tokenspace.errors import SettingError
from tokenspace.windows import KeyedPermutation, Share, WindowOrder, num_windows


def whole(size, key):
    return KeyedPermutation(size, key)(np.arange(size)).tolist()


def share(**settings):
    return Share(**{"start": 0, "stop": 10, "batch_size": 2, **settings})


@pytest.mark.parametrize("num_tokens", [0, 1, 4, 5, 6, 7, 8, 9, 100])
@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5, 99, 1000])
def test_num_windows_counts_what_the_rule_of_the_design_admits(num_tokens, stride):
    assert num_windows(num_tokens, 4, stride) == sum(i * stride < num_tokens - 4 for i in range(num_tokens))


def test_num_windows_is_exact_for_a_trillion_tokens():
    assert num_windows(10**12 + 1, 1, 1) == 10**12


def test_stride_below_1():
    with pytest.raises(SettingError) as error:
        num_windows(10, 4, 0)
    assert str(error.value) == "`stride` must be a whole number of at least 1, but is 0. Give 1 or more."


def test_context_length_below_1():
    with pytest.raises(SettingError, match=r"^`context_length` must be a whole number of at least 1, but is -3\. "):
        num_windows(10, -3, 1)


@pytest.mark.parametrize("size", [*range(1, 70), 127, 128, 129, 1000, 4097])
def test_a_permutation_hits_every_index_once(size):
    assert sorted(whole(size, key=7)) == list(range(size))


@pytest.mark.parametrize(
    ("size", "key", "goes_to"),  # of the indices 0 … 3 and the last: an order once used is never changed
    [
        (10, 0, [4, 6, 9, 1, 2]),
        (10, 1, [3, 4, 2, 8, 0]),
        (64, -1, [22, 59, 47, 20, 52]),
        (1000, 123, [866, 244, 528, 850, 40]),
        (2**32 - 5, 7, [3066623547, 3832403037, 3961205481, 2181585279, 2583259985]),
        (2**40 + 1, 2**70, [679345258640, 985402025683, 989992335893, 901750492290, 920452093651]),
        (
            2**62,
            5,
            [1297950415358142288, 4366063836115108203, 4579766154168550825, 442259525392636736, 3177286267503808555],
        ),
    ],
)
def test_a_key_gives_the_same_order_on_every_machine(size, key, goes_to):
    assert KeyedPermutation(size, key)(np.array([0, 1, 2, 3, size - 1])).tolist() == goes_to


def test_a_permutation_keeps_the_shape_and_gives_int64():
    out = KeyedPermutation(100, 1)(np.arange(6, dtype=np.uint32).reshape(2, 3))
    assert (out.shape, out.dtype) == ((2, 3), np.int64)


def test_a_permutation_of_no_indices_is_empty():
    assert KeyedPermutation(100, 1)(np.arange(0)).tolist() == []


def test_a_permutation_leaves_its_input_alone():
    indices = np.arange(50, dtype=np.uint64)
    KeyedPermutation(50, 1)(indices)
    assert indices.tolist() == list(range(50))


def test_size_below_1():
    with pytest.raises(SettingError, match=r"^`size` must be a whole number of at least 1, but is 0\. "):
        KeyedPermutation(0, 1)


def test_size_beyond_62_bits():
    with pytest.raises(SettingError) as error:
        KeyedPermutation(2**62 + 1, 1)
    assert str(error.value) == "`size` must be at most 2**62, but is 4611686018427387905. Split the corpus."


def test_all_orders_of_four_are_about_equally_frequent():
    keys = 1200
    orders = [tuple(whole(4, key)) for key in range(keys)]
    expected = keys / 24
    chi_square = sum((orders.count(order) - expected) ** 2 / expected for order in itertools.permutations(range(4)))
    assert chi_square < 58  # 23 degrees of freedom: one in 10,000 good shuffles is above


@pytest.mark.parametrize("size", [300, 5000, 2**16, 100_003])
def test_fixed_points_are_as_rare_as_in_a_random_order(size):
    indices = np.arange(size)
    fixed = sum(int((KeyedPermutation(size, key)(indices) == indices).sum()) for key in range(100))
    assert 60 < fixed < 140  # Poisson, mean 100


@pytest.mark.parametrize("size", [1000, 2**16, 100_003])
def test_neighbours_are_not_correlated(size):
    out = KeyedPermutation(size, 3)(np.arange(size))
    assert abs(np.corrcoef(out[:-1], out[1:])[0, 1]) < 4 / np.sqrt(size)


@pytest.mark.parametrize("size", [2**16, 100_003])
def test_every_stretch_of_the_order_is_drawn_from_all_over(size):
    out = KeyedPermutation(size, 5)(np.arange(size))
    parts = 16
    counts = np.histogram2d(np.arange(size), out, bins=parts)[0]
    expected = size / parts**2
    assert ((counts - expected) ** 2 / expected).sum() < 330  # 225 degrees of freedom


def test_neighbouring_epochs_are_not_correlated():
    places = np.arange(50_000)
    first, second = (
        WindowOrder(num_windows=50_000, shuffle=True, seed=1, epoch=epoch).windows(places) for epoch in (0, 1)
    )
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02


def test_an_order_that_is_not_shuffled_is_the_stream():
    order = WindowOrder(num_windows=9, shuffle=False, seed=1, epoch=3)
    assert order.windows(np.arange(2, 6)).tolist() == [2, 3, 4, 5]


def test_the_next_epoch_of_a_seed_is_not_the_first_of_the_next_seed():
    places = np.arange(100)
    second = WindowOrder(num_windows=100, shuffle=True, seed=1, epoch=1).windows(places)
    other = WindowOrder(num_windows=100, shuffle=True, seed=2, epoch=0).windows(places)
    assert second.tolist() != other.tolist()


def test_each_rank_takes_every_second_place_of_two():
    taken = [share(rank=rank, world_size=2).places(0, 2).tolist() for rank in (0, 1)]
    assert taken == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_drop_last_drops_the_step_that_not_all_ranks_can_fill():
    assert [share(rank=rank, world_size=2, drop_last=True).num_batches for rank in (0, 1)] == [2, 2]


def test_without_drop_last_a_rank_may_have_a_batch_less():
    assert [share(stop=9, rank=rank, world_size=2, drop_last=False).num_batches for rank in (0, 1)] == [3, 2]


def test_a_step_consumes_the_batches_of_all_ranks():
    assert share(start=1, stop=100, world_size=3).consumed(2) == 13


def test_no_more_is_consumed_than_there_is():
    assert share(drop_last=False, batch_size=4).consumed(3) == 10
