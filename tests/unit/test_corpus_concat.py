"""Corpora joined without tokenising; estimates; manifests of version 1."""

import json

import pytest

from corpus_cases import SETTINGS, digests, planned, sentences, write_text, write_tokenizer
from tokenspace.corpus import BuildSettings, Corpus, build_corpus, concatenate, estimate, find_faults, run_job
from tokenspace.corpus.origins import read_origins
from tokenspace.errors import CorpusError, SettingError
from tokenspace.files import sealed_json
from tokenspace.store import LocalStore
from tokenspace.text import read_strings
from tokenspace.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


def in_memory(path, texts, tokenizer, **settings):
    return build_corpus(read_strings(texts), Tokenizer.from_file(tokenizer), path, **settings)


def ids_of(path, split="train"):
    corpus = Corpus.open(path, split)
    return corpus.tokens(0, corpus.num_tokens).tolist()


def test_corpora_are_joined_in_order_and_stay_as_they_were(tokenizer, tmp_path):
    run_job(planned(write_text(tmp_path / "text"), tokenizer, tmp_path / "a"), workers=1)
    in_memory(tmp_path / "b", [sentences(n, 30) for n in range(50)], tokenizer)
    before = digests(tmp_path / "a"), digests(tmp_path / "b")
    told = []
    manifest = concatenate([tmp_path / "a", tmp_path / "b"], tmp_path / "c", progress=lambda *done: told.append(done))
    for split in ("train", "validation"):
        assert ids_of(tmp_path / "c", split) == ids_of(tmp_path / "a", split) + ids_of(tmp_path / "b", split)
    assert (digests(tmp_path / "a"), digests(tmp_path / "b")) == before
    assert find_faults(LocalStore(tmp_path / "c")) == []
    parts = [Corpus.open(tmp_path / name).manifest for name in "ab"]
    assert manifest == Corpus.open(tmp_path / "c").manifest
    assert manifest.statistics == parts[0].statistics + parts[1].statistics
    assert manifest.num_sources == 5
    for split, joined in manifest.splits.items():
        assert joined.num_documents == sum(part.splits[split].num_documents for part in parts)
    assert told[-1][0] == told[-1][1] > 0


def test_files_are_linked_where_that_can_be(tokenizer, tmp_path):
    in_memory(tmp_path / "a", ["a cat"], tokenizer, validation_fraction=0)
    concatenate([tmp_path / "a", tmp_path / "a"], tmp_path / "c")
    assert (tmp_path / "c" / "train-00001.bin").samefile(tmp_path / "a" / "train-00000.bin")


def test_what_is_joined_can_be_joined_again(tokenizer, tmp_path):
    in_memory(tmp_path / "a", ["a cat"], tokenizer, validation_fraction=0)
    concatenate([tmp_path / "a", tmp_path / "a"], tmp_path / "b")
    concatenate([tmp_path / "b", tmp_path / "a"], tmp_path / "c")
    assert ids_of(tmp_path / "c") == ids_of(tmp_path / "a") * 3


def test_another_tokenizer_or_end_of_text_is_not_joined(tokenizer, tmp_path):
    in_memory(tmp_path / "a", ["a cat"], tokenizer, validation_fraction=0)
    in_memory(tmp_path / "b", ["a cat"], tokenizer, validation_fraction=0, end_of_text=False)
    build_corpus(read_strings(["a cat"]), Tokenizer.gpt2(), tmp_path / "g", validation_fraction=0)
    for other, message in (
        ("b", rf"`end_of_text of {tmp_path / 'b'}` must be that of the first corpus, append, but is 'none'"),
        ("g", rf"`tokenizer of {tmp_path / 'g'}` must be that of the first corpus, tokenizer.json \("),
    ):
        with pytest.raises(CorpusError, match=message):
            concatenate([tmp_path / "a", tmp_path / other], tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_place_that_is_taken_or_nothing_to_join(tokenizer, tmp_path):
    in_memory(tmp_path / "a", ["a cat"], tokenizer, validation_fraction=0)
    with pytest.raises(SettingError, match="not exist yet"):
        concatenate([tmp_path / "a"], tmp_path / "a")
    with pytest.raises(SettingError, match="`corpora` must name at least one"):
        concatenate([], tmp_path / "c")
    with pytest.raises(CorpusError, match=r"manifest\.json"):
        concatenate([tmp_path / "nothing"], tmp_path / "c")


# estimates


def test_an_estimate_comes_near_the_corpus(tokenizer, tmp_path):
    text = write_text(tmp_path / "text", size=2)
    found = estimate([text], Tokenizer.from_file(tokenizer), SETTINGS)
    manifest = run_job(planned(text, tokenizer, tmp_path / "c"), workers=1)
    tokens = sum(split.num_tokens for split in manifest.splits.values())
    assert found.tokens == pytest.approx(tokens, rel=0.02)
    assert found.corpus_bytes == 2 * found.tokens
    assert found.documents == pytest.approx(1202, rel=0.1)
    assert found.seconds > 0


def test_only_a_sample_is_read(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("tokenspace.corpus.estimating._SAMPLE_BYTES", 1 << 20)
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text(sentences(number, 400_000), encoding="utf-8")
    found = estimate([tmp_path], Tokenizer.from_file(tokenizer), SETTINGS)
    assert found.sampled_bytes < 0.8 * found.source_bytes
    assert found.source_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_nothing_to_estimate(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(CorpusError, match="`sources` must hold text in files"):
        estimate([tmp_path], Tokenizer.from_file(tokenizer), BuildSettings())


# version 1


def as_version_1(path):
    """The same corpus as tokenspace 0.1 wrote it."""
    file = path / "manifest.json"
    fields = json.loads(file.read_bytes())
    for name in ("sha256", "num_sources", "text_bytes", "tokenizer_crc32", "plan_crc32"):
        del fields[name]
    fields["version"] = 1
    fields["sources"] = [{"name": "a.txt", "num_documents": 1, "text_bytes": 5}] * 2
    for split in fields["splits"].values():
        for shard in split["shards"]:
            for name in ("task", "continues", "origins_bytes", "origins_crc32"):
                del shard[name]
    file.write_bytes(sealed_json(fields))
    for sidecar in path.glob("*.origins"):
        sidecar.unlink()


def test_a_corpus_of_version_1_opens_verifies_and_joins(tokenizer, tmp_path):
    in_memory(tmp_path / "a", ["a cat", "the dog"], tokenizer, validation_fraction=0)
    ids = ids_of(tmp_path / "a")
    as_version_1(tmp_path / "a")
    manifest = Corpus.open(tmp_path / "a").manifest
    assert (manifest.num_sources, manifest.text_bytes) == (2, 10)
    assert ids_of(tmp_path / "a") == ids
    assert find_faults(LocalStore(tmp_path / "a")) == []
    concatenate([tmp_path / "a", tmp_path / "a"], tmp_path / "c")
    assert ids_of(tmp_path / "c") == ids * 2
    assert find_faults(LocalStore(tmp_path / "c")) == []


def test_the_identity_of_version_1_is_what_it_was(tokenizer, tmp_path):
    in_memory(tmp_path / "a", ["a cat"], tokenizer, validation_fraction=0)
    assert Corpus.open(tmp_path / "a").identity == sha256(tmp_path / "a" / "manifest.json")
    as_version_1(tmp_path / "a")
    assert Corpus.open(tmp_path / "a").identity == sha256(tmp_path / "a" / "manifest.json")


def sha256(path):
    return digests(path.parent)[path.name]


def test_origins_of_documents_in_memory(tokenizer, tmp_path):
    corpus = in_memory(tmp_path / "a", ["a cat", "", "the dog"], tokenizer, validation_fraction=0)
    rows = read_origins((corpus.path / "train-00000.origins").read_bytes()).tolist()
    assert rows == [("strings", row, None) for row in range(3)]
