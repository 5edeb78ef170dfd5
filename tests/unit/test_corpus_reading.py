"""Reading an open corpus: documents over shards, blocks checked as they are read, many shards, stores."""

import json
import time
import zlib
from pathlib import Path

import fsspec
import numpy as np
import pytest

from tokenspace.corpus import Corpus
from tokenspace.corpus.format import index_bytes
from tokenspace.corpus.manifest import BLOCK_BYTES, Manifest, Shard, Split, TokenizerStamp
from tokenspace.corpus.shard import BlockCache
from tokenspace.errors import CorpusError
from tokenspace.store import Store
from tokenspace.tokenizer import TokenStatistics

UINT16, INT32 = np.dtype("<u2"), np.dtype("<i4")


def write_corpus(folder, shards, dtype=UINT16):
    """Publish shards of documents: each a list of lists of ids, and whether its first one goes on from before."""
    folder.mkdir(parents=True)
    entries = []
    for number, (documents, continues) in enumerate(shards):
        name, ids = f"train-{number:05d}", np.concatenate([[], *documents]).astype(dtype)
        index = index_bytes(np.array([len(document) for document in documents], np.int64), dtype)
        (folder / f"{name}.bin").write_bytes(ids.tobytes())
        (folder / f"{name}.idx").write_bytes(index)
        blocks = [ids.tobytes()[start : start + BLOCK_BYTES] for start in range(0, ids.nbytes, BLOCK_BYTES)]
        entries.append(
            Shard(
                name=name,
                num_tokens=len(ids),
                num_documents=len(documents),
                bin_bytes=ids.nbytes,
                idx_bytes=len(index),
                idx_crc32=f"{zlib.crc32(index):08x}",
                block_crc32s=tuple(f"{zlib.crc32(block):08x}" for block in blocks),
                continues=continues,
            )
        )
    publish(folder, entries, dtype)
    return Corpus.open(folder)


def publish(folder, shards, dtype):
    manifest = Manifest(
        tokenizer=TokenizerStamp("0" * 64, "none", 60_000, None),
        end_of_text="none",
        dtype=dtype.name,
        validation_fraction=0,
        seed=0,
        splits={"train": Split.of(shards, max_id=59_999)},
        num_sources=1,
        text_bytes=0,
        statistics=TokenStatistics(),
    )
    (folder / "manifest.json").write_bytes(manifest.to_bytes())


SHARDS = [
    ([[1, 2, 3], [], [4]], False),
    ([[5, 6], [7]], True),
    ([], False),
    ([[8, 9, 10]], True),
    ([[], [11], []], False),
    ([[12, 13]], False),
]
DOCUMENTS = [[1, 2, 3], [], [4, 5, 6], [7, 8, 9, 10], [], [11], [], [12, 13]]


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "c", SHARDS)


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# Documents


def test_documents_that_go_on_over_shards_are_one(corpus):
    assert corpus.num_documents == len(DOCUMENTS)
    assert [corpus.document(number).tolist() for number in range(len(DOCUMENTS))] == DOCUMENTS


def test_bounds_are_those_of_all_documents(corpus):
    assert corpus.document_bounds.tolist() == [0, *np.cumsum([len(document) for document in DOCUMENTS]).tolist()]


def test_every_id_is_found_in_its_document(corpus):
    expected = [number for number, document in enumerate(DOCUMENTS) for _ in document]
    assert corpus.find_documents(np.arange(corpus.num_tokens)).tolist() == expected


@pytest.mark.parametrize("length", [1, 2, 5, 13])
def test_starts_are_where_documents_with_ids_begin(corpus, length):
    begins = np.isin(np.arange(corpus.num_tokens), np.cumsum([0, *(len(document) for document in DOCUMENTS)]))
    starts = np.arange(corpus.num_tokens - length + 1)[::-1]
    expected = [begins[start : start + length].tolist() for start in starts]
    assert corpus.document_starts(starts, length).tolist() == expected


def test_a_document_longer_than_a_sequence_may_be(tmp_path):
    """Three documents, the second of 2**32 + 5 ids, over two sequences and more; the `.bin` is a hole."""
    folder = tmp_path / "c"
    folder.mkdir()
    lengths = np.array([3, 2**32 + 5, 2], np.int64)
    index = index_bytes(lengths, UINT16)
    (folder / "train-00000.idx").write_bytes(index)
    size = int(lengths.sum()) * 2
    with (folder / "train-00000.bin").open("wb") as file:
        file.truncate(size)
    crcs = ("00000000",) * -(-size // BLOCK_BYTES)
    publish(folder, [Shard("train-00000", size // 2, 3, size, len(index), f"{zlib.crc32(index):08x}", crcs)], UINT16)
    corpus = Corpus.open(folder)
    assert corpus.document_bounds.tolist() == [0, 3, 2**32 + 8, 2**32 + 10]
    assert corpus.find_documents(np.array([2, 3, 2**32 + 7, 2**32 + 8])).tolist() == [0, 1, 1, 2]
    assert corpus.document_starts(np.array([2**32 + 6]), 4).tolist() == [[False, False, True, False]]
    assert corpus.gather(np.array([2**32]), 3).tolist() == [[0, 0, 0]]


# Checking blocks as they are read


@pytest.fixture
def large(tmp_path):
    """Ten million bytes of ids in three blocks."""
    ids = np.random.default_rng(0).integers(0, 60_000, 5_000_000)
    return write_corpus(tmp_path / "large", [([ids.tolist()], False)])


@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_flipped_bit_is_found_when_its_block_is_first_read(large, block):
    flip(large.path / "train-00000.bin", block * BLOCK_BYTES + 7)
    corpus = Corpus.open(large.path, verify_blocks=True)
    starts = np.array([number * BLOCK_BYTES // 2 + 100 for number in range(3)])
    for number in range(3):
        if number != block:
            corpus.gather(starts[number : number + 1], 10)
    with pytest.raises(
        CorpusError, match=rf"train-00000\.bin, bytes {block * BLOCK_BYTES} to \d+` must have the check"
    ):
        corpus.gather(starts[block : block + 1], 10)


def test_a_window_over_two_blocks_checks_both(large):
    flip(large.path / "train-00000.bin", BLOCK_BYTES)
    corpus = Corpus.open(large.path, verify_blocks=True)
    with pytest.raises(CorpusError, match="must have the checksum"):
        corpus.gather(np.array([BLOCK_BYTES // 2 - 5]), 10)


def test_a_block_is_checked_once(large, monkeypatch):
    corpus, seen = Corpus.open(large.path, verify_blocks=True), []
    monkeypatch.setattr("tokenspace.corpus.shard.check_block", lambda path, number, *_: seen.append(number))
    for _ in range(3):
        corpus.gather(np.array([0, 10, BLOCK_BYTES]), 10)
    assert seen == [0, 2]


def test_blocks_are_not_checked_unless_asked(large):
    flip(large.path / "train-00000.bin", 7)
    Corpus.open(large.path).gather(np.array([0]), 10)


def test_an_altered_index_is_found_at_its_first_use(corpus):
    flip(corpus.path / "train-00001.idx", 40)
    opened = Corpus.open(corpus.path, verify_blocks=True)
    opened.document(0)
    with pytest.raises(CorpusError, match=r"train-00001\.idx` must have the checksum"):
        opened.document(3)


def test_a_corpus_sent_to_another_process_still_checks(large):
    function, arguments = Corpus.open(large.path, verify_blocks=True).__reduce__()
    flip(large.path / "train-00000.bin", 7)
    with pytest.raises(CorpusError, match="must have the checksum"):
        function(*arguments).gather(np.array([0]), 10)


# Many shards


@pytest.fixture
def many(tmp_path):
    return write_corpus(tmp_path / "many", [([[number % 1000] * 3, [number % 1000]], False) for number in range(600)])


def test_more_shards_than_are_mapped_at_once(many):
    ids = many.gather(np.arange(many.num_tokens - 1), 2)
    assert ids[:, 0].tolist() == [number for number in range(600) for _ in range(4)][:-1]
    assert many.document_bounds.tolist() == [0] + [4 * n + k for n in range(600) for k in (3, 4)]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="counts maps in /proc")
def test_maps_do_not_grow_with_the_shards(many):
    many.gather(np.arange(0, many.num_tokens - 1, 4), 2)
    lines = Path("/proc/self/maps").read_text().splitlines()
    assert len({line.split()[-1] for line in lines if str(many.path) in line}) <= 256


# A billion ids


def sparse_corpus(folder, num_tokens):
    """A corpus of zeros that takes no room: two million documents and a `.bin` that is a hole."""
    folder.mkdir()
    lengths = np.full(2_000_000, num_tokens // 2_000_000, np.int64)
    index = index_bytes(lengths, UINT16)
    (folder / "train-00000.idx").write_bytes(index)
    size = int(lengths.sum()) * 2
    with (folder / "train-00000.bin").open("wb") as file:
        file.truncate(size)
    crcs = ("00000000",) * -(-size // BLOCK_BYTES)
    shard = Shard("train-00000", size // 2, len(lengths), size, len(index), f"{zlib.crc32(index):08x}", crcs)
    publish(folder, [shard], UINT16)
    return folder


def test_the_first_documents_of_a_billion_ids_are_there_at_once(tmp_path):
    folder = sparse_corpus(tmp_path / "c", 10**9)
    started = time.perf_counter()
    corpus = Corpus.open(folder)
    flags = corpus.document_starts(np.arange(8) * 100_000_001, 1024)
    seconds = time.perf_counter() - started
    assert flags.sum() in range(8 * 2, 8 * 4)  # one every 500 ids
    assert seconds < 0.5  # the target is 0.1 on a quiet machine; an index read whole takes longer


# Stores


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


def copy_to_memory(memory, corpus, name):
    for path in corpus.path.iterdir():
        memory.pipe(f"/{name}/{path.name}", path.read_bytes())
    return f"memory://{name}"


def test_a_corpus_in_a_store_gives_the_same_ids_and_documents(memory, corpus):
    remote = Corpus.open(copy_to_memory(memory, corpus, "c"))
    starts = np.arange(corpus.num_tokens - 3)
    assert remote.gather(starts, 4).tolist() == corpus.gather(starts, 4).tolist()
    assert remote.document_starts(starts, 4).tolist() == corpus.document_starts(starts, 4).tolist()
    assert remote.identity == corpus.identity
    remote.verify()


def test_a_corpus_in_a_store_can_be_sent_to_another_process(memory, corpus):
    function, arguments = Corpus.open(copy_to_memory(memory, corpus, "c")).__reduce__()
    assert function(*arguments).tokens(0, 4).tolist() == [1, 2, 3, 4]


def test_blocks_of_a_store_are_always_checked(memory, large):
    url = copy_to_memory(memory, large, "c")
    data = bytearray(memory.cat("/c/train-00000.bin"))
    data[BLOCK_BYTES + 9] ^= 1
    memory.pipe("/c/train-00000.bin", bytes(data))
    remote = Corpus.open(url)
    remote.gather(np.array([0]), 10)
    with pytest.raises(CorpusError, match=rf"bytes {BLOCK_BYTES} to"):
        remote.gather(np.array([BLOCK_BYTES // 2]), 10)


def test_blocks_of_a_store_are_read_once_and_only_some_are_kept(memory, large, monkeypatch):
    monkeypatch.setattr("tokenspace.corpus.shard._BLOCKS_KEPT", 2)
    store, read = Store.of(copy_to_memory(memory, large, "c")), []
    cache = BlockCache(store)
    whole = type(store).read_range
    monkeypatch.setattr(type(store), "read_range", lambda self, *span: read.append(span[1]) or whole(self, *span))
    for start in (0, 5, BLOCK_BYTES, 10, 2 * BLOCK_BYTES, 0, BLOCK_BYTES):
        cache.read("train-00000.bin", start, start + 4, None)
    assert read == [0, BLOCK_BYTES, 2 * BLOCK_BYTES, BLOCK_BYTES]


def test_a_store_without_a_corpus(memory):
    with pytest.raises(CorpusError, match=r"memory://none/manifest\.json` must be a file that can be read"):
        Corpus.open("memory://none")


def test_opening_reads_the_manifest_alone(memory, corpus, monkeypatch):
    url, read = copy_to_memory(memory, corpus, "c"), []
    whole = type(Store.of(url)).read
    monkeypatch.setattr(type(Store.of(url)), "read", lambda self, name: read.append(name) or whole(self, name))
    Corpus.open(url)
    assert read == ["manifest.json"]
    assert json.loads(memory.cat("/c/manifest.json"))["version"] == 2
