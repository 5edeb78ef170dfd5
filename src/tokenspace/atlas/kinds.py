"""What each token of a vocabulary is: its kind, its script, its label and its bytes.

Scripts are told by the Unicode names of a token's letters ("DEVANAGARI LETTER KA"), which
Python carries; what no script owns (digits, signs) is "Common".
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

import numpy as np

from tokenspace.errors import TokenizerError
from tokenspace.tokenizer import Tokenizer

KINDS = ("word start", "continuation", "digits", "punctuation", "whitespace", "bytes", "special", "no token")
COMMON, OTHER = "Common", "Other script"
_LIVING = (  # first words of the Unicode names of their letters; all other scripts share a name
    "Latin Cyrillic Greek Armenian Georgian Hebrew Arabic Syriac Thaana Nko Devanagari Bengali Gurmukhi Gujarati Oriya "
    "Tamil Telugu Kannada Malayalam Sinhala Thai Lao Tibetan Myanmar Khmer Mongolian Hangul Hiragana Katakana Bopomofo "
    "Yi Ethiopic Cherokee Tifinagh Vai Balinese Javanese Sundanese Coptic Gothic Runic Ogham Cuneiform"
)
_SCRIPTS = {name.upper(): name for name in _LIVING.split()}
_SCRIPTS |= {"CJK": "Han", "CANADIAN": "Canadian syllabics"}
_WIDTHS = ("HALFWIDTH ", "FULLWIDTH ")
_NO_SCRIPT = ("MODIFIER", "COMBINING", "MATHEMATICAL", "VARIATION")  # they go with any
_GOES_ON = "##"
_BYTE_LABEL = re.compile(r"\\x[0-9a-f]{2}")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """All tokens of a table, as a reader sees them.

    Attributes:
        labels: Printable names, no two alike.
        bytes: What each stands for; None where the tokenizer does not define it.
        spelled: The same, and in place of None the UTF-8 of the token's spelling without its ``##``.
        kinds: uint8, indices into `KINDS`.
        scripts: Names; "Common" first, then those of most tokens.
        script: uint8, indices into `scripts`.
    """

    labels: list[str]
    bytes: list[bytes | None]
    spelled: list[bytes]
    kinds: np.ndarray
    scripts: list[str]
    script: np.ndarray

    @classmethod
    def of(cls, tokenizer: Tokenizer, num_rows: int) -> "Vocabulary":
        r"""The tokens of a table's rows; rows beyond the tokenizer's are labelled ``\id{…}``."""
        ids = range(num_rows)
        known = min(num_rows, tokenizer.vocab_size)
        labels = [tokenizer.label(i) if i < known else f"\\id{{{i}}}" for i in ids]
        data = [_bytes(tokenizer, i) if i < known else b"" for i in ids]
        judged = [_marked_by_space(tokenizer.spelling(i)) if one is None else one for i, one in enumerate(data)]
        spelled = [whole.removeprefix(b" ") if one is None else one for one, whole in zip(data, judged, strict=True)]
        special = set(tokenizer.special_tokens.values())
        kinds = [KINDS.index("special" if i in special else _kind(i, labels[i], judged[i])) for i in ids]
        found = [script_of(text.decode("utf-8", errors="ignore")) for text in spelled]
        most = Counter(found)
        most.pop(COMMON, None)
        names = [COMMON, *(name for name, _ in most.most_common())]
        script = np.array([names.index(name) for name in found], dtype=np.uint8)
        return cls(labels, data, spelled, np.array(kinds, dtype=np.uint8), names, script)


def script_of(text: str) -> str:
    """The script of most letters of a text; "Common" where there is none.

    Example:
        >>> [script_of(text) for text in (" cat", "बिल्ली", "猫", "Кот", "42!")]
        ['Latin', 'Devanagari', 'Han', 'Cyrillic', 'Common']
    """
    found = Counter(name for name in map(_script_of_character, text) if name is not None)
    return found.most_common(1)[0][0] if found else COMMON


def _script_of_character(character: str) -> str | None:
    if unicodedata.category(character)[0] not in "LM":
        return None
    name = unicodedata.name(character, "")
    for width in _WIDTHS:
        name = name.removeprefix(width)
    first = name.split(" ", 1)[0]
    return None if first in _NO_SCRIPT else _SCRIPTS.get(first, OTHER)


def _bytes(tokenizer: Tokenizer, token_id: int) -> bytes | None:
    try:
        return tokenizer.token_bytes(token_id)
    except TokenizerError:  # a family whose tokens are no bytes
        return None


def _marked_by_space(spelling: str) -> bytes:
    """A token of WordPiece as if its vocabulary marked where words start, not where they go on."""
    goes_on = spelling.startswith(_GOES_ON) and spelling != _GOES_ON
    return (spelling.removeprefix(_GOES_ON) if goes_on else f" {spelling}").encode()


def _kind(token_id: int, label: str, data: bytes) -> str:
    if label == f"\\id{{{token_id}}}":
        return "no token"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes"
    if _BYTE_LABEL.fullmatch(label):
        return "bytes"
    core = text.strip()
    if not core:
        return "whitespace"
    categories = {unicodedata.category(character)[0] for character in core}
    if categories == {"N"}:
        return "digits"
    if categories <= set("PSC"):
        return "punctuation"
    return "word start" if text.startswith(" ") else "continuation"
