"""Tokens that no text gives: what is named is never produced, and what cannot be produced by merges is named."""

import itertools
import json
import random

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from tokenspace import Tokenizer
from tokenspace.tokenizer.reachable import missing_bytes, unreachable_tokens


def bpe(vocabulary, merges, **settings):
    ids = {text: token_id for token_id, text in enumerate(vocabulary)}
    return Tokenizer(tokenizers.Tokenizer(models.BPE(vocab=ids, merges=merges, **settings)), "bpe")


def unigram(scores):
    return Tokenizer(tokenizers.Tokenizer(models.Unigram([("<unk>", -20.0), *scores], unk_id=0)), "unigram")


def produced(tokenizer, alphabet, length):
    texts = ("".join(letters) for n in range(1, length + 1) for letters in itertools.product(alphabet, repeat=n))
    return {token_id for text in texts for token_id in tokenizer.encode(text)}


def test_a_token_without_a_merge_is_named_with_what_it_becomes():
    tokenizer = bpe(["a", "b", "ab", "abb"], [("a", "b")])
    assert unreachable_tokens(tokenizer) == {3: "its text becomes ab + b"}


def test_a_token_whose_merge_comes_too_late_is_named():
    tokenizer = bpe(["a", "b", "c", "bc", "ab", "abc"], [("b", "c"), ("a", "b"), ("ab", "c")])
    assert list(unreachable_tokens(tokenizer)) == [5]
    assert unreachable_tokens(bpe(["a", "b", "c", "bc", "abc"], [("b", "c"), ("a", "bc")])) == {}


def test_whole_words_that_skip_the_merges_are_reachable():
    assert unreachable_tokens(bpe(["a", "b", "ab", "abb"], [("a", "b")], ignore_merges=True)) == {}


@pytest.mark.parametrize("seed", range(40))
def test_of_random_merges_exactly_those_are_named_that_no_text_gives(seed):
    chance = random.Random(seed)
    vocabulary, merges = ["a", "b", "c"], []
    while len(vocabulary) < 12:
        pair = chance.choice(vocabulary), chance.choice(vocabulary)
        if len("".join(pair)) <= 4 and pair not in merges:
            merges.append(pair)
            if "".join(pair) not in vocabulary:
                vocabulary.append("".join(pair))
    chance.shuffle(merges)
    tokenizer = bpe(vocabulary, merges)
    assert set(unreachable_tokens(tokenizer)) == set(range(12)) - produced(tokenizer, "abc", 7)


@pytest.mark.parametrize("seed", range(40))
def test_of_random_pieces_none_is_named_that_a_text_gives(seed):
    chance = random.Random(seed)
    texts = ["a", "b", *{"".join(chance.choices("ab", k=chance.randint(2, 4))) for _ in range(8)}]
    tokenizer = unigram([(text, -chance.uniform(1, 8)) for text in texts])
    named = set(unreachable_tokens(tokenizer))
    assert named == set(range(1, len(texts) + 1)) - produced(tokenizer, "ab", 8)


def test_equally_good_ways_to_write_a_piece_are_left_open():
    assert unreachable_tokens(unigram([("a", -1.0), ("b", -1.0), ("ab", -2.0)])) == {}
    assert unreachable_tokens(unigram([("a", -1.0), ("b", -1.0), ("ab", -2.0 - 1e-12)])) == {}  # sums are rounded


def byte_level(letters, merges=()):
    library = tokenizers.Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(letters)}, merges=list(merges)))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    return Tokenizer(library, "bytes")


def test_bytes_that_utf8_never_has_side_by_side():
    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = [("à", "¤"), ("¤", "à"), ("à", "à"), ("í", "ł"), ("ð", "ı")]
    tokenizer = byte_level([*letters, *map("".join, merges)], merges)
    named = {tokenizer.label(i).split("\\id")[0] for i in unreachable_tokens(tokenizer) if i >= 256}
    assert named == {r"\xe0\xe0", r"\xed\xa0", r"\xf0\x8f"}  # e0 a4 begins a letter, a4 e0 ends one and begins another


def test_a_vocabulary_that_lacks_bytes_is_told():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    assert missing_bytes(byte_level([letter for letter in letters if letter not in ("A", "À")])) == [0x41]
    assert missing_bytes(bpe(["a"], [])) == []


def test_byte_tokens_of_letters_that_have_a_token():
    bytes_ = [f"<0x{n:02X}>" for n in range(256)]
    tokenizer = bpe(["A", *bytes_], [], byte_fallback=True)
    named = unreachable_tokens(tokenizer)
    assert named[1 + 0x41] == "'A' has a token of its own" and 1 + 0x42 not in named
    assert named[1 + 0xFF] == "no UTF-8 text has the byte ff" and 1 + 0xE0 not in named


def test_added_tokens_are_left_out():
    library = tokenizers.Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    library.add_special_tokens(["<s>"])
    library.add_tokens(["ab"])
    assert unreachable_tokens(Tokenizer(library, "added")) == {}


def test_words_in_pieces_are_not_judged():
    library = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    assert unreachable_tokens(Tokenizer(library, "wordpiece")) is None
    assert unreachable_tokens(bpe(["a", "b</w>"], [], end_of_word_suffix="</w>")) is None


def test_a_trained_vocabulary_has_none_but_impossible_bytes():
    tokenizer = Tokenizer.train(["to be or not to be, that is the question"] * 9, 300)
    assert set(unreachable_tokens(tokenizer).values()) == {
        f"no UTF-8 text has the byte {byte:02x}" for byte in (0xC0, 0xC1, *range(0xF5, 0x100))
    }


def test_a_merge_taken_out_is_found():
    settings = json.loads(Tokenizer.train(["to be or not to be, that is the question"] * 9, 300).to_json())
    gone = settings["model"]["merges"].pop(0)
    found = unreachable_tokens(Tokenizer.from_json(json.dumps(settings)))
    assert settings["model"]["vocab"]["".join(gone)] in found
