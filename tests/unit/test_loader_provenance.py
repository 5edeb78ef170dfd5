"""Which documents were in a past batch: what the loader gave, and nothing else."""

import json
import re

import numpy as np
import pytest

from tokenspace.corpus import Corpus, build_corpus
from tokenspace.errors import CorpusError, SettingError
from tokenspace.loader import WindowLoader, documents_in_batch
from tokenspace.text import Piece
from tokenspace.tokenizer import Tokenizer

TEXTS = [("the cat sat on the mat " * (number % 4))[: 5 * number % 41] for number in range(80)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    pieces = [Piece(text, True, f"file{row % 3}.jsonl", row, f"id{row}") for row, text in enumerate(TEXTS)]
    out = tmp_path_factory.mktemp("provenance") / "corpus"
    return build_corpus(pieces, Tokenizer.train(TEXTS, 270), out, validation_fraction=0, shard_bytes=90)


def test_origins_are_those_of_the_documents(corpus):
    documents = np.array([79, 0, 33, 0])
    assert corpus.origins(documents) == [(f"file{n % 3}.jsonl", n, f"id{n}") for n in documents.tolist()]


@pytest.mark.parametrize("settings", [{}, {"shuffle": False}, {"block_windows": 4}], ids=str)
def test_the_documents_of_every_batch_of_three_epochs(corpus, settings):
    loader = WindowLoader(corpus, 3, 8, 8, seed=2, **settings)
    owner = corpus.find_documents(np.arange(corpus.num_tokens))
    step = 0
    for _ in range(3):
        for inputs, targets in loader:
            step += 1
            found = documents_in_batch(corpus, loader.state_dict(), batch_size=3, step=step)
            for window in range(3):
                mine = [document for document in found if document.window == window]
                start = mine[0].start
                ids = corpus.tokens(start, start + 9)
                assert ids.tolist() == [*inputs[window].tolist(), int(targets[window, -1])]
                assert [d.document for d in mine for _ in range(d.num_tokens)] == owner[start : start + 9].tolist()
                assert all((d.source, d.row, d.id) == corpus.origins(np.array([d.document]))[0] for d in mine)


def test_a_state_of_another_corpus(corpus, tmp_path):
    other = build_corpus(
        [Piece("the mat " * 50, True, "x", 0)], corpus.tokenizer(), tmp_path / "c", validation_fraction=0
    )
    state = WindowLoader(other, 2, 8, 8).state_dict()
    with pytest.raises(SettingError, match="`state` must be of the corpus"):
        documents_in_batch(corpus, state, batch_size=2, step=1)


def test_step_nought(corpus):
    with pytest.raises(SettingError, match="`step` must be a whole number of at least 1, but is 0"):
        documents_in_batch(corpus, WindowLoader(corpus, 2, 8, 8).state_dict(), batch_size=2, step=0)


def test_a_corpus_that_keeps_no_record(corpus):
    opened = Corpus.open(corpus.path)
    object.__setattr__(opened._shards[0], "origins_bytes", None)
    with pytest.raises(CorpusError, match=re.escape("must be there to tell where documents come from")):
        opened.origins(np.array([0]))


# The verb


@pytest.fixture
def run_and_corpus(command, tmp_path):
    lines = "".join(json.dumps({"text": f"story {n} of a cat on a mat. " * 4, "id": n}) + "\n" for n in range(60))
    (tmp_path / "a.jsonl").write_text(lines)
    command(
        "corpus", "build", tmp_path / "a.jsonl", "-o", tmp_path / "c", "--tokenizer", "train:280", "--id-field", "id"
    )
    settings = ["steps=6", "d_model=8", "num_layers=1", "num_heads=1", "context_length=16", "batch_size=2"]
    flags = [flag for setting in settings for flag in ("-c", setting)]
    result = command("train", tmp_path / "c", "-o", tmp_path / "run", *flags)
    assert result.status == 0, result.err
    return tmp_path / "run", tmp_path / "c"


def test_where_names_sources_rows_and_ids(command, run_and_corpus):
    run, corpus = run_and_corpus
    found = json.loads(command("corpus", "where", corpus, "--state", run, "--step", 4, "--json").out)["documents"]
    assert {document["window"] for document in found} == {0, 1}
    assert all(document["id"] == str(document["row"]) for document in found)
    shown = command("corpus", "where", corpus, "--state", run, "--step", 4)
    assert "a.jsonl" in shown.out and shown.status == 0


def test_where_with_a_state_alone_wants_a_batch_size(command, run_and_corpus, tmp_path):
    _, corpus = run_and_corpus
    state = tmp_path / "state.json"
    state.write_text(json.dumps(WindowLoader(Corpus.open(corpus), 2, 16, 16, seed=1).state_dict() | {"seed": 1}))
    refused = command("corpus", "where", corpus, "--state", state, "--step", 1)
    assert refused.status == 2 and "`batch_size` must be given" in refused.error_line
    assert command("corpus", "where", corpus, "--state", state, "--step", 1, "--batch-size", 2).status == 0


def test_where_of_something_that_is_no_state(command, run_and_corpus, tmp_path):
    _, corpus = run_and_corpus
    (tmp_path / "x.json").write_text("[")
    refused = command("corpus", "where", corpus, "--state", tmp_path / "x.json", "--step", 1)
    assert refused.status == 2 and "must be the state of a loader" in refused.error_line
