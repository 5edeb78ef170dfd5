"""Documents as streams of pieces."""

import itertools

import pytest

from tokenspace.text import Piece, join_documents, read_strings
from tokenspace.text.pieces import PIECE_CHARACTERS, cut_into_pieces

LONG = 3 * PIECE_CHARACTERS


def test_a_short_string_is_one_piece_with_its_number():
    assert list(read_strings(["one two", "three"])) == [
        Piece("one two", True, "strings", 0),
        Piece("three", True, "strings", 1),
    ]


def test_an_empty_string_is_an_empty_document():
    assert list(read_strings([""])) == [Piece("", True, "strings", 0)]


def test_a_string_of_just_the_limit_stays_whole():
    text = "ab " * (PIECE_CHARACTERS // 3)
    assert len(list(read_strings([text + "c" * (PIECE_CHARACTERS - len(text))]))) == 1


@pytest.mark.parametrize("unit", ["word and word ", "बिल्ली चटाई पर बैठी ", "x² y  z\n\tq 12 "])
def test_a_long_string_is_cut_before_spaces_that_follow_letters(unit):
    text = unit * (LONG // len(unit))
    pieces = list(read_strings([text]))
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.ends_document for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert len(pieces) >= 3
    assert max(len(piece.text) for piece in pieces) < 1.3 * PIECE_CHARACTERS
    for before, after in itertools.pairwise(pieces):
        assert before.text[-1].isalpha() and after.text[0] == " "


@pytest.mark.parametrize("unit", ["a", "12 ", "² ", "\n"])
def test_without_a_place_to_cut_the_piece_grows(unit):
    text = unit * (LONG // len(unit))
    assert [piece.text for piece in read_strings([text])] == [text]


def test_a_piece_that_grew_ends_at_the_first_chunk_with_a_place():
    pieces = list(cut_into_pieces(["a" * LONG, "b c", "d"], "x", 7))
    assert [(len(piece.text), piece.ends_document, piece.row) for piece in pieces] == [
        (LONG + 1, False, 7),
        (3, True, 7),
    ]


def test_join_documents_gives_whole_documents():
    text = "word " * (LONG // 5)
    assert list(join_documents(read_strings([text, "", "short"]))) == [text, "", "short"]
