"""Whether a long text may be encoded in pieces.

With a known split pattern a token never reaches over a space that follows a letter, so a text cut
just before such a space gives the same ids. Others (SentencePiece, which marks the start of a
text; unknown patterns) are encoded whole.
"""

import itertools
import re
from collections.abc import Callable
from typing import Any

from tokenspace.tokenizer.bpe_training import SPLIT_PATTERN
from tokenspace.tokenizer.samples import sample_texts
from tokenspace.tokenizer.token_bytes import components

_CUT = re.compile(r"(?<=[^\W\d_])(?= )")  # between a letter and a space
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_O200K_UPPER, _O200K_LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_KNOWN_PATTERNS = {
    SPLIT_PATTERN,
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_TAIL}",  # cl100k, Llama 3
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{_TAIL}",  # Qwen 2
    rf"[^\r\n\p{{L}}\p{{N}}]?{_O200K_UPPER}*{_O200K_LOWER}+{_CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_O200K_UPPER}+{_O200K_LOWER}*{_CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",  # o200k
}


def splits_at_spaces(settings: dict[str, Any], encode: Callable[[str], list[int]]) -> bool:
    """Whether cutting just before a U+0020 that follows a letter leaves the ids as they are.

    Args:
        settings: The content of a `tokenizer.json`.
        encode: Encodes a text; tried on hard texts, whole and in pieces.
    """
    if not _cuts_by_known_pattern(settings):
        return False
    for text in sample_texts():
        cuts = [0, *(match.start() for match in _CUT.finditer(text)), len(text)]
        pieces = [encode(text[start:end]) for start, end in itertools.pairwise(cuts)]
        if list(itertools.chain.from_iterable(pieces)) != encode(text):
            return False
    return True


def _cuts_by_known_pattern(settings: dict[str, Any]) -> bool:
    """Byte-level, at most NFC beforehand, one known pattern, and no added token that reaches over a space."""
    if any(part != {"type": "NFC"} for part in components(settings, "normalizer")):
        return False
    for token in settings["added_tokens"]:
        reaches = " " in token["content"] or token["lstrip"] or token["rstrip"] or token["single_word"]
        if reaches and not token["special"]:  # special ones are text
            return False
    match list(components(settings, "pre_tokenizer")):
        case [{"type": "ByteLevel", "use_regex": True}]:
            return True
        case [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "use_regex": False},
        ]:
            return pattern in _KNOWN_PATTERNS
    return False
