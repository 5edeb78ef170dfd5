"""Layout: where queries and keys stand, for every way to build one, and what is refused."""

from dataclasses import dataclass

import pytest
import torch

from tokenspace.errors import SettingError, ShapeError
from tokenspace.positions import Layout


@dataclass
class Cache:
    """The only thing `Layout.extend` reads of a cache."""

    layout: Layout | None = None


def test_contiguous_counts_from_0():
    layout = Layout.contiguous(4)
    assert layout.query_positions.tolist() == layout.key_positions.tolist() == [0, 1, 2, 3]
    assert (layout.query_length, layout.key_length, layout.max_distance, layout.max_position) == (4, 4, 3, 3)


def test_contiguous_needs_no_mask():
    assert Layout.contiguous(4).mask() is None
    assert Layout.contiguous(4).mask(causal=False) is None


def test_packed_positions_restart_with_each_document():
    layout = Layout.packed([2, 3])
    assert layout.query_positions.tolist() == [0, 1, 0, 1, 2]
    assert layout.query_documents.tolist() == [0, 0, 1, 1, 1]
    assert (layout.max_distance, layout.max_position) == (2, 2)


def test_packed_mask_is_block_diagonal_and_causal():
    assert Layout.packed([2, 1]).mask().int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert Layout.packed([2, 1]).mask(causal=False).int().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_rows_can_be_packed_differently():
    layout = Layout.packed([[1, 3], [4]])
    assert layout.query_positions.tolist() == [[0, 0, 1, 2], [0, 1, 2, 3]]
    assert layout.key_documents.tolist() == [[0, 1, 1, 1], [0, 0, 0, 0]]
    assert layout.mask().shape == (2, 1, 4, 4)
    assert layout.max_distance == 3


def test_padded_counts_real_tokens_only():
    layout = Layout.padded(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]]))
    assert layout.query_positions.tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]
    assert layout.key_valid.int().tolist() == [[0, 0, 1, 1], [1, 1, 1, 0]]
    assert (layout.max_distance, layout.max_position) == (2, 2)


def test_padded_mask_hides_padding_from_everyone():
    mask = Layout.padded(torch.tensor([[0, 1, 1]])).mask()
    assert mask.int().tolist() == [[[[0, 0, 0], [0, 1, 0], [0, 1, 1]]]]


def test_explicit_keeps_gaps_documents_and_padding():
    layout = Layout.explicit(torch.tensor([[3, 10, 4]]), torch.tensor([[8, 8, 9]]), torch.tensor([[1, 1, 0]]))
    assert layout.query_positions.tolist() == [[3, 10, 4]]
    assert layout.key_documents.tolist() == [[8, 8, 9]]
    assert layout.key_valid.tolist() == [[True, True, False]]
    assert (layout.max_distance, layout.max_position) == (7, 10)


def test_an_empty_cache_extends_nothing():
    layout = Layout.contiguous(3)
    assert layout.extend(Cache()) is layout


def test_extend_puts_queries_after_the_keys_of_a_cache():
    layout = Layout.contiguous(2).extend(Cache(Layout.contiguous(3)))
    assert layout.query_positions.tolist() == [3, 4]
    assert layout.key_positions.tolist() == [0, 1, 2, 3, 4]
    assert (layout.max_distance, layout.max_position) == (4, 4)
    assert layout.mask().int().tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]


def test_one_new_query_sees_the_whole_cache_without_a_mask():
    assert Layout.contiguous(1).extend(Cache(Layout.contiguous(3))).mask() is None


def test_extend_goes_on_after_each_rows_own_last_token():
    past = Layout.padded(torch.tensor([[0, 1, 1], [1, 1, 1]]))
    layout = Layout.contiguous(2).extend(Cache(past))
    assert layout.query_positions.tolist() == [[2, 3], [3, 4]]
    assert layout.key_valid.int().tolist() == [[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]


def test_extend_goes_on_after_right_padding():
    layout = Layout.contiguous(1).extend(Cache(Layout.padded(torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]))))
    assert layout.query_positions.tolist() == [[2], [4]]


def test_extend_goes_on_after_the_largest_position():
    layout = Layout.contiguous(2).extend(Cache(Layout.explicit(torch.tensor([[3, 10, 4], [0, 1, 2]]))))
    assert layout.query_positions.tolist() == [[11, 12], [3, 4]]


def test_extend_goes_on_in_the_last_document():
    layout = Layout.contiguous(2).extend(Cache(Layout.packed([3, 2])))
    assert layout.query_positions.tolist() == [2, 3]
    assert layout.query_documents.tolist() == [1, 1]
    assert layout.mask()[0].int().tolist() == [0, 0, 0, 1, 1, 1, 0]


def test_new_tokens_can_be_padded_after_a_cache():
    layout = Layout.padded(torch.tensor([[1, 0], [1, 1]])).extend(Cache(Layout.contiguous(2)))
    assert layout.query_positions.tolist() == [[2, 2], [2, 3]]
    assert layout.key_valid.int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_documents_cannot_follow_a_cache():
    with pytest.raises(ShapeError) as caught:
        Layout.packed([1, 1]).extend(Cache(Layout.contiguous(2)))
    assert str(caught.value) == (
        "`layout` must hold one document a row to follow a cache, but is 'packed'. Unpack the documents."
    )


def test_memory_stands_before_the_queries():
    layout = Layout.contiguous(3).with_memory(2)
    assert layout.query_positions.tolist() == [2, 3, 4]
    assert layout.key_positions.tolist() == [0, 1, 2, 3, 4]
    assert layout.mask().int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert (layout.max_distance, layout.max_position) == (4, 4)


def test_memory_keys_are_never_padding():
    layout = Layout.padded(torch.tensor([[0, 1]])).with_memory(2)
    assert layout.key_valid.int().tolist() == [[1, 1, 0, 1]]
    assert layout.key_positions.tolist() == [[0, 1, 2, 2]]


LEFT, RIGHT = torch.tensor([[0, 0, 1], [1, 1, 1]]), torch.tensor([[1, 1, 0], [1, 1, 1]])
NEW = Layout.contiguous(2)


@pytest.mark.parametrize(
    "layout",
    [
        Layout.contiguous(3).with_memory(2),
        Layout.packed([2, 3]),
        Layout.packed([[2, 3], [5]]),
        Layout.padded(LEFT),
        Layout.padded(RIGHT),
        Layout.padded(torch.tensor([[0, 0], [0, 1]])),
        NEW.extend(Cache(Layout.packed([2, 3]))),
        NEW.extend(Cache(NEW.extend(Cache(Layout.padded(LEFT))))),
    ],
)
def test_layouts_that_are_consecutive_wherever_a_query_may_look(layout):
    assert layout.consecutive


@pytest.mark.parametrize(
    "layout",
    [
        Layout.explicit(torch.tensor([0, 1, 3])),
        Layout.explicit(torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 0, 0])),
        Layout.padded(torch.tensor([[1, 0, 1]])),
        Layout.padded(LEFT).with_memory(2),  # the padding stands between
        NEW.extend(Cache(Layout.padded(RIGHT))),
        NEW.extend(Cache(NEW.extend(Cache(Layout.padded(RIGHT))))),
        Layout.padded(LEFT).extend(Cache(NEW)),
    ],
)
def test_layouts_whose_positions_are_not_their_places(layout):
    assert not layout.consecutive


def test_the_distance_to_memory_counts_gaps():
    assert Layout.explicit(torch.tensor([5, 9])).with_memory(2).max_distance == 11


def test_documents_have_no_memory():
    with pytest.raises(ShapeError) as caught:
        Layout.packed([2, 1]).with_memory(4)
    assert str(caught.value) == (
        "`layout` must hold one document a row to have memory, but is 'packed'. Unpack the documents."
    )


@pytest.mark.parametrize("build", [Layout.contiguous, lambda length: Layout.packed([3, length])])
def test_a_length_below_1_is_refused(build):
    with pytest.raises(SettingError) as caught:
        build(0)
    assert str(caught.value) == "`length` must be a whole number of at least 1, but is 0. Give 1 or more."


@pytest.mark.parametrize(("lengths", "sums"), [([[1, 2], [4]], "[3, 4]"), ([], "[0]"), ([[]], "[0]")])
def test_packed_rows_need_one_length(lengths, sums):
    with pytest.raises(ShapeError) as caught:
        Layout.packed(lengths)
    assert str(caught.value) == f"`lengths` must sum to one row length above 0, but is {sums}. Pad or cut a row."


def test_a_padding_mask_has_two_axes():
    with pytest.raises(ShapeError) as caught:
        Layout.padded(torch.ones(3))
    assert str(caught.value) == "`mask` must have shape (batch, length), but is (3,). Add the missing axis."


def test_documents_need_the_shape_of_positions():
    with pytest.raises(ShapeError) as caught:
        Layout.explicit(torch.arange(3), torch.zeros(2))
    assert str(caught.value) == "`documents` must have the shape (3,) of positions, but is (2,). Match it."


@pytest.mark.parametrize("positions", [torch.tensor([-1, 0]), torch.tensor([0.5]), torch.tensor([], dtype=torch.long)])
def test_explicit_positions_are_whole_numbers_from_0(positions):
    with pytest.raises(ShapeError, match="`positions` must be"):
        Layout.explicit(positions)


def test_new_positions_that_do_not_start_at_0_are_as_far_as_they_stand():
    layout = Layout.explicit(torch.tensor([10, 11, 12])).extend(Cache(Layout.contiguous(3)))
    assert layout.query_positions.tolist() == [13, 14, 15]
    assert layout.max_distance == int(layout.relative_positions().abs().max()) == 15


def test_narrow_positions_become_int64():
    layout = Layout.explicit(torch.tensor([3, 250], dtype=torch.uint8))
    assert layout.relative_positions().tolist() == [[0, 247], [-247, 0]]


def test_validity_of_another_length_is_refused():
    with pytest.raises(ShapeError, match=r"`valid` must have shape \(batch, 2\), but is \(1, 3\)"):
        Layout.explicit(torch.arange(2), valid=torch.ones(1, 3, dtype=torch.bool))
