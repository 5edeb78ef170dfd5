"""Opening, reading and verifying a corpus; what is damaged is named."""

import json
import pickle

import numpy as np
import pytest

from tokenspace.corpus import Corpus, build_corpus, is_corpus
from tokenspace.errors import CorpusError, SettingError, TokenizerError
from tokenspace.files import sealed_json
from tokenspace.text import read_strings
from tokenspace.tokenizer import Tokenizer

TEXT = "the cat sat on the mat and the dog sat on the log; "
TEXTS = [TEXT[: n % 50] + str(n) for n in range(120)]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([TEXT * 20], 300)


@pytest.fixture
def corpus(tmp_path, tokenizer):
    return build_corpus(read_strings(TEXTS), tokenizer, tmp_path / "corpus", validation_fraction=0.2, shard_bytes=1000)


def test_opening_by_path_gives_the_same_corpus(corpus, tokenizer):
    again = Corpus.open(str(corpus.path), tokenizer=tokenizer)
    assert (again.identity, again.num_tokens, again.manifest) == (corpus.identity, corpus.num_tokens, corpus.manifest)


def test_attributes_say_what_the_files_hold(corpus, tokenizer):
    ids = corpus.tokens(0, corpus.num_tokens)
    assert corpus.max_id == ids.max() < corpus.vocab_size == tokenizer.vocab_size
    assert corpus.num_documents + Corpus.open(corpus.path, "validation").num_documents == len(TEXTS)
    assert corpus.document_bounds[-1] == corpus.num_tokens == len(ids)
    assert len(corpus.document_bounds) == corpus.num_documents + 1


def test_counts_say_how_often_each_id_occurs(corpus):
    ids = corpus.tokens(0, corpus.num_tokens)
    assert corpus.counts().tolist() == [int((ids == token).sum()) for token in range(corpus.vocab_size)]


def test_only_a_published_folder_is_a_corpus(corpus, tmp_path):
    assert is_corpus(corpus.path)
    assert not is_corpus(tmp_path)


def test_the_corpus_shows_itself(corpus):
    assert repr(corpus).startswith(f"Corpus({str(corpus.path)!r}, 'train', ")


def test_the_stored_tokenizer_encodes_alike(corpus, tokenizer):
    assert corpus.tokenizer().identity == tokenizer.identity


def test_a_pickled_corpus_is_opened_again(corpus):
    corpus.tokens(0, 5)
    data = pickle.dumps(corpus)
    assert len(data) < 1000
    assert pickle.loads(data).tokens(0, 50).tolist() == corpus.tokens(0, 50).tolist()


def test_other_text_gives_another_identity(corpus, tokenizer, tmp_path):
    other = build_corpus(read_strings([*TEXTS, "x"]), tokenizer, tmp_path / "other")
    assert other.identity != corpus.identity


def test_tokens_and_windows_are_copies(corpus):
    before = corpus.tokens(0, 10).tolist()
    corpus.tokens(0, 10)[:] = 0
    corpus.gather(np.array([0]), 10)[:] = 0
    assert corpus.tokens(0, 10).tolist() == before


def test_no_starts_give_no_windows(corpus):
    assert corpus.gather(np.array([], np.int64), 7).shape == (0, 7)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 10**9)])
def test_a_span_outside_is_an_error(corpus, start, stop):
    with pytest.raises(SettingError, match=rf"`start, stop` must lie in order from 0 to {corpus.num_tokens}"):
        corpus.tokens(start, stop)


@pytest.mark.parametrize("start", [-1, 10**9])
def test_a_window_outside_is_an_error(corpus, start):
    rule = rf"`starts` must lie from 0 to {corpus.num_tokens - 8} for windows of 8 tokens, but is {start}\."
    with pytest.raises(SettingError, match=rule):
        corpus.gather(np.array([0, start]), 8)


def test_the_last_window_is_inside(corpus):
    last = corpus.num_tokens - 8
    assert corpus.gather(np.array([last]), 8)[0].tolist() == corpus.tokens(last, corpus.num_tokens).tolist()


def test_a_length_of_nothing_is_an_error(corpus):
    with pytest.raises(SettingError, match="`length` must be a whole number of at least 1, but is 0"):
        corpus.gather(np.array([0]), 0)


@pytest.mark.parametrize("index", [-1, 10**6])
def test_a_document_it_does_not_have_is_an_error(corpus, index):
    with pytest.raises(SettingError, match=rf"`index` must be from 0 to {corpus.num_documents - 1}, but is {index}"):
        corpus.document(index)


def test_another_tokenizer_is_refused_and_both_are_named(corpus):
    other = Tokenizer.train(["something else altogether " * 9], 280)
    with pytest.raises(CorpusError) as error:
        Corpus.open(corpus.path, tokenizer=other)
    made_with = corpus.manifest.tokenizer
    assert str(error.value) == (
        f"`corpus {corpus.path}` must be made with the tokenizer in use, {other.name} ({other.identity[:12]}), "
        f"but is 'made with another, {made_with.name} ({made_with.identity[:12]})'. "
        "Build the corpus again with that tokenizer, or use the one it was made with."
    )


def test_a_split_it_does_not_have_names_those_it_has(tmp_path, tokenizer):
    build_corpus(read_strings(TEXTS), tokenizer, tmp_path / "c", validation_fraction=0)
    with pytest.raises(CorpusError) as error:
        Corpus.open(tmp_path / "c", "validation")
    assert str(error.value) == (
        "`split` must be one of train, but is 'validation'. Build the corpus with a validation fraction above 0."
    )


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(CorpusError, match="`corpus` must be a folder that exists"):
        Corpus.open(tmp_path / "no")


def test_a_folder_without_a_manifest_is_no_corpus(corpus):
    (corpus.path / "manifest.json").unlink()
    with pytest.raises(CorpusError, match=r"manifest\.json` must be a file that can be read"):
        Corpus.open(corpus.path)


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def test_a_cut_manifest_is_an_error(corpus):
    cut(corpus.path / "manifest.json")
    with pytest.raises(CorpusError, match=r"`manifest\.json` must be whole JSON with a checksum"):
        Corpus.open(corpus.path)


def test_an_altered_manifest_is_an_error(corpus):
    path = corpus.path / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"seed": 0', '"seed": 1'), encoding="utf-8")
    with pytest.raises(CorpusError, match=r"`manifest\.json` must be as it was written, but is 'altered'"):
        Corpus.open(corpus.path)


def resealed(corpus, change):
    path = corpus.path / "manifest.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    del fields["sha256"]
    change(fields)
    path.write_bytes(sealed_json(fields))


@pytest.mark.parametrize("name", ["../train-00000", "/etc/passwd", "a.b", "", "..\\x"])
def test_a_shard_name_that_is_a_path_is_refused(corpus, name):
    resealed(corpus, lambda fields: fields["splits"]["train"]["shards"][0].update(name=name))
    with pytest.raises(CorpusError, match=r"`manifest\.json` must name shards by plain file names, but is"):
        Corpus.open(corpus.path)


@pytest.mark.parametrize("change", [{"version": 3}, {"format": "other"}, {"version": None}])
def test_another_version_is_refused(corpus, change):
    resealed(corpus, lambda fields: fields.update(change))
    with pytest.raises(CorpusError, match=r"`manifest\.json` must be of 'tokenspace corpus', version 2 or 1, but is"):
        Corpus.open(corpus.path)


@pytest.mark.parametrize("field", ["tokenizer", "splits", "num_sources", "statistics", "dtype"])
def test_a_manifest_without_a_field_is_refused(corpus, field):
    resealed(corpus, lambda fields: fields.pop(field))
    with pytest.raises(CorpusError, match=r"`manifest\.json` must have the fields of a manifest, but is .wrong"):
        Corpus.open(corpus.path)


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_a_cut_file_is_an_error_that_names_it(corpus, suffix):
    cut(corpus.path / f"train-00001{suffix}")
    with pytest.raises(CorpusError, match=rf"train-00001{suffix}` must have \d+ bytes, but is '\d+ bytes long'"):
        Corpus.open(corpus.path)


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_a_missing_file_is_an_error_that_names_it(corpus, suffix):
    (corpus.path / f"train-00001{suffix}").unlink()
    with pytest.raises(CorpusError, match=rf"train-00001{suffix}` must be there, but is 'missing'"):
        Corpus.open(corpus.path)


@pytest.mark.parametrize("at", [0, 17, 40, -1])
def test_an_altered_index_is_an_error_that_names_it(corpus, at):
    flip(corpus.path / "train-00000.idx", at)
    with pytest.raises(CorpusError, match=r"train-00000\.idx` must have the checksum [0-9a-f]{8}, but is"):
        Corpus.open(corpus.path).verify()


def test_verify_passes_on_what_was_built(corpus):
    seen = []
    corpus.verify(seen.append)
    assert seen[-1] == corpus.num_tokens * corpus.dtype.itemsize


@pytest.mark.parametrize("at", [0, 100, -1])
def test_verify_names_the_block_that_was_altered(corpus, at):
    path = corpus.path / "train-00001.bin"
    flip(path, at)
    Corpus.open(corpus.path)  # which reads no ids
    with pytest.raises(CorpusError, match=rf"train-00001\.bin, bytes 0 to {path.stat().st_size - 1}` must have the"):
        corpus.verify()


def test_verify_names_the_block_beyond_the_first(tmp_path, tokenizer):
    corpus = build_corpus(read_strings(["x" * 2_500_000]), tokenizer, tmp_path / "c", validation_fraction=0)
    size = 2 * corpus.num_tokens
    assert size > 4 << 20
    flip(corpus.path / "train-00000.bin", 4 << 20)
    with pytest.raises(CorpusError, match=rf"bytes 4194304 to {size - 1}` must have the checksum"):
        corpus.verify()


def test_a_damaged_tokenizer_is_an_error(corpus):
    cut(corpus.path / "tokenizer.json")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        corpus.tokenizer()


def test_a_tokenizer_of_another_corpus_is_an_error(corpus):
    Tokenizer.train(["something else altogether " * 9], 280).save(corpus.path / "tokenizer.json")
    with pytest.raises(CorpusError, match=r"`tokenizer\.json` must be .* as the manifest says, but is"):
        corpus.tokenizer()
