"""Whatever the documents: what is exported and imported again has the same ids, documents and splits."""

import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenspace.corpus import Corpus, build_corpus
from tokenspace.corpus.interchange import export as export_corpus
from tokenspace.corpus.interchange import foreign, import_megatron, import_nanogpt
from tokenspace.corpus.interchange import megatron as megatron_room
from tokenspace.text import read_strings
from tokenspace.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["the cat sat on the mat and the dog sat on the log; " * 20], 300)
TEXTS = st.lists(st.text(st.sampled_from("ab the 1é\n\x01"), max_size=25), min_size=1, max_size=12)


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """Sizes at which a few ids already cross every border."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign, "BLOCK_TOKENS", 5)
        patch.setattr(megatron_room, "_CHUNK", 3)
        yield


def contents(path):
    """Every document of every split, and what the manifest counts."""
    manifest = Corpus.open(path).manifest
    parts = [Corpus.open(path, split) for split in manifest.splits]
    for part in parts:
        part.verify()
    documents = {part.split: [part.document(nth).tolist() for nth in range(part.num_documents)] for part in parts}
    return documents, manifest.statistics, manifest.end_of_text, manifest.dtype


@given(TEXTS, st.sampled_from([0, 0.5]), st.integers(1, 60), st.booleans())
@settings(derandomize=True, deadline=None, max_examples=60)
def test_megatron_and_back_is_the_same_corpus(texts, fraction, shard_bytes, end_of_text):
    with tempfile.TemporaryDirectory() as folder:
        first, out, second = (Path(folder, name) for name in ("first", "out", "second"))
        options = {"validation_fraction": fraction, "shard_bytes": shard_bytes, "end_of_text": end_of_text}
        build_corpus(read_strings([*texts, "ab"]), TOKENIZER, first, **options)
        import_megatron([export_corpus(first, out, format="megatron")], second, tokenizer=TOKENIZER)
        assert contents(second) == contents(first)


@given(TEXTS, st.sampled_from([0, 0.5]), st.integers(1, 60), st.sampled_from(["nanogpt", "llm.c"]))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_nanogpt_and_back_is_the_same_corpus_where_documents_end_with_end_of_text(texts, fraction, shard_bytes, format):
    with tempfile.TemporaryDirectory() as folder:
        first, out, second = (Path(folder, name) for name in ("first", "out", "second"))
        build_corpus(
            read_strings([*texts, "a", "b"]), TOKENIZER, first, validation_fraction=fraction, shard_bytes=shard_bytes
        )
        export_corpus(first, out, format=format)
        import_nanogpt([out], second, tokenizer=TOKENIZER, end_of_text="append")
        assert contents(second) == contents(first)


@given(st.lists(st.lists(st.sampled_from([5, 6, TOKENIZER.eot_id]), max_size=8), min_size=1, max_size=4), st.booleans())
@settings(derandomize=True, deadline=None, max_examples=100)
def test_documents_over_several_files_are_those_of_one_stream(files, prepend):
    ids = sum(files, [])  # noqa: RUF017
    expected, document = [], []
    for token in ids:
        if prepend and token == TOKENIZER.eot_id and document:
            expected.append(document)
            document = []
        document.append(token)
        if not prepend and token == TOKENIZER.eot_id:
            expected.append(document)
            document = []
    expected += [document] if document else []
    with tempfile.TemporaryDirectory() as folder:
        for nth, part in enumerate([*files, [7]]):  # one token at least
            np.array(part, "<u2").tofile(Path(folder, f"{nth}.bin"))
        where = "prepend" if prepend else "append"
        import_nanogpt([folder], Path(folder, "c"), tokenizer=TOKENIZER, end_of_text=where)
        if expected and not (not prepend and ids[-1:] == [TOKENIZER.eot_id]):
            expected[-1].append(7)
        else:
            expected.append([7])
        assert contents(Path(folder, "c"))[0] == {"train": expected}


SEQUENCES = st.lists(
    st.lists(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=9), max_size=4), min_size=1, max_size=8
)


@given(SEQUENCES, st.sampled_from([("<i2", 3), ("<i4", 4), ("<i8", 5), ("<u2", 8)]))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_documents_of_any_sequences_are_their_ids(documents, kind):
    documents = [*documents, [[1]]]
    dtype, code = kind
    sequences = [sequence for document in documents for sequence in document]
    lengths = np.array([len(sequence) for sequence in sequences], "<i4")
    pointers = (np.cumsum(lengths) - lengths) * np.dtype(dtype).itemsize
    bounds = np.cumsum([0, *map(len, documents)])
    with tempfile.TemporaryDirectory() as folder:
        ids = np.concatenate([np.array(sequence, dtype) for sequence in sequences])
        ids.tofile(Path(folder, "a.bin"))
        header = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, code, len(lengths), len(bounds))
        index = header + lengths.tobytes() + pointers.astype("<i8").tobytes() + bounds.astype("<i8").tobytes()
        Path(folder, "a.idx").write_bytes(index)
        import_megatron([Path(folder, "a")], Path(folder, "c"), tokenizer=TOKENIZER)
        expected = [sum(document, []) for document in documents]  # noqa: RUF017
        assert contents(Path(folder, "c"))[0] == {"train": expected}
