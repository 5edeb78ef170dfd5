"""Batches that tell documents apart: positions, ids, layouts, sequence bounds."""

import numpy as np
import pytest
import torch

from tokenspace import LanguageModel
from tokenspace.corpus import build_corpus
from tokenspace.errors import SettingError
from tokenspace.loader import DocumentBatch, TokenArray, WindowLoader
from tokenspace.positions import Layout
from tokenspace.text import read_strings
from tokenspace.tokenizer import Tokenizer

TEXTS = [("the cat sat on the mat " * (number % 4))[: 5 * number % 41] for number in range(60)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("documents") / "corpus"
    return build_corpus(read_strings(TEXTS), Tokenizer.train(TEXTS, 270), out, validation_fraction=0, shard_bytes=60)


def loader(corpus, **settings):
    return WindowLoader(corpus, **{"batch_size": 3, "context_length": 16, "stride": 16, "shuffle": False, **settings})


def by_hand(corpus, start, length):
    """Positions and documents of a window, token by token."""
    begins = set(corpus.document_bounds.tolist())
    positions, documents = [0], [0]
    for place in range(start + 1, start + length):
        new = place in begins
        positions.append(0 if new else positions[-1] + 1)
        documents.append(documents[-1] + new)
    return positions, documents


def test_positions_restart_and_documents_are_counted_in_each_row(corpus):
    for number, batch in enumerate(loader(corpus, documents=True)):
        for row in range(3):
            positions, documents = by_hand(corpus, 16 * (3 * number + row), 16)
            assert batch.positions[row].tolist() == positions
            assert batch.documents[row].tolist() == documents


def test_inputs_and_targets_are_those_of_plain_batches(corpus):
    for plain, batch in zip(
        loader(corpus, seed=1, shuffle=True), loader(corpus, seed=1, shuffle=True, documents=True), strict=True
    ):
        assert torch.equal(plain[0], batch.inputs) and torch.equal(plain[1], batch.targets)


def test_worker_processes_give_the_same_documents(corpus):
    pairs = zip(loader(corpus, documents=True), loader(corpus, documents=True, num_workers=2), strict=True)
    for by_thread, by_worker in pairs:
        assert isinstance(by_worker, DocumentBatch)
        assert all(torch.equal(a, b) for a, b in zip(by_thread, by_worker, strict=True))


def test_sequence_bounds_are_those_of_the_documents(corpus):
    for batch in loader(corpus, documents=True):
        bounds, longest = batch.cu_seqlens()
        lengths = [int((row == document).sum()) for row in batch.documents for document in row.unique()]
        assert bounds.dtype == torch.int32
        assert bounds.diff().tolist() == lengths
        assert longest == max(lengths)


@pytest.mark.parametrize("scheme", ["learned", "rotary", "alibi", "transformer_xl"])
def test_a_model_reads_each_document_for_itself(corpus, scheme):
    torch.manual_seed(0)
    model = LanguageModel(
        vocab_size=corpus.vocab_size, d_model=16, num_layers=2, num_heads=2, context_length=16, positions=scheme
    ).eval()
    batch = next(iter(loader(corpus, documents=True)))
    with torch.no_grad():
        packed = model(batch.inputs, layout=batch.layout())
        for row in range(3):
            for document in batch.documents[row].unique():
                mine = batch.documents[row] == document
                alone = model(batch.inputs[row, mine].unsqueeze(0))[0]
                torch.testing.assert_close(packed[row, mine], alone, atol=1e-5, rtol=1e-4)


def test_the_layout_is_that_of_packed_lengths(corpus):
    batch = next(iter(loader(corpus, documents=True)))
    lengths = [row.unique(return_counts=True)[1].tolist() for row in batch.documents]
    layout, packed = batch.layout(), Layout.packed(lengths)
    assert torch.equal(layout.mask(), packed.mask())
    assert torch.equal(layout.query_positions, packed.query_positions)
    assert (layout.max_distance, layout.consecutive) == (packed.max_distance, True)


def test_tokens_without_documents_are_refused():
    with pytest.raises(SettingError, match="`documents` must be asked of a corpus, but is 'TokenArray'"):
        loader(TokenArray(np.arange(100)), documents=True)
