"""Ids equal to tiktoken's, the reference for GPT-2, built from the same two files without a network."""

import pathlib
import random
import sys
import unicodedata

import pytest
import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from tokenspace.tokenizer import Tokenizer, gpt2

ENGLISH = (
    "It's what they'd said — WE'LL see, won't we? \"I've 3 cats,\" she wrote; 14 dogs & 1,234,567.89 stars… "
    "The quick brown fox doesn't jump over Zoë's naïve café (e.g. on www.example.org).\n\n    Indented.\tTabbed. "
)
DEVANAGARI = "बिल्ली चटाई पर बैठी। क्षत्रिय, श्रीमान् जी—१२३ रुपये; रहिमन धागा प्रेम का, मत तोड़ो चटकाय॥ क\u200dष क\u200cष\n"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.gpt2()


@pytest.fixture(scope="module")
def reference():
    folder = gpt2.data_folder()
    ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
    return tiktoken.Encoding(
        name="gpt2",
        pat_str=r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": 50256},
        explicit_n_vocab=50257,
    )


def assert_same(tokenizer, reference, texts):
    """By the fast engine and by the library, whichever would have been taken."""
    assert tokenizer.engine.startswith("fastokens")
    ids, offsets = tokenizer.encode_batch(texts)
    for number, text in enumerate(texts):
        expected = reference.encode_ordinary(text)
        assert ids[offsets[number] : offsets[number + 1]].tolist() == expected, repr(text[:60])
        if len(text) < 20_000:
            assert tokenizer._library.encode(text, add_special_tokens=False).ids == expected, repr(text[:60])


def test_every_token_has_tiktokens_bytes(tokenizer, reference):
    for token_id in range(50257):
        assert tokenizer.token_bytes(token_id) == reference.decode_single_token_bytes(token_id)


@pytest.mark.parametrize("text", [ENGLISH, DEVANAGARI], ids=["english", "devanagari"])
def test_prose(tokenizer, reference, text):
    assert_same(tokenizer, reference, [text, *text.split(), text * 50, *(text[start:] for start in range(len(text)))])


def test_code(tokenizer, reference):
    sources = [pathlib.Path(sys.modules[name].__file__) for name in ("random", "pathlib", "tiktoken.load")]
    assert_same(tokenizer, reference, [source.read_text(encoding="utf-8") for source in sources])


def test_random_unicode(tokenizer, reference):
    draw = random.Random(1)
    texts = []
    for top in (0x80, 0x100, 0x1000, 0x10000, 0x110000):
        points = [[draw.randrange(top) for _ in range(draw.randrange(1, 60))] for _ in range(300)]
        texts += ["".join(chr(point) for point in text if not 0xD800 <= point < 0xE000) for text in points]
    assert_same(tokenizer, reference, texts)


def test_every_assigned_character_between_letters_and_spaces(tokenizer, reference):
    known = [chr(point) for point in range(0x110000) if unicodedata.category(chr(point)) not in ("Cs", "Co", "Cn")]
    known = known[:20_000] + known[20_000::10]  # the rest is mostly ideographs
    assert_same(tokenizer, reference, [f"a{character} {character}b1{character}\n" for character in known])


def test_white_space_and_contractions(tokenizer, reference):
    draw = random.Random(2)
    parts = [
        " ",
        "  ",
        "\n",
        "\t",
        "\r\n",
        "\u00a0",
        "\u2003",
        "\u3000",
        "'s",
        "'S",
        "'ll",
        "'re",
        "''",
        "’t",
        "a",
        "B",
    ]
    parts += ["don't", "1", "42", "é", "क", "ि", "!", "_", "<|endoftext|>", "<|", "\x00", "\u200b", "\ufeff", "\x85"]
    texts = ["".join(draw.choices(parts, k=draw.randrange(1, 25))) for _ in range(4000)]
    assert_same(tokenizer, reference, texts)


@pytest.mark.parametrize(
    "unit", ["a", "Z", " ", "\n", "é", "क", "की", "9", "!", "😀", "ab", "\u200d", " a", "\t ", "'s"]
)
def test_runs_of_a_hundred_thousand_characters(tokenizer, reference, unit):
    assert_same(tokenizer, reference, [unit * (100_000 // len(unit)), unit * (100_000 // len(unit)) + "x"])


def test_the_end_of_text_is_parsed_only_when_allowed(tokenizer, reference):
    text = f"{ENGLISH}<|endoftext|>{DEVANAGARI}<|endoftext|>"
    assert tokenizer.encode(text) == reference.encode(text, disallowed_special=())
    assert tokenizer.encode(text, {"<|endoftext|>"}) == reference.encode(text, allowed_special={"<|endoftext|>"})
