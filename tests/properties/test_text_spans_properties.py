"""Whatever a file holds and however it is cut: its spans give what the whole gives."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenspace import Tokenizer
from tokenspace.text import plan_spans, read_documents, read_span
from tokenspace.text.pieces import join_pieces

TEXT = st.text(st.sampled_from("ab éक़ख़क् 猫\n\r\t 12,.'\ufeff🙂\u200d"), max_size=200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("spans")


def joined(spans):
    return [piece.text for piece in join_pieces(piece for span in spans for piece in read_span(span))]


@settings(derandomize=True, deadline=None, max_examples=150)
@given(text=TEXT, span_bytes=st.integers(1, 60))
def test_plain_text(folder, text, span_bytes):
    path = folder / "a.txt"
    path.write_bytes(text.encode())
    _, spans = plan_spans([path], span_bytes, cuts_documents=True)
    assert [span.stop for span in spans[:-1]] == [span.start for span in spans[1:]]
    assert joined(spans) == [piece.text for piece in read_documents([path])]


@settings(derandomize=True, deadline=None, max_examples=150)
@given(text=TEXT, span_bytes=st.integers(1, 60))
def test_the_ids_of_cut_text_are_those_of_the_whole(folder, text, span_bytes):
    tokenizer, path = Tokenizer.gpt2(), folder / "b.txt"
    assert tokenizer.splits_at_spaces
    path.write_bytes(text.encode())
    _, spans = plan_spans([path], span_bytes, cuts_documents=True)
    pieces = [piece.text for span in spans for piece in read_span(span)]
    assert [i for piece in pieces for i in tokenizer.encode(piece)] == tokenizer.encode("".join(pieces))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(texts=st.lists(TEXT, max_size=8), span_bytes=st.integers(1, 300), blank=st.booleans())
def test_json_lines(folder, texts, span_bytes, blank):
    path = folder / "c.jsonl"
    ends = "\r\n\n" if blank else "\n"
    path.write_bytes("".join(json.dumps({"text": text}) + ends for text in texts).encode())
    _, spans = plan_spans([path], span_bytes, cuts_documents=True)
    pieces = [piece for span in spans for piece in read_span(span)]
    assert pieces == list(read_documents([path]))
