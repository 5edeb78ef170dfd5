"""Against the loader of *Build a Large Language Model (From Scratch)*, chapter 2, told anew, and plain integers."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tokenspace.corpus import Corpus, build_corpus
from tokenspace.loader import TokenArray, WindowLoader, create_dataloader
from tokenspace.text import Piece
from tokenspace.tokenizer import Tokenizer
from tokenspace.windows import KeyedPermutation

STORY = "".join(f"On day {day} the clerk wrote {day * day} lines, and nobody read them.\n" for day in range(120))
SHAPES = [(4, 256, 128), (8, 4, 1), (1, 4, 4), (8, 4, 4), (3, 7, 5), (2, 16, 40), (5, 1, 1), (2, 200, 1000)]


@pytest.fixture(scope="module")
def gpt2():
    return Tokenizer.gpt2()


def like_the_book(ids, batch_size, max_length, stride, drop_last):
    """Every window as a pair of tensors made beforehand, collated by torch."""
    starts = range(0, len(ids) - max_length, stride)
    inputs = torch.stack([torch.tensor(ids[start : start + max_length]) for start in starts])
    targets = torch.stack([torch.tensor(ids[start + 1 : start + 1 + max_length]) for start in starts])
    return DataLoader(TensorDataset(inputs, targets), batch_size=batch_size, shuffle=False, drop_last=drop_last)


def assert_same_batches(ours, book):
    ours, book = list(ours), list(book)
    assert len(ours) == len(book)
    for (inputs, targets), (book_inputs, book_targets) in zip(ours, book, strict=True):
        assert inputs.dtype == targets.dtype == book_inputs.dtype == torch.int64
        assert torch.equal(inputs, book_inputs)
        assert torch.equal(targets, book_targets)


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(("batch_size", "max_length", "stride"), SHAPES)
def test_a_text_gives_the_books_tensors(gpt2, batch_size, max_length, stride, drop_last):
    ours = create_dataloader(STORY, batch_size, max_length, stride, shuffle=False, drop_last=drop_last, tokenizer=gpt2)
    book = like_the_book(gpt2.encode(STORY), batch_size, max_length, stride, drop_last)
    assert len(ours) == len(book)
    assert_same_batches(ours, book)


def test_the_defaults_are_the_books(gpt2):
    ours = create_dataloader(STORY, shuffle=False)
    assert_same_batches(ours, like_the_book(gpt2.encode(STORY), 4, 256, 128, drop_last=True))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is one core
@pytest.mark.parametrize("drop_last", [True, False])
def test_worker_processes_give_the_books_tensors(gpt2, drop_last):
    ours = create_dataloader(STORY, 3, 16, 16, False, drop_last, 2, tokenizer=gpt2)
    assert_same_batches(ours, like_the_book(gpt2.encode(STORY), 3, 16, 16, drop_last))


def test_end_of_text_in_a_text_is_parsed_as_the_book_does_when_asked_for(gpt2):
    text = "one day<|endoftext|>another day " * 9
    ours = create_dataloader(text, 2, 4, 2, False, allowed_special={"<|endoftext|>"})
    ids = gpt2.encode(text, allowed_special={"<|endoftext|>"})
    assert 50256 in ids
    assert_same_batches(ours, like_the_book(ids, 2, 4, 2, drop_last=True))


@pytest.mark.parametrize(("batch_size", "max_length", "stride"), SHAPES)
def test_a_corpus_of_many_shards_gives_the_tensors_of_its_ids(tmp_path, gpt2, batch_size, max_length, stride):
    pieces = [Piece(text, True, "story", row) for row, text in enumerate(STORY.splitlines())]
    build_corpus(pieces, gpt2, tmp_path / "corpus", validation_fraction=0.0, shard_bytes=1000)
    corpus = Corpus.open(tmp_path / "corpus")
    assert len(list((tmp_path / "corpus").glob("train-*.bin"))) > 3
    ids = corpus.tokens(0, corpus.num_tokens).tolist()
    ours = create_dataloader(tmp_path / "corpus", batch_size, max_length, stride, False, False)
    assert_same_batches(ours, like_the_book(ids, batch_size, max_length, stride, drop_last=False))


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", "<i2", "<i4", "<u4", "<i8", "<u8"])
def test_ids_of_every_type_give_the_same_tensors(dtype):
    ids = np.arange(100).astype(dtype)
    ours = WindowLoader(TokenArray(ids), 3, 5, 4, shuffle=False, drop_last=False)
    assert_same_batches(ours, like_the_book(ids.tolist(), 3, 5, 4, drop_last=False))


def test_shuffled_batches_hold_the_books_pairs_once_each(gpt2):
    ours = create_dataloader(STORY, 3, 8, 8, shuffle=True, drop_last=False, tokenizer=gpt2, seed=1)
    book = like_the_book(gpt2.encode(STORY), 3, 8, 8, drop_last=False)

    def pairs(loader):
        return [(*x.tolist(), *y.tolist()) for inputs, targets in loader for x, y in zip(inputs, targets, strict=True)]

    shuffled, straight = pairs(ours), pairs(book)
    assert shuffled != straight
    assert sorted(shuffled) == sorted(straight)


def splitmix64(state):
    z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def murmur32(h):
    h = (h ^ (h >> 16)) * 0x85EBCA6B % 2**32
    h = (h ^ (h >> 13)) * 0xC2B2AE35 % 2**32
    return h ^ (h >> 16)


def permuted(index, size, key):
    """The documented network in plain integers: Feistel, eight rounds, walked until inside."""
    bits = max(6, (size - 1).bit_length())
    while True:
        wide, narrow = bits - bits // 2, bits // 2
        left, right = index >> narrow, index % 2**narrow
        for number in range(1, 9):
            round_key = splitmix64((key + number * 0x9E3779B97F4A7C15) % 2**64) >> 32
            left, right = right, (left ^ murmur32(right ^ round_key)) % 2**wide
            wide, narrow = narrow, wide
        index = left << narrow | right
        if index < size:
            return index


@pytest.mark.parametrize("size", [1, 2, 5, 64, 65, 129, 5000, 2**17 + 1, 2**31, 2**33 + 1, 2**48, 2**61 + 1, 2**62])
@pytest.mark.parametrize("key", [0, 1, -1, 2**64 - 1, 2**90 + 7])
def test_the_keyed_order_equals_plain_integer_arithmetic(size, key):
    indices = sorted({min(size - 1, number * size // 23) for number in range(24)})
    ours = KeyedPermutation(size, key)(np.array(indices)).tolist()
    assert ours == [permuted(index, size, key) for index in indices]
