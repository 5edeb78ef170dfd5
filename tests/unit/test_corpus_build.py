"""Building a corpus: what is written, and that it appears whole or not at all."""

import contextlib
import errno
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import tokenizers

from tokenspace.corpus import Corpus, build_corpus, encoding, writer
from tokenspace.errors import CorpusError, DiskError, SettingError, TextError, TokenizerError
from tokenspace.store import LocalStore
from tokenspace.text import read_documents, read_strings
from tokenspace.text.pieces import PIECE_CHARACTERS, Piece
from tokenspace.tokenizer import Tokenizer

TEXT = "the cat sat on the mat and the dog sat on the log; "
DIES = """
import os, sys
from pathlib import Path
from tokenspace.corpus import build_corpus, encoding
from tokenspace.text import read_strings
from tokenspace.tokenizer import Tokenizer

def pieces():
    yield from read_strings(["the cat sat"] * 300)
    os._exit(7)  # as a kill: nothing is cleaned up

encoding._BATCH_CHARACTERS = 1
folder = Path(sys.argv[1])
build_corpus(pieces(), Tokenizer.from_file(folder / "tokenizer.json"), folder / "c", validation_fraction=0)
"""


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([TEXT * 20], 300)


@pytest.fixture(scope="module")
def wide_tokenizer():
    """70,000 words, so that two bytes do not hold every id."""
    model = tokenizers.models.WordLevel({f"w{n}": n for n in range(70_000)}, unk_token="w0")
    library = tokenizers.Tokenizer(model)
    library.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return Tokenizer.from_json(library.to_str(), "wide")


@pytest.fixture(scope="module")
def metaspace_tokenizer():
    """A vocabulary in which pieces of a text are not encoded as the whole is."""
    library = tokenizers.Tokenizer(tokenizers.models.Unigram([("<unk>", 0.0), ("▁", -2.0), ("▁ab", -1.0)], 0))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    return Tokenizer.from_json(library.to_str(), "metaspace")


def build(tmp_path, texts, tokenizer, name="corpus", **settings):
    return build_corpus(read_strings(texts), tokenizer, tmp_path / name, **{"validation_fraction": 0, **settings})


def tokens_of(corpus):
    return corpus.tokens(0, corpus.num_tokens).tolist()


def test_each_document_ends_with_the_end_of_text_token(tmp_path, tokenizer):
    corpus = build(tmp_path, ["the cat", "", "a dog"], tokenizer)
    eot = [tokenizer.eot_id]
    assert tokens_of(corpus) == [*tokenizer.encode("the cat"), *eot, *eot, *tokenizer.encode("a dog"), *eot]
    assert corpus.manifest.end_of_text == "append"


def test_without_end_of_text_the_ids_are_those_of_the_text(tmp_path, tokenizer):
    corpus = build(tmp_path, ["the cat", "", "a dog"], tokenizer, end_of_text=False)
    assert tokens_of(corpus) == tokenizer.encode("the cat") + tokenizer.encode("a dog")
    assert corpus.manifest.end_of_text == "none"
    assert corpus.document(1).tolist() == []


def test_a_tokenizer_without_end_of_text_appends_nothing(tmp_path, wide_tokenizer):
    corpus = build(tmp_path, ["w1 w2", "w3"], wide_tokenizer)
    assert tokens_of(corpus) == [1, 2, 3]
    assert corpus.manifest.end_of_text == "none"


def test_the_name_of_a_special_token_in_the_text_is_text(tmp_path, tokenizer):
    corpus = build(tmp_path, ["a<|endoftext|>b"], tokenizer)
    assert tokens_of(corpus).count(tokenizer.eot_id) == 1


def test_ids_beyond_two_bytes_are_stored_in_four(tmp_path, wide_tokenizer):
    corpus = build(tmp_path, ["w65535 w65536 w69999"], wide_tokenizer)
    assert corpus.dtype == np.int32
    assert tokens_of(corpus) == [65535, 65536, 69999]
    assert corpus.max_id == 69999


def test_two_bytes_do_for_a_small_vocabulary(tmp_path, tokenizer):
    corpus = build(tmp_path, [TEXT], tokenizer)
    assert corpus.dtype == np.uint16
    assert np.fromfile(corpus.path / "train-00000.bin", "<u2").tolist() == tokens_of(corpus)


def test_an_id_beyond_the_vocabulary_is_refused_not_wrapped(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(
        Tokenizer, "encode_batch", lambda *args: (np.array([1, 70_000], np.uint32), np.array([0, 2], np.int64))
    )
    with pytest.raises(TokenizerError, match="`token id` must be below 277, the vocabulary size, but is 70000"):
        build(tmp_path, ["x"], tokenizer)


@pytest.mark.parametrize("text", [TEXT * (2 * PIECE_CHARACTERS // len(TEXT)), "x1 " * PIECE_CHARACTERS])
def test_a_long_document_gives_the_ids_of_the_whole(tmp_path, tokenizer, text):
    corpus = build(tmp_path, [text], tokenizer)
    assert tokens_of(corpus) == [*tokenizer.encode(text), tokenizer.eot_id]
    assert corpus.num_documents == 1


def test_pieces_are_joined_where_the_tokenizer_needs_the_whole(tmp_path, metaspace_tokenizer):
    pieces = [Piece("ab", False, "-", 0), Piece(" ab", True, "-", 0)]
    corpus = build_corpus(pieces, metaspace_tokenizer, tmp_path / "c", validation_fraction=0)
    assert tokens_of(corpus) == metaspace_tokenizer.encode("ab ab")


def test_shards_are_closed_at_the_first_document_end_beyond_their_size(tmp_path, tokenizer):
    texts = [TEXT[: n % 50] for n in range(200)]
    one = build(tmp_path, texts, tokenizer, "one")
    many = build(tmp_path, texts, tokenizer, "many", shard_bytes=200)
    shards = many.manifest.splits["train"].shards
    assert len(shards) > 5
    assert all(200 <= shard.bin_bytes < 200 + 2 * 51 for shard in shards[:-1])
    assert tokens_of(many) == tokens_of(one)
    assert many.document_bounds.tolist() == one.document_bounds.tolist()


def test_a_document_larger_than_a_shard_is_not_parted(tmp_path, tokenizer):
    corpus = build(tmp_path, ["a", TEXT * 50, "b"], tokenizer, shard_bytes=10)
    assert [shard.num_documents for shard in corpus.manifest.splits["train"].shards] == [2, 1]


def test_a_document_over_many_batches_stays_in_its_shard(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(encoding, "_BATCH_CHARACTERS", 1)
    pieces = [Piece(" cat", n % 10 == 9, "-", n // 10) for n in range(30)]
    corpus = build_corpus(pieces, tokenizer, tmp_path / "c", validation_fraction=0, shard_bytes=8)
    assert [shard.num_documents for shard in corpus.manifest.splits["train"].shards] == [1, 1, 1]
    assert [tokenizer.decode(corpus.document(n)[:-1]) for n in range(3)] == [" cat" * 10] * 3


def test_empty_documents_after_a_full_shard_are_kept(tmp_path, tokenizer):
    corpus = build(tmp_path, ["the cat", "", ""], tokenizer, shard_bytes=2, end_of_text=False)
    assert corpus.num_documents == 3
    assert corpus.document_bounds.tolist() == [0, corpus.num_tokens, corpus.num_tokens, corpus.num_tokens]


def test_the_same_input_gives_the_same_bytes(tmp_path, tokenizer):
    texts = [TEXT * n for n in range(40)]
    for name in ("a", "b"):
        build(tmp_path, texts, tokenizer, name, validation_fraction=0.2, shard_bytes=5000)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "b").iterdir())
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_blocks_have_a_checksum_each(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(writer, "BLOCK_BYTES", 64)
    monkeypatch.setattr("tokenspace.corpus.corpus.BLOCK_BYTES", 64)
    corpus = build(tmp_path, [TEXT] * 30, tokenizer)
    (shard,) = corpus.manifest.splits["train"].shards
    assert len(shard.block_crc32s) == -(-shard.bin_bytes // 64)
    corpus.verify()


def test_both_splits_together_hold_every_document(tmp_path, tokenizer):
    texts = [f"the {n} cats" for n in range(400)]
    train = build(tmp_path, texts, tokenizer, validation_fraction=0.1)
    validation = Corpus.open(tmp_path / "corpus", "validation")
    found = [tokenizer.decode(part.document(n)[:-1]) for part in (train, validation) for n in range(part.num_documents)]
    assert sorted(found) == sorted(texts)
    assert 30 < validation.num_documents < 50


def test_one_document_validates_on_its_last_tokens(tmp_path, tokenizer):
    train = build(tmp_path, [TEXT * 10], tokenizer, validation_fraction=0.1)
    validation = Corpus.open(train.path, "validation")
    ids = [*tokenizer.encode(TEXT * 10), tokenizer.eot_id]
    assert tokens_of(train) + tokens_of(validation) == ids
    assert validation.num_tokens == round(len(ids) / 10)


def test_the_manifest_counts_what_went_in(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("one two\nबिल्ली", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "three"}\n{"text": ""}\n', encoding="utf-8")
    pieces = read_documents([tmp_path / "a.txt", tmp_path / "b.jsonl"])
    manifest = build_corpus(pieces, tokenizer, tmp_path / "c", validation_fraction=0).manifest
    ids = [token for text in ("one two\nबिल्ली", "three") for token in tokenizer.encode(text)]
    counts = manifest.statistics
    assert (counts.characters, counts.words, counts.tokens) == (19, 4, len(ids))
    assert counts.tokens_per_word == len(ids) / 4
    assert counts.partial_tokens == sum(int(tokenizer.partial_utf8[token]) for token in ids)
    assert (manifest.num_sources, manifest.text_bytes) == (2, 26 + 5)
    assert manifest.tokenizer.identity == tokenizer.identity


def test_progress_counts_characters_and_tokens(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(encoding, "_BATCH_CHARACTERS", 10)
    seen = []
    corpus = build(tmp_path, ["the cat"] * 10, tokenizer, progress=lambda *counts: seen.append(counts))
    assert seen == sorted(seen) and len(seen) == 5
    assert seen[-1] == (70, corpus.manifest.statistics.tokens)


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_no_text_at_all_is_an_error_and_leaves_nothing(tmp_path, tokenizer, texts):
    with pytest.raises(CorpusError) as error:
        build(tmp_path, texts, tokenizer)
    assert str(error.value) == ("`text` must hold at least one token, but is 'empty'. Give a text that is not empty.")
    assert list(tmp_path.iterdir()) == []


def test_many_documents_that_are_all_alike_do_not_empty_the_training_part(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr("tokenspace.corpus.split._EXACT_TOKENS", 0)
    seed = next(n for n in range(100) if _validates("the cat", n))
    with pytest.raises(CorpusError, match="`documents` must fall on both sides of the split"):
        build(tmp_path, ["the cat"] * 300, tokenizer, validation_fraction=0.1, seed=seed)
    assert list(tmp_path.iterdir()) == []


def _validates(text, seed):
    digest = hashlib.blake2b(f"{seed}:{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < 0.1 * 2**64


def test_an_output_folder_that_exists_is_refused_and_untouched(tmp_path, tokenizer):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "mine").write_text("x")
    with pytest.raises(SettingError, match="`out` must not exist yet"):
        build(tmp_path, ["x"], tokenizer)
    assert [path.name for path in tmp_path.rglob("*")] == ["corpus", "mine"]


def test_an_error_in_the_middle_leaves_nothing(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(encoding, "_BATCH_CHARACTERS", 1)

    def pieces():
        yield from read_strings([TEXT] * 300)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_corpus(pieces(), tokenizer, tmp_path / "c", shard_bytes=100)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_dies_in_the_middle_publishes_nothing(tmp_path, tokenizer):
    tokenizer.save(tmp_path / "tokenizer.json")
    died = subprocess.run([sys.executable, "-c", DIES, tmp_path], check=False)
    assert died.returncode == 7
    assert not (tmp_path / "c").exists()
    assert build(tmp_path, [TEXT], tokenizer, "c").num_documents == 1


def test_half_a_surrogate_pair_names_the_document(tmp_path, tokenizer):
    with pytest.raises(TextError) as error:
        build(tmp_path, ["fine", "a\ud800"], tokenizer)
    assert str(error.value) == (
        "`strings, row 1` must be valid Unicode, but is 'half a surrogate pair at character 1'. "
        "Replace it before encoding."
    )
    assert list(tmp_path.iterdir()) == []


class _FullDisk:
    """A file that takes `room` bytes."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def write(self, data):
        self._room -= len(memoryview(data).cast("B"))
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(data)

    def close(self):
        self._file.close()


def test_a_full_disk_says_how_much_was_needed_and_leaves_nothing(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(encoding, "_BATCH_CHARACTERS", 1)
    written = LocalStore.writer

    @contextlib.contextmanager
    def full(store, name):
        with written(store, name) as file:
            yield _FullDisk(file, 1000) if name.endswith(".bin") else file

    monkeypatch.setattr(LocalStore, "writer", full)
    with pytest.raises(DiskError, match=r"must have 9,600 bytes of room, but is 'full \([\d,]+ bytes free\)'"):
        build(tmp_path, [TEXT] * 300, tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_at_the_manifest_leaves_nothing(tmp_path, tokenizer, monkeypatch):
    created = LocalStore.create

    def full(store, name, data):
        if name == "manifest.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return created(store, name, data)

    monkeypatch.setattr(LocalStore, "create", full)
    with pytest.raises(DiskError, match="must have room for all that is written there, but is 'full"):
        build(tmp_path, [TEXT], tokenizer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_fraction": 0.6}, "`validation_fraction` must be from 0 to 0.5, but is 0.6"),
        ({"validation_fraction": float("nan")}, "`validation_fraction` must be from 0 to 0.5, but is nan"),
        ({"seed": -1}, "`seed` must be a whole number of at least 0, but is -1"),
        ({"shard_bytes": 0}, "`shard_bytes` must be a whole number of at least 1, but is 0"),
    ],
)
def test_settings_out_of_range_are_errors(tmp_path, tokenizer, settings, message):
    with pytest.raises(SettingError, match=message):
        build(tmp_path, ["x"], tokenizer, **settings)


def test_the_manifest_is_json_with_every_field(tmp_path, tokenizer):
    corpus = build(tmp_path, [TEXT], tokenizer)
    fields = json.loads((corpus.path / "manifest.json").read_text(encoding="utf-8"))
    assert list(fields) == [
        *("format", "version", "block_bytes", "tokenizer", "end_of_text", "dtype", "validation_fraction", "seed"),
        *("splits", "num_sources", "text_bytes", "statistics", "tokenizer_crc32", "plan_crc32", "sha256"),
    ]
