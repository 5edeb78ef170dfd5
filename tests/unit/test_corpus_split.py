"""Which documents validate."""

import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest

from tokenspace.corpus import split
from tokenspace.corpus.encoding import Encoded
from tokenspace.corpus.split import split_stream


def joined(lists):
    return list(itertools.chain.from_iterable(lists))


def batch(documents, seed=0):
    """Each document a list of pieces, each piece a list of ids."""
    pieces = [piece for document in documents for piece in document]
    keys = [hashlib.blake2b(repr((seed, piece)).encode(), digest_size=8).digest() for piece in pieces]
    return Encoded(
        ids=np.array(joined(pieces), np.uint32),
        lengths=np.array([len(piece) for piece in pieces], np.int64),
        ends=np.array([nth == len(document) - 1 for document in documents for nth in range(len(document))]),
        keys=np.frombuffer(b"".join(keys), "<u8"),
        short=np.array([len(document) == 1 for document in documents for _ in document]),
        origins=np.full(len(pieces), None),
    )


def documents_of(part):
    bounds = np.concatenate([[0], np.cumsum(part.lengths)[part.ends]])
    assert bounds[-1] == len(part.ids) == part.lengths.sum()
    return [part.ids[start:stop].tolist() for start, stop in itertools.pairwise(bounds)]


def sides(batches, fraction):
    """Documents that train and documents that validate."""
    found = {False: [], True: []}
    for part, validates in split_stream(batches, fraction):
        found[validates].append(part)
    return tuple(documents_of(Encoded.join(found[side])) if found[side] else [] for side in (False, True))


def documents(count, length, first=0):
    return [[list(range(first + n * length, first + (n + 1) * length))] for n in range(count)]


def flat(docs):
    return [joined(document) for document in docs]


def test_without_a_fraction_everything_trains_in_order():
    docs = documents(7, 3)
    assert sides([batch(docs[:4]), batch(docs[4:])], 0) == (flat(docs), [])


def test_documents_are_chosen_to_the_fraction():
    docs = documents(50, 10)
    train, validation = sides([batch(docs[:20]), batch(docs[20:])], 0.1)
    assert len(validation) == 5
    assert sorted(train + validation) == flat(docs)


def test_both_sides_keep_the_order_of_the_stream():
    train, validation = sides([batch(documents(50, 10))], 0.3)
    assert train == sorted(train)
    assert validation == sorted(validation)


def test_another_seed_chooses_others():
    docs = documents(50, 10)
    assert sides([batch(docs, seed=1)], 0.1) != sides([batch(docs, seed=2)], 0.1)


def test_the_choice_does_not_depend_on_the_order_of_documents():
    docs = documents(50, 10)
    assert sorted(sides([batch(docs)], 0.1)[1]) == sorted(sides([batch(docs[::-1])], 0.1)[1])


def test_documents_that_are_alike_stay_on_one_side():
    docs = documents(10, 10)
    train, validation = sides([batch(docs * 3)], 0.2)
    assert validation
    assert not [document for document in validation if document in train]


def test_validation_never_takes_more_than_half():
    train, validation = sides([batch(documents(2, 10))], 0.5)
    assert (len(train), len(validation)) == (1, 1)


@pytest.mark.parametrize(
    "docs",
    [
        documents(1, 100),  # one document
        documents(2, 50),  # too long to be one side of a tenth
        [*documents(1, 98), [[1]], [[2]]],  # too short to be a tenth
        documents(1, 50) * 2,  # alike
    ],
    ids=["one", "long", "short", "alike"],
)
def test_where_whole_documents_do_not_do_the_last_tokens_validate(docs):
    train, validation = sides([batch(docs)], 0.1)
    assert joined(train + validation) == joined(flat(docs))
    assert len(joined(validation)) == 10


def test_a_cut_at_the_end_of_a_document_cuts_none():
    docs = [[list(range(90))], [list(range(90, 95))], [list(range(95, 100))]]
    first_two = batch(docs)
    first_two = replace(first_two, keys=np.zeros(3, np.uint64))
    assert sides([first_two], 0.1) == (flat(docs[:1]), flat(docs[1:]))


def test_a_cut_inside_a_piece_ends_the_document_there():
    assert sides([batch([[[1, 2, 3], [4, 5, 6, 7, 8, 9, 10]]])], 0.2) == ([[1, 2, 3, 4, 5, 6, 7, 8]], [[9, 10]])


def test_empty_documents_after_the_cut_are_kept():
    docs = [[[1, 2, 3, 4, 5, 6, 7, 8]], [[]], [[9, 10]], [[]]]
    only = batch(docs)
    only = replace(only, keys=np.zeros(4, np.uint64))
    assert sides([only], 0.2) == ([[1, 2, 3, 4, 5, 6, 7, 8]], [[], [9, 10], []])


def test_a_single_token_is_not_parted():
    assert sides([batch([[[5]]])], 0.1) == ([[5]], [])


def test_a_stream_without_batches_gives_nothing():
    assert list(split_stream([], 0.1)) == []


def test_a_document_that_outweighs_all_others_trains():
    for seed in range(20):
        train, _ = sides([batch([*documents(300, 2), *documents(1, 5000, first=600)], seed)], 0.1)
        assert max(map(len, train)) == 5000


def test_many_documents_go_by_their_own_hash(monkeypatch):
    monkeypatch.setattr(split, "_EXACT_TOKENS", 0)
    docs = documents(2000, 3)
    _, validation = sides([batch(docs)], 0.1)
    _, of_first_half = sides([batch(docs[:1000])], 0.1)
    assert 120 < len(validation) < 280
    assert of_first_half == [document for document in validation if document in flat(docs[:1000])]


def test_batches_do_not_change_what_many_documents_do(monkeypatch):
    monkeypatch.setattr(split, "_EXACT_TOKENS", 0)
    monkeypatch.setattr(split, "TAIL_TOKENS", 50)
    docs = documents(600, 3)
    assert sides([batch(docs)], 0.1) == sides([batch(docs[n : n + 7]) for n in range(0, 600, 7)], 0.1)


def test_long_documents_among_many_train(monkeypatch):
    monkeypatch.setattr(split, "_EXACT_TOKENS", 3)
    docs = [[[n], [n + 1]] for n in range(0, 100, 2)]
    train, _ = sides([batch(docs)], 0.1)
    assert len(train) >= 45


def test_a_long_stream_of_one_document_validates_on_its_last_tokens(monkeypatch):
    monkeypatch.setattr(split, "_EXACT_TOKENS", 100)
    monkeypatch.setattr(split, "TAIL_TOKENS", 40)
    whole = batch([[list(range(n, n + 10)) for n in range(0, 1000, 10)]])
    parts = [whole.take(np.arange(100) // 4 == nth) for nth in range(25)]
    train, validation = sides(parts, 0.03)
    assert (train, validation) == ([list(range(970))], [list(range(970, 1000))])


def test_the_last_tokens_of_a_long_stream_are_at_most_those_held_back(monkeypatch):
    monkeypatch.setattr(split, "_EXACT_TOKENS", 100)
    monkeypatch.setattr(split, "TAIL_TOKENS", 40)
    whole = batch([[list(range(n, n + 10)) for n in range(0, 1000, 10)]])
    parts = [whole.take(np.arange(100) // 4 == nth) for nth in range(25)]
    _, validation = sides(parts, 0.5)
    assert validation == [list(range(961, 1000))]
