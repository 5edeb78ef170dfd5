"""Layouts against an oracle that looks at every pair of query and key, and schemes at any positions."""

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scheme_cases import CASES, attended, build, close
from tokenspace.positions import Layout
from tokenspace.positions.learned import Learned
from tokenspace.positions.sinusoidal import Sinusoidal

quick = settings(derandomize=True, deadline=None, max_examples=60)


class Cache:
    def __init__(self, layout):
        self.layout = layout


@st.composite
def packed(draw):
    total = draw(st.integers(1, 8))
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        cuts = sorted(draw(st.sets(st.integers(1, total), max_size=3)) | {total})
        rows.append([stop - start for start, stop in zip([0, *cuts], cuts, strict=False)])
    return Layout.packed(rows if draw(st.booleans()) else rows[0])


@st.composite
def padded(draw):
    """Padding on one side, or anywhere."""
    length = draw(st.integers(1, 7))
    one_side = st.tuples(st.integers(0, length - 1), st.booleans()).map(
        lambda pad: [int(i >= pad[0]) if pad[1] else int(i < length - pad[0]) for i in range(length)]
    )
    row = draw(st.sampled_from([one_side, st.lists(st.integers(0, 1), min_size=length, max_size=length)]))
    return Layout.padded(torch.tensor(draw(st.lists(row, min_size=1, max_size=3))))


@st.composite
def explicit(draw):
    rows, length = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    places = st.lists(st.integers(0, 40), min_size=length, max_size=length)
    positions = torch.tensor(draw(st.lists(places, min_size=rows, max_size=rows)))
    documents = None
    if draw(st.booleans()):
        documents = torch.tensor(
            draw(st.lists(st.lists(st.integers(0, 2), min_size=length, max_size=length), min_size=rows, max_size=rows))
        )
    valid = torch.rand(rows, length, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))) < 0.7
    return Layout.explicit(positions, documents, draw(st.sampled_from([None, valid])))


contiguous = st.integers(1, 8).map(Layout.contiguous)
starts = st.one_of(contiguous, packed(), padded(), explicit())


@st.composite
def layouts(draw, starts=starts):
    """Any layout: a start alone, with new tokens after it as a cache, or with memory before it."""
    layout = draw(starts)
    change = draw(st.sampled_from(["none", "cache", "memory"]))
    if change == "cache":
        for _ in range(draw(st.integers(1, 2))):
            layout = draw(contiguous).extend(Cache(layout))
    if change == "memory" and layout.query_documents is None:
        layout = layout.with_memory(draw(st.integers(0, 5)))
    return layout


def rows_of(layout):
    """Every tensor of a layout as (B, length) lists; None stays None."""
    fields = (
        layout.query_positions,
        layout.key_positions,
        layout.query_documents,
        layout.key_documents,
        layout.key_valid,
    )
    B = max(1 if field is None or field.dim() == 1 else field.shape[0] for field in fields)
    return B, [None if field is None else field.expand(B, -1).tolist() for field in fields]


@quick
@given(layouts(), st.booleans())
def test_the_mask_is_what_looking_at_every_pair_gives(layout, causal):
    T, S = layout.query_length, layout.key_length
    B, (_, _, query_documents, key_documents, valid) = rows_of(layout)

    def seen(b, t, s):
        same = query_documents is None or query_documents[b][t] == key_documents[b][s]
        return same and (valid is None or valid[b][s]) and (not causal or s <= S - T + t)

    expected = torch.tensor([[[seen(b, t, s) for s in range(S)] for t in range(T)] for b in range(B)])
    mask = layout.mask(causal)
    if mask is None:  # plain attention: causal where there are as many keys as queries, else over all keys
        mask = torch.ones(T, S, dtype=torch.bool)
        mask = mask.tril() if causal and T == S else mask
    assert torch.equal(mask.reshape(-1, T, S).expand(B, T, S), expected)


@quick
@given(layouts())
def test_relative_positions_are_keys_minus_queries_and_within_the_declared_distance(layout):
    B, (queries, keys, *_) = rows_of(layout)
    T, S = layout.query_length, layout.key_length
    expected = torch.tensor([[[keys[b][s] - queries[b][t] for s in range(S)] for t in range(T)] for b in range(B)])
    relative = layout.relative_positions()
    assert torch.equal(relative.reshape(-1, T, S).expand(B, T, S), expected)
    assert int(relative.abs().max()) <= layout.max_distance


moved = layouts(st.one_of(packed(), padded()))
thorough = settings(derandomize=True, deadline=None, max_examples=300)


@thorough
@given(moved)
def test_consecutive_layouts_depend_on_the_places_alone_wherever_a_real_query_may_look(layout):
    if layout.consecutive:
        T, S = layout.query_length, layout.key_length
        looks = torch.ones(1, T, S, dtype=torch.bool) & real_queries(layout).unsqueeze(-1)
        if layout.query_documents is not None or layout.key_valid is not None:
            looks = looks & layout.mask(causal=False).reshape(-1, T, S)
        by_place = torch.arange(S) - torch.arange(S - T, S).unsqueeze(1)
        wrong = layout.relative_positions() != by_place
        assert not (looks & wrong).any()


def real_queries(layout):
    """Which queries are no padding: (B or 1, T)."""
    T = layout.query_length
    return torch.ones(1, T, dtype=torch.bool) if layout.key_valid is None else layout.key_valid[:, -T:]


@thorough
@given(moved, st.sampled_from(["alibi", "t5", "transformer_xl", "transformer_xl, shared"]), st.integers(0, 99))
def test_what_is_done_by_place_equals_what_is_done_by_position(layout, case, seed):
    scheme = build(case)
    B, _ = rows_of(layout)
    generator = torch.Generator().manual_seed(seed)
    T, S = layout.query_length, layout.key_length
    q, k, v = (torch.randn(B, 4, length, 4, generator=generator) for length in (T, S, S))
    layout = replace(layout, rotated=0)  # `attended` rotates all keys
    real = real_queries(layout).view(-1, 1, T, 1)
    fast, slow = (attended(scheme, q, k, v, one) * real for one in (layout, replace(layout, consecutive=False)))
    close(fast, slow)


@quick
@given(layouts())
def test_no_position_is_above_the_declared_one(layout):
    _, (queries, keys, *_) = rows_of(layout)
    assert max(max(row) for row in queries + keys) <= layout.max_position


@quick
@given(st.one_of(contiguous, packed(), padded()))
def test_the_largest_position_is_reached(layout):
    assert int(layout.query_positions.max()) == layout.max_position == layout.max_distance


@quick
@given(st.lists(st.integers(0, 63), min_size=1, max_size=8), st.sampled_from([Learned, Sinusoidal]))
def test_any_positions_gather_from_the_whole_table(where, kind):
    sizes = {"num_positions": 64} if kind is Learned else {}
    scheme, places = kind(d_model=6, **sizes), torch.tensor(where)
    whole = scheme.embed(torch.zeros(1, 64, 6))
    torch.testing.assert_close(scheme.embed(torch.zeros(1, len(where), 6), places), whole[:, places])


INDEPENDENT_OF_LENGTH = [case for case in CASES if not build(case).enters_input and not build(case).length_dependent]


@settings(derandomize=True, deadline=None, max_examples=200)
@given(layouts(), st.sampled_from(INDEPENDENT_OF_LENGTH), st.integers(0, 99))
def test_a_query_gets_what_the_keys_it_sees_would_give_it_alone(layout, case, seed):
    """Packed, padded, cached, with memory or gaps: everything but the seen keys might as well not be there."""
    scheme = build(case)
    B, (_, keys, query_documents, key_documents, valid) = rows_of(layout)
    T, S = layout.query_length, layout.key_length
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(B, 4, length, 4, generator=generator) for length in (T, S, S))
    layout = replace(layout, rotated=0)  # `attended` rotates all keys
    together = attended(scheme, q, k, v, layout)
    for b in range(B):
        for t in range(T):
            seen = [
                s
                for s in range(S - T + t + 1)
                if (query_documents is None or query_documents[b][t] == key_documents[b][s])
                and (valid is None or valid[b][s])
            ]
            if not seen:
                assert not together[b, :, t].any()
            elif seen[-1] == S - T + t:  # a query whose own key is hidden stands nowhere among those it sees
                alone = Layout.explicit(torch.tensor([keys[b][s] for s in seen]))
                rows = q.new_zeros(1, 4, len(seen), 4)
                rows[0, :, -1] = q[b, :, t]
                close(attended(scheme, rows, k[b : b + 1][:, :, seen], v[b : b + 1][:, :, seen], alone)[0, :, -1],
                      together[b, :, t])  # fmt: skip
