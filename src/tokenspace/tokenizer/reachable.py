"""Tokens that encoding can never produce, whatever the text: only those for which that is certain.

That a token's own text encodes to something else proves nothing for the whole tokenizer, whose splitting depends on
what stands beside a text. It does prove it for the model behind the splitting: where a token stands in the result,
the merges inside it met no other token, so they are those of its text alone (BPE); and its piece is the
best way to write its text (Unigram). So a token is named here only if the model makes something else of it.

Not judged, and never named: WordPiece, words with prefixes or suffixes, and what a normaliser or a split pattern
keeps from ever standing together.
"""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import tokenizers

from tokenspace.tokenizer.opening import open_library
from tokenspace.tokenizer.token_bytes import BYTE_TOKEN, byte_alphabet, is_byte_level
from tokenspace.tokenizer.tokenizer import Tokenizer

# What may stand before a token of torn bytes, so that any continuation may follow; and after it, to end its letter.
_BEFORE = [b"", b"\xc3", b"\xe1", b"\xe1\x80", b"\xf1", b"\xf1\x80", b"\xf1\x80\x80"]
_AFTER = [b"", b"\x80", b"\x80\x80", b"\x80\x80\x80", b"\xa0\x80", b"\x90\x80\x80"]
_TOLERANCE = 1e-6  # of Unigram's sums of logarithms


def unreachable_tokens(tokenizer: Tokenizer) -> dict[int, str] | None:
    """Why each token that no text can give is one, by id; None for kinds of tokenizer that are not judged.

    Added tokens, which are matched in the text itself, and the token for what is unknown are left out.

    Example:
        >>> found = unreachable_tokens(Tokenizer.gpt2())
        >>> len(found), found[124]
        (13, 'no UTF-8 text has the byte c0')
    """
    settings = json.loads(tokenizer.to_json())
    model = settings["model"]
    if model["type"] not in ("BPE", "Unigram") or _marks_words(model):
        return None
    left_out = {token["content"] for token in settings["added_tokens"]} | {model.get("unk_token")}
    texts = model["vocab"] if isinstance(model["vocab"], dict) else _first_ids(model)
    judge = _by_merges if model["type"] == "BPE" else _by_scores
    reasons = judge(open_library(tokenizer.to_json(), tokenizer.name).model, settings)
    found = {}
    for text, token_id in texts.items():
        reason = None if text in left_out else reasons(text, token_id)
        if reason is not None:
            found[token_id] = reason
    return dict(sorted(found.items()))


def missing_bytes(tokenizer: Tokenizer) -> list[int]:
    """Bytes that UTF-8 has and a byte-level vocabulary cannot write; none for other kinds.

    Example:
        >>> missing_bytes(Tokenizer.gpt2())
        []
    """
    settings = json.loads(tokenizer.to_json())
    if not is_byte_level(settings) or not isinstance(settings["model"]["vocab"], dict):
        return []
    letters = byte_alphabet()
    return [
        byte for byte in range(256) if letters[byte] not in settings["model"]["vocab"] and _may_stand(bytes([byte]))
    ]


def _marks_words(model: dict[str, Any]) -> bool:
    return bool(model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"))


def _first_ids(model: dict[str, Any]) -> dict[str, int]:
    """Unigram's pieces and their ids, without the unknown one."""
    pieces: dict[str, int] = {}
    for token_id, (text, _) in enumerate(model["vocab"]):
        if token_id != model.get("unk_id"):
            pieces.setdefault(text, token_id)
    return pieces


def _by_merges(model: tokenizers.models.Model, settings: dict[str, Any]) -> Any:
    """Judges a token of a BPE."""
    byte_of = {letter: byte for byte, letter in enumerate(byte_alphabet())} if is_byte_level(settings) else None
    vocabulary, falls_back = settings["model"]["vocab"], settings["model"].get("byte_fallback")

    def reason(text: str, token_id: int) -> str | None:
        byte = BYTE_TOKEN.fullmatch(text) if falls_back else None
        if byte:
            return _of_byte(int(byte[1], 16), vocabulary)
        if byte_of is not None and all(letter in byte_of for letter in text):
            data = bytes(byte_of[letter] for letter in text)
            if not _may_stand(data):
                return f"no UTF-8 text has the byte{'s' * (len(data) > 1)} {data.hex(' ')}"
        return _made_of_others(model.tokenize(text), token_id)

    return reason


def _by_scores(model: tokenizers.models.Model, settings: dict[str, Any]) -> Any:
    """Judges a piece of a Unigram."""
    pieces, falls_back = settings["model"]["vocab"], settings["model"].get("byte_fallback")
    vocabulary = _first_ids(settings["model"])

    def reason(text: str, token_id: int) -> str | None:
        byte = BYTE_TOKEN.fullmatch(text) if falls_back else None
        if byte:
            return _of_byte(int(byte[1], 16), vocabulary)
        tokens = model.tokenize(text)
        found = _made_of_others(tokens, token_id)
        if found is None or not text:
            return found
        ids = [token.id for token in tokens]
        better = all(i < len(pieces) for i in ids) and sum(pieces[i][1] for i in ids) > pieces[token_id][1] + _TOLERANCE
        return found if better else None  # of equally good ways, either may be taken

    return reason


def _made_of_others(tokens: Sequence[tokenizers.Token], token_id: int) -> str | None:
    found = [(token.id, token.value) for token in tokens]
    if [i for i, _ in found] == [token_id]:
        return None
    shown = " + ".join(value for _, value in found[:4]) + (" + …" if len(found) > 4 else "")
    return f"its text becomes {shown}" if found else "its text becomes nothing"


def _of_byte(byte: int, vocabulary: dict[str, int]) -> str | None:
    """A byte token stands for a byte of a character that has no token."""
    if byte < 0x80:
        return f"{chr(byte)!r} has a token of its own" if chr(byte) in vocabulary else None
    return None if _may_stand(bytes([byte])) else f"no UTF-8 text has the byte {byte:02x}"


def _may_stand(data: bytes) -> bool:
    """Whether some UTF-8 text has these bytes in a row."""
    for before, after in itertools.product(_BEFORE, _AFTER):
        try:
            (before + data + after).decode()
        except UnicodeDecodeError:
            continue
        return True
    return False
