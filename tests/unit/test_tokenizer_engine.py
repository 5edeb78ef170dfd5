"""The faster engine is used only where it proves itself."""

import fastokens
import numpy as np
import tokenizers

from tokenspace.tokenizer import Tokenizer
from tokenspace.tokenizer import engine as engine_module


class Wrong:
    """An encoder that loses the last id of every text that holds a digit."""

    def __init__(self, right):
        self._right = right

    def encode_batch_flat(self, texts, split_special_tokens):
        ids, offsets = self._right.encode_batch_flat([text.rstrip("9") for text in texts], split_special_tokens=True)
        return ids, offsets


def with_fastokens(monkeypatch, from_json):
    """A GPT-2 tokenizer whose fast engine comes from `from_json`."""
    monkeypatch.setattr(
        engine_module.fastokens, "Tokenizer", type("Fake", (), {"from_json_str": staticmethod(from_json)})
    )
    return Tokenizer.gpt2()


def test_the_line_says_what_was_checked():
    line = Tokenizer.gpt2().engine
    assert line.startswith("fastokens ") and f"equal those of tokenizers {tokenizers.__version__} on" in line


def test_an_engine_with_other_ids_is_not_used(monkeypatch):
    right = fastokens.Tokenizer.from_json_str
    tokenizer = with_fastokens(monkeypatch, lambda text: Wrong(right(text)))
    text = "x 9" * 50_000
    ids, _ = tokenizer.encode_batch([text])
    assert np.array_equal(ids, tokenizer._library.encode(text).ids)
    assert tokenizer.engine.startswith(f"tokenizers {tokenizers.__version__} (fastokens ")
    assert "gave other ids on '99999999999999999999')" in tokenizer.engine


def test_an_engine_that_refuses_is_not_used(monkeypatch):
    def refuse(text):
        raise ValueError("unsupported\nmodel")

    tokenizer = with_fastokens(monkeypatch, refuse)
    assert tokenizer.engine.endswith("refuses this tokenizer: unsupported model)")
    assert tokenizer.decode(tokenizer.encode("word " * 30_000)) == "word " * 30_000


def test_short_texts_do_not_wait_for_the_fast_engine(monkeypatch):
    built = []
    tokenizer = with_fastokens(monkeypatch, built.append)
    tokenizer.encode("short")
    tokenizer.encode_batch(["short"] * 100)
    assert built == []


def test_a_batch_with_a_surrogate_is_refused_by_the_slow_engine_too(monkeypatch):
    def refuse(text):
        raise ValueError("no")

    tokenizer = with_fastokens(monkeypatch, refuse)
    try:
        tokenizer.encode_batch(["word " * 30_000, "a\ud800"])
    except ValueError as error:
        assert str(error).startswith("`character 1 of the text` must be one of Unicode")
    else:
        raise AssertionError("it was taken")
