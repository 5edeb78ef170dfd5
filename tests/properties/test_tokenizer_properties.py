"""What holds for every text: round trips, batches, pieces, statistics, and labels that can be read back."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenspace.tokenizer import Tokenizer
from tokenspace.tokenizer.labels import show
from tokenspace.tokenizer.statistics import count_words

check = settings(derandomize=True, deadline=None, max_examples=150)

# Any Unicode, and texts in which words, spaces, contractions, marks and special tokens meet.
parts = [
    "a",
    "the",
    " ",
    "  ",
    "\n",
    "\t",
    "\r\n",
    "'s",
    "'LL",
    "1",
    "23",
    "कि",
    "ि",
    "\u200d",
    "é",
    "e\u0301",
    "😀",
    "❤️",
]
mixes = st.lists(st.sampled_from([*parts, "।", "!", "_", "<|endoftext|>", "<|", "\u00a0", "ß", "你"]), max_size=40).map(
    "".join
)
texts = st.one_of(st.text(), mixes)


@pytest.fixture(scope="module", params=["gpt2", "trained"])
def tokenizer(request):
    if request.param == "gpt2":
        return Tokenizer.gpt2()
    return Tokenizer.train(["".join(parts) * 3, "बिल्ली चटाई पर बैठी the cat's mat " * 9], 400)


@check
@given(text=texts)
def test_decoding_the_ids_returns_the_text(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()


@check
@given(text=texts)
def test_no_special_token_comes_out_of_plain_text(tokenizer, text):
    assert tokenizer.eot_id not in tokenizer.encode(f"{text}<|endoftext|>{text}")


@check
@given(text=texts)
def test_allowed_special_tokens_cut_the_text(tokenizer, text):
    text = text.replace("<|endoftext|>", "")
    if "<|endoftext|>" in text:  # put together by the removal
        return
    plain = tokenizer.encode(text)
    assert tokenizer.encode(f"{text}<|endoftext|>{text}", "all") == [*plain, tokenizer.eot_id, *plain]


@check
@given(batch=st.lists(texts, max_size=5))
def test_a_batch_by_the_fast_engine_is_its_texts_by_the_library(tokenizer, batch):
    assert tokenizer.engine.startswith("fastokens")  # built now, so that every batch takes it
    ids, offsets = tokenizer.encode_batch(batch)
    assert offsets[0] == 0 and offsets[-1] == len(ids) and len(offsets) == len(batch) + 1
    for number, text in enumerate(batch):
        expected = tokenizer._library.encode(text, add_special_tokens=False).ids
        assert ids[offsets[number] : offsets[number + 1]].tolist() == expected


@check
@given(text=texts)
def test_pieces_cut_before_a_space_after_a_letter_have_the_ids_of_the_whole(tokenizer, text):
    assert tokenizer.splits_at_spaces
    pieces = re.split(r"(?<=[^\W\d_])(?= )", text)
    ids, _ = tokenizer.encode_batch(pieces)
    assert ids.tolist() == tokenizer.encode(text)


@check
@given(text=texts)
def test_partial_tokens_are_those_that_do_not_decode(tokenizer, text):
    ids = tokenizer.encode_batch([text])[0]
    torn = [tokenizer.decode_bytes([i]).decode(errors="ignore").encode() != tokenizer.token_bytes(i) for i in ids]
    assert np.array_equal(tokenizer.partial_utf8[ids], np.array(torn, dtype=bool))


@check
@given(data=st.binary(max_size=12))
def test_a_label_can_be_read_back(data):
    label = show(data.decode(errors="surrogateescape"))
    assert label.isprintable() and " " not in label
    pattern = r"\\(?:([\\nrt])|x(..)|u(....)|U(........))|(.)"
    short = {"\\": b"\\", "n": b"\n", "r": b"\r", "t": b"\t"}
    read = b""
    for letter, byte, four, eight, plain in re.findall(pattern, label):
        if letter:
            read += short[letter]
        elif byte:
            read += bytes([int(byte, 16)])
        elif four or eight:
            read += chr(int(four or eight, 16)).encode()
        else:
            read += {"␣": " ", "\u25cc": ""}.get(plain, plain).encode()
    assert read == data


@check
@given(text=st.text(alphabet=st.sampled_from("ab क\n\t é😀'"), max_size=40))
def test_words_are_those_of_split(text):
    assert count_words(text) == len(text.split())
