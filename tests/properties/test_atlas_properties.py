"""What holds of an atlas for any table, any text and any number of steps."""

import json

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tokenspace.atlas.data import end_to_end, plain
from tokenspace.atlas.health import equal_rows, health, mean_cosine
from tokenspace.atlas.kinds import COMMON, script_of
from tokenspace.atlas.projection import full_scale, whole_numbers
from tokenspace.checkpoint.components import finite_rows, principal_components
from tokenspace.inspection import nearest as search
from tokenspace.inspection import nearest_rows
from tokenspace.training.frames import steps_of_frames

quick = settings(derandomize=True, deadline=None, max_examples=60)
SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
# few values, so that rows are often equal, zero, or on one line
FEW = st.sampled_from([-1.0, 0.0, -0.0, 0.5, 2.0])
TABLES = arrays.arrays(np.float32, SHAPES, elements=FEW)
MARRED = arrays.arrays(np.float32, SHAPES, elements=st.one_of(FEW, st.sampled_from([np.nan, np.inf])))


@quick
@given(st.lists(st.binary(max_size=9)))
def test_byte_strings_come_apart_again(pieces):
    data, offsets = end_to_end(pieces)
    assert [bytes(data[offsets[i] : offsets[i + 1]]) for i in range(len(pieces))] == pieces


@quick
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters())),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(st.characters()), inner)),
        max_leaves=20,
    )
)
def test_anything_becomes_json_that_utf8_holds(value):
    found = plain(value)
    assert json.loads(json.dumps(found, allow_nan=False, ensure_ascii=False).encode()) == found


@quick
@given(st.text())
def test_the_script_of_a_text_is_that_of_a_character_and_common_only_where_all_are(text):
    of_characters = {script_of(character) for character in text} - {COMMON}
    assert script_of(text) in (of_characters or {COMMON})


@quick
@given(MARRED, st.integers(1, 6), st.integers(1, 5))
def test_neighbours_have_the_largest_cosines_whatever_the_blocks(points, k, block):
    table = torch.from_numpy(points)
    before = search._BLOCK
    search._BLOCK = block
    try:
        found = nearest_rows(table, k)
    finally:
        search._BLOCK = before
    rows = finite_rows(table)
    assert torch.equal(found.rows, rows)
    unit = torch.nn.functional.normalize(table[rows].double())
    cosines = unit @ unit.t()
    for place, row in enumerate(rows.tolist()):
        others = torch.cat([cosines[place, :place], cosines[place, place + 1 :]]).sort(descending=True).values
        torch.testing.assert_close(found.cosines[place].double(), others[:k], rtol=0, atol=1e-6)
        nearest = found.nearest[place].tolist()
        assert row not in nearest and len(set(nearest)) == len(nearest)
        own = cosines[place, torch.searchsorted(rows, found.nearest[place])]
        torch.testing.assert_close(found.cosines[place].double(), own, rtol=0, atol=1e-6)


@quick
@given(TABLES, st.data())
def test_some_rows_have_the_cosines_that_all_rows_have(points, data):
    table = torch.from_numpy(points)
    asked = data.draw(st.lists(st.integers(0, len(table) - 1), min_size=1, unique=True).map(sorted))
    some, everything = nearest_rows(table, 4, torch.tensor(asked)), nearest_rows(table, 4)
    torch.testing.assert_close(some.cosines, everything.cosines[asked], rtol=0, atol=1e-6)


@quick
@given(MARRED)
def test_equal_rows_name_each_later_row_once(points):
    table = torch.from_numpy(points)
    pairs = equal_rows(table).tolist()
    rows = finite_rows(table).tolist()
    later = [second for _, second in pairs]
    assert later == sorted(set(later)) and set(later) <= set(rows)
    assert all(torch.equal(table[first], table[second]) and first < second for first, second in pairs)
    distinct = {tuple((points[row] + 0.0).tolist()) for row in rows}
    assert len(rows) - len(pairs) == len(distinct)


@quick
@given(TABLES)
def test_numbers_of_a_table_lie_where_they_must(points):
    table = torch.from_numpy(points)
    found, spectrum = health(table, equal_rows(table))
    assert 0 <= found["isotropy"] <= 1 + 1e-12
    assert -1 - 1e-9 <= found["mean_cosine"] <= 1 + 1e-9
    assert found["effective_rank"] <= min(points.shape) + 1e-4
    assert (np.diff(spectrum) <= 1e-4).all() and (spectrum >= 0).all()
    np.testing.assert_allclose((spectrum**2).sum(), (points**2).sum(), rtol=1e-3, atol=1e-5)


@quick
@given(TABLES, st.floats(0.1, 10))
def test_the_mean_cosine_does_not_know_lengths(points, scale):
    table = torch.from_numpy(points)
    assert abs(mean_cosine(table * scale) - mean_cosine(table)) < 1e-6


@quick
@given(MARRED)
def test_principal_axes_are_of_length_1_and_at_right_angles(points):
    table = torch.from_numpy(points)
    if not len(finite_rows(table)):
        return
    basis = principal_components(table)
    number = len(basis.components)
    torch.testing.assert_close(basis.components @ basis.components.t(), torch.eye(number), rtol=0, atol=1e-5)
    assert (basis.explained.diff() <= 1e-6).all() and basis.explained.sum() <= 1 + 1e-5


@quick
@given(arrays.arrays(np.float32, SHAPES, elements=st.floats(-1e6, 1e6, width=32)))
def test_whole_numbers_are_off_by_no_more_than_half_a_step(points):
    found = torch.from_numpy(points).unsqueeze(0)
    scale = full_scale(found)
    again = whole_numbers(found, scale)[0].astype(np.float64) * scale / 32767
    assert np.abs(again - points).max() <= scale / 32767 * 0.501


@quick
@given(st.integers(1, 10**7), st.integers(0, 500))
def test_frames_are_as_many_as_asked_for_later_and_later(steps, frames):
    due = [0, *steps_of_frames(steps, frames)]
    assert len(due) == 1 + min(steps, frames)
    gaps = np.diff(due)
    assert (gaps >= 1).all() and (np.diff(gaps) >= -1).all()
    assert frames == 0 or due[-1] == steps
