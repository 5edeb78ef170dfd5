"""For any documents, pieces, shards and windows: what goes in comes out."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenspace.corpus import Corpus, build_corpus, encoding
from tokenspace.text import join_documents, read_strings
from tokenspace.text import pieces as pieces_room
from tokenspace.text.pieces import cut_into_pieces
from tokenspace.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["the cat sat on the mat and the dog sat on the log; " * 20], 300)
CHARACTERS = st.characters(codec="utf-8")
TEXTS = st.lists(st.text(st.sampled_from("ab  1é\n") | CHARACTERS, max_size=30), min_size=1, max_size=12)


@pytest.fixture(scope="module", autouse=True)
def small_pieces_and_batches():
    """Sizes at which a few characters already cross every border."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("PIECE_CHARACTERS", 8), ("_STEP", 3)):
            patch.setattr(pieces_room, name, value)
        patch.setattr(encoding, "_BATCH_CHARACTERS", 20)
        yield


@given(TEXTS)
@settings(derandomize=True, deadline=None, max_examples=200)
def test_pieces_join_to_the_documents(texts):
    assert list(join_documents(read_strings(texts))) == texts


@given(st.lists(st.text(st.sampled_from("ab  1é\n"), max_size=9), max_size=9))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_chunks_do_not_change_the_document_and_cuts_are_before_spaces(chunks):
    pieces = list(cut_into_pieces(chunks, "x", 0))
    assert "".join(piece.text for piece in pieces) == "".join(chunks)
    assert all(piece.text[-1].isalpha() for piece in pieces[:-1])
    assert all(piece.text.startswith(" ") for piece in pieces[1:])


@given(TEXTS, st.sampled_from([0, 0.1, 0.5]), st.integers(1, 60), st.booleans(), st.data())
@settings(derandomize=True, deadline=None, max_examples=60)
def test_a_corpus_holds_the_documents_and_its_windows_are_slices(texts, fraction, shard_bytes, end_of_text, data):
    texts = [*texts, "ab"]
    ends = [TOKENIZER.eot_id] if end_of_text else []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "corpus")
        train = build_corpus(
            read_strings(texts),
            TOKENIZER,
            out,
            validation_fraction=fraction,
            end_of_text=end_of_text,
            shard_bytes=shard_bytes,
        )
        parts = [train]
        if "validation" in train.manifest.splits:
            parts.append(Corpus.open(out, "validation"))
        expected = sorted(token for text in texts for token in [*TOKENIZER.encode(text), *ends])
        assert sorted(int(token) for part in parts for token in part.tokens(0, part.num_tokens)) == expected
        for part in parts:
            part.verify()
            _check_windows(part, data)


def _check_windows(part, data):
    oracle = np.concatenate([np.fromfile(file, part.dtype) for file in sorted(part.path.glob(f"{part.split}-*.bin"))])
    length = data.draw(st.integers(1, part.num_tokens))
    starts = data.draw(st.lists(st.integers(0, part.num_tokens - length), max_size=20))
    windows = part.gather(np.array(starts, np.int64), length)
    assert windows.tolist() == [oracle[start : start + length].tolist() for start in starts]
    documents = [part.document(n).tolist() for n in range(part.num_documents)]
    assert sum(documents, []) == oracle.tolist()  # noqa: RUF017
