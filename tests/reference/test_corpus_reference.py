"""The files as another program reads them, and the build beside a slow, plain one."""

import itertools
import struct

import numpy as np
import pytest

from tokenspace.corpus import Corpus, build_corpus, encoding
from tokenspace.text import read_strings
from tokenspace.tokenizer import Tokenizer

TEXTS = [
    "The cat sat on the mat.",
    "",
    "बिल्ली चटाई पर बैठी, चटाई बिल्ली पर बैठी",
    "def f(x):\n    return x**2\r\n",
    "<|endoftext|> is text here 🙂",
    *(f"document {n}: " + "word " * n for n in range(90)),
]


def read_megatron(prefix):
    """Sequences and documents of `prefix`, by the layout alone: field after field, no arrays."""
    index, tokens = prefix.with_suffix(".idx").read_bytes(), prefix.with_suffix(".bin").read_bytes()
    magic, version, code, num_sequences, num_bounds = struct.unpack_from("<9sQBQQ", index)
    assert (magic, version) == (b"MMIDIDX\x00\x00", 1)
    letter = {8: "H", 4: "i"}[code]
    lengths = struct.unpack_from(f"<{num_sequences}i", index, 34)
    pointers = struct.unpack_from(f"<{num_sequences}q", index, 34 + 4 * num_sequences)
    bounds = struct.unpack_from(f"<{num_bounds}q", index, 34 + 12 * num_sequences)
    assert len(index) == 34 + 12 * num_sequences + 8 * num_bounds
    sequences = [
        list(struct.unpack_from(f"<{length}{letter}", tokens, at)) for length, at in zip(lengths, pointers, strict=True)
    ]
    assert sum(map(len, sequences)) * struct.calcsize(letter) == len(tokens)
    return [
        [token for sequence in sequences[first:last] for token in sequence]
        for first, last in itertools.pairwise(bounds)
    ]


@pytest.fixture(scope="module")
def gpt2():
    return Tokenizer.gpt2()


@pytest.mark.parametrize("shard_bytes", [1 << 30, 500, 1])
def test_a_reader_of_the_layout_finds_every_document(tmp_path, gpt2, shard_bytes):
    build_corpus(read_strings(TEXTS), gpt2, tmp_path / "c", validation_fraction=0, shard_bytes=shard_bytes)
    found = [
        document for path in sorted((tmp_path / "c").glob("*.idx")) for document in read_megatron(path.with_suffix(""))
    ]
    assert found == [[*gpt2.encode(text), 50256] for text in TEXTS]


def test_the_bin_is_what_nanogpt_reads(tmp_path, gpt2):
    build_corpus(read_strings(TEXTS), gpt2, tmp_path / "c", validation_fraction=0)
    expected = [token for text in TEXTS for token in [*gpt2.encode(text), 50256]]
    assert np.memmap(tmp_path / "c" / "train-00000.bin", dtype=np.uint16, mode="r").tolist() == expected


def test_batches_and_pieces_give_the_ids_of_whole_documents(tmp_path, gpt2, monkeypatch):
    monkeypatch.setattr(encoding, "_BATCH_CHARACTERS", 100)
    monkeypatch.setattr("tokenspace.text.pieces.PIECE_CHARACTERS", 40)
    monkeypatch.setattr("tokenspace.text.pieces._STEP", 7)
    corpus = build_corpus(read_strings(TEXTS), gpt2, tmp_path / "c", validation_fraction=0)
    assert [corpus.document(n).tolist() for n in range(len(TEXTS))] == [[*gpt2.encode(text), 50256] for text in TEXTS]


def test_train_and_validation_are_the_documents_in_order(tmp_path, gpt2):
    train = build_corpus(read_strings(TEXTS), gpt2, tmp_path / "c", validation_fraction=0.2)
    validation = Corpus.open(tmp_path / "c", "validation")
    left = {part.split: [part.document(n).tolist() for n in range(part.num_documents)] for part in (train, validation)}
    for text in TEXTS:
        document = [*gpt2.encode(text), 50256]
        side = next(split for split, documents in left.items() if documents and documents[0] == document)
        left[side].pop(0)
    assert left == {"train": [], "validation": []}
    share = validation.num_tokens / (train.num_tokens + validation.num_tokens)
    assert 0.2 <= share < 0.25
