"""Exports: the bytes of each format by an independent writer, and what is refused."""

import json
import struct

import numpy as np
import pytest
import tokenizers

from tokenspace.corpus import Corpus, build_corpus
from tokenspace.corpus.interchange import export as export_corpus
from tokenspace.corpus.interchange import exporting, import_nanogpt
from tokenspace.errors import CorpusError, SettingError
from tokenspace.store import LocalStore, Store
from tokenspace.text import read_strings
from tokenspace.tokenizer import Tokenizer

TEXTS = [f"the cat sat on mat {n} " * (n % 4) for n in range(40)]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["the cat sat on the mat and the dog sat on the log; " * 20], 300)


@pytest.fixture
def corpus(tmp_path, tokenizer):
    """Several shards and both splits."""
    return build_corpus(
        read_strings(TEXTS), tokenizer, tmp_path / "corpus", validation_fraction=0.3, shard_bytes=150
    ).path


@pytest.fixture
def wide(tmp_path):
    """A corpus with an id that two bytes do not hold."""
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{n}": n for n in range(70_000)}, unk_token="w0"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    wide = Tokenizer.from_json(library.to_str(), "wide")
    return build_corpus(read_strings(["w1 w69999 w2"]), wide, tmp_path / "wide", validation_fraction=0).path


def parts(path):
    return [Corpus.open(path, split) for split in Corpus.open(path).manifest.splits]


def documents(part):
    return [part.document(nth).tolist() for nth in range(part.num_documents)]


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def megatron_index(lengths, code, itemsize):
    """Field after field, as the layout says."""
    data = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(lengths), len(lengths) + 1)
    data += b"".join(struct.pack("<i", length) for length in lengths)
    data += b"".join(struct.pack("<q", sum(lengths[:nth]) * itemsize) for nth in range(len(lengths)))
    return data + b"".join(struct.pack("<q", nth) for nth in range(len(lengths) + 1))


def test_nanogpt_is_the_ids_in_two_bytes(tmp_path, corpus):
    out = export_corpus(corpus, tmp_path / "out", format="nanogpt")
    assert files(out) == ["meta.json", "tokenizer.json", "train.bin", "val.bin"]
    for part, name in zip(parts(corpus), ("train.bin", "val.bin"), strict=True):
        ids = [token for document in documents(part) for token in document]
        assert (out / name).read_bytes() == struct.pack(f"<{len(ids)}H", *ids)


@pytest.mark.parametrize("format", ["nanogpt", "megatron"])
def test_a_corpus_in_a_store_gives_the_same_files(tmp_path, corpus, format):
    store = Store.of("memory://to-be-exported")
    for name in LocalStore(corpus).names():
        store.copy_from(LocalStore(corpus), name, name)
    for place, out in ((corpus, "local"), (store.place, "remote"), (corpus.as_uri(), "uri")):
        export_corpus(place, tmp_path / out, format=format)
    for out in ("remote", "uri"):
        assert files(tmp_path / out) == files(tmp_path / "local")
        for path in (path for path in (tmp_path / out).iterdir() if path.suffix in (".bin", ".idx")):
            assert path.read_bytes() == (tmp_path / "local" / path.name).read_bytes()


def test_an_altered_tokenizer_is_not_handed_on(tmp_path, corpus):
    path = corpus / "tokenizer.json"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=r"tokenizer\.json` must have the checksum"):
        export_corpus(corpus, tmp_path / "out", format="nanogpt")
    assert not (tmp_path / "out").exists()


def test_nanogpt_meta_holds_what_the_bins_lack(tmp_path, corpus, tokenizer):
    out = export_corpus(corpus, tmp_path / "out", format="nanogpt")
    train, validation = parts(corpus)
    assert json.loads((out / "meta.json").read_bytes()) == {
        "vocab_size": tokenizer.vocab_size,
        "tokenizer": "train:300",
        "tokenizer_sha256": tokenizer.identity,
        "eot_id": tokenizer.eot_id,
        "end_of_text": "append",
        "dtype": "uint16",
        "tokens": {"train": train.num_tokens, "val": validation.num_tokens},
    }
    assert Tokenizer.from_file(out / "tokenizer.json").identity == tokenizer.identity


def test_megatron_is_the_layout_byte_for_byte(tmp_path, corpus):
    out = export_corpus(corpus, tmp_path / "out", format="megatron")
    shards = [shard for part in parts(corpus) for shard in part.manifest.splits[part.split].shards]
    assert len(shards) > 3
    lists = ["splits.json", "tokenizer.json", "train.txt", "validation.txt"]
    assert files(out) == sorted([f"{s.name}.{suffix}" for s in shards for suffix in ("bin", "idx")] + lists)
    for part in parts(corpus):
        left = documents(part)
        for shard in part.manifest.splits[part.split].shards:
            inside, left = left[: shard.num_documents], left[shard.num_documents :]
            ids = [token for document in inside for token in document]
            assert (out / f"{shard.name}.bin").read_bytes() == struct.pack(f"<{len(ids)}H", *ids)
            assert (out / f"{shard.name}.idx").read_bytes() == megatron_index(list(map(len, inside)), 8, 2)
        assert not left


def test_megatron_with_ids_of_four_bytes(tmp_path, wide):
    out = export_corpus(wide, tmp_path / "out", format="megatron")
    assert (out / "train-00000.bin").read_bytes() == struct.pack("<3i", 1, 69_999, 2)
    assert (out / "train-00000.idx").read_bytes() == megatron_index([3], 4, 4)


def test_megatron_lists_weigh_prefixes_by_their_tokens(tmp_path, corpus):
    out = export_corpus(corpus, tmp_path / "out", format="megatron")
    splits = json.loads((out / "splits.json").read_bytes())
    assert splits["test"] is None
    for part, key in zip(parts(corpus), ("train", "valid"), strict=True):
        expected = []
        for shard in part.manifest.splits[part.split].shards:
            expected += [str(shard.num_tokens), str((tmp_path / "out").resolve() / shard.name)]
        assert splits[key] == expected
        assert (out / f"{part.split}.txt").read_text(encoding="utf-8") == " ".join(expected) + "\n"


def test_megatron_lists_leave_out_shards_without_tokens(tmp_path, tokenizer):
    texts = read_strings(["the cat", ""])
    path = build_corpus(texts, tokenizer, tmp_path / "c", validation_fraction=0, shard_bytes=1, end_of_text=False).path
    out = export_corpus(path, tmp_path / "out", format="megatron")
    assert (out / "train-00001.bin").stat().st_size == 0
    assert (out / "train-00001.idx").read_bytes() == megatron_index([0], 8, 2)
    assert "train-00001" not in (out / "train.txt").read_text(encoding="utf-8")
    assert json.loads((out / "splits.json").read_bytes())["valid"] is None


@pytest.mark.parametrize("limit", [10, 100_000_000])
def test_llm_c_files_have_its_header(tmp_path, corpus, limit, monkeypatch):
    monkeypatch.setattr(exporting, "_FILE_TOKENS", limit)
    out = export_corpus(corpus, tmp_path / "out", format="llm.c")
    for part, name in zip(parts(corpus), ("train", "val"), strict=True):
        ids = part.tokens(0, part.num_tokens).tolist()
        written = [ids[start : start + limit] for start in range(0, len(ids), limit)]
        assert [path.name for path in sorted(out.glob(f"{name}_*"))] == [
            f"{name}_{nth:06d}.bin" for nth in range(len(written))
        ]
        for nth, inside in enumerate(written):
            header = struct.pack("<3i", 20240520, 1, len(inside)) + bytes(1012)
            expected = header + struct.pack(f"<{len(inside)}H", *inside)
            assert (out / f"{name}_{nth:06d}.bin").read_bytes() == expected


def test_llm_c_with_ids_of_four_bytes(tmp_path, wide):
    out = export_corpus(wide, tmp_path / "out", format="llm.c")
    expected = struct.pack("<3i", 20240801, 7, 3) + bytes(1012) + struct.pack("<3I", 1, 69_999, 2)
    assert (out / "train_000000.bin").read_bytes() == expected
    corpus = import_nanogpt([out], tmp_path / "again", tokenizer=Corpus.open(wide).tokenizer())
    assert corpus.document(0).tolist() == [1, 69_999, 2]


def test_ids_of_four_bytes_that_would_fit_in_two_are_written_for_nanogpt(tmp_path, wide):
    wide_tokenizer = Corpus.open(wide).tokenizer()
    path = build_corpus(read_strings(["w1 w2"]), wide_tokenizer, tmp_path / "c", validation_fraction=0).path
    out = export_corpus(path, tmp_path / "out", format="nanogpt")
    assert np.fromfile(out / "train.bin", "<u2").tolist() == [1, 2]


def refused(tmp_path, error, *arguments, **settings):
    before = set(tmp_path.iterdir())
    with pytest.raises(error) as raised:
        export_corpus(*arguments, **settings)
    assert set(tmp_path.iterdir()) == before
    return str(raised.value)


def test_ids_beyond_two_bytes_are_refused_for_nanogpt(tmp_path, wide):
    assert refused(tmp_path, CorpusError, wide, tmp_path / "out", format="nanogpt") == (
        "`largest id of the corpus` must be at most 65535 for nanoGPT, whose ids have two bytes, but is 69999. "
        "Export it as llm.c or megatron: four bytes."
    )


def test_white_space_in_the_path_is_refused_for_megatron(tmp_path, corpus):
    message = refused(tmp_path, SettingError, corpus, tmp_path / "my data", format="megatron")
    assert message.startswith("`out` must hold no white space, where Megatron cuts its lists, but is ")


def test_other_formats_are_refused(tmp_path, corpus):
    message = refused(tmp_path, SettingError, corpus, tmp_path / "out", format="npy")
    assert message == "`format` must be one of nanogpt, llm.c, megatron, but is 'npy'. Name one of these."


def test_an_existing_folder_is_refused(tmp_path, corpus):
    assert "must not exist yet" in refused(tmp_path, SettingError, corpus, tmp_path, format="nanogpt")


@pytest.mark.parametrize("format", ["nanogpt", "llm.c", "megatron"])
def test_a_damaged_block_is_found_and_nothing_is_written(tmp_path, corpus, format):
    path = corpus / "train-00001.bin"
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    message = refused(tmp_path, CorpusError, corpus, tmp_path / "out", format=format)
    assert message.startswith(f"`{path}, block 0` must have the checksum ")


@pytest.mark.parametrize("format", ["nanogpt", "llm.c", "megatron"])
def test_the_export_shares_no_file_with_the_corpus(tmp_path, corpus, format):
    out = export_corpus(corpus, tmp_path / "out", format=format)
    for path in out.iterdir():
        with path.open("r+b") as file:
            file.write(b"\xff" * 4)
    for part in parts(corpus):
        part.verify()


def test_progress_counts_bytes_up_to_all(tmp_path, corpus):
    calls = []
    export_corpus(corpus, tmp_path / "out", format="megatron", progress=lambda *call: calls.append(call))
    total = sum(part.num_tokens for part in parts(corpus)) * 2
    assert calls == sorted(calls) and calls[-1] == (total, total)
