r"""The text of rows in files of vectors: words as they are, or tokens written as labels and read back.

A word file has one row a line, its word first, so a word must hold no white space. Tokens are
written as `Tokenizer.label` shows them (``␣cat``, ``\n``, ``\xe0``), which can be read back. A word
of another tool's file that has no such sign stands for itself.
"""

import codecs
import re
from collections.abc import Sequence

import tokenizers

from tokenspace.tokenizer import Tokenizer
from tokenspace.tokenizer.labels import show

_SIGN = re.compile(r"␣|\\(?:[nrt\\]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|id\{\d+\})|\u25cc(?=.)|[^\\]", re.DOTALL)
_SHORT = {"␣": " ", r"\n": "\n", r"\r": "\r", r"\t": "\t", r"\\": "\\", "\u25cc": ""}
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def label_bytes(label: str) -> bytes:
    r"""What a label stands for; text that is no label stands for itself.

    Example:
        >>> label_bytes("␣naïve\\n"), label_bytes("\\xe0"), label_bytes("C:\\dir")
        (b' na\xc3\xafve\n', b'\xe0', b'C:\\dir')
    """
    signs = _SIGN.findall(label)
    if sum(map(len, signs)) != len(label):  # a backslash that begins no escape: another tool's text
        return label.encode("utf-8", "surrogatepass")
    return b"".join(map(_sign_bytes, signs))


def _sign_bytes(sign: str) -> bytes:
    if sign in _SHORT:
        return _SHORT[sign].encode()
    if sign.startswith("\\id"):  # tells apart tokens that look alike
        return b""
    if sign.startswith("\\x"):
        return bytes([int(sign[2:], 16)])
    text = codecs.decode(sign, "unicode_escape") if sign.startswith("\\") else sign
    return text.encode("utf-8", "surrogatepass")


def text_of(label: str) -> str:
    r"""The text that a label shows; the label itself where it shows torn bytes, or one of several alike.

    Example:
        >>> text_of("␣cat"), text_of("cat"), text_of("\\x41")
        (' cat', 'cat', '\\x41')
    """
    try:
        text = label_bytes(label).decode()
    except UnicodeDecodeError:
        return label
    return text if show(text) == label else label


def word_tokenizer(words: Sequence[str], name: str) -> Tokenizer:
    """A tokenizer in which every word is a token; a word that stands twice has its first row.

    Args:
        words: By id.
        name: For messages.

    Example:
        >>> word_tokenizer(["cat", "sat"], "words").encode("sat cat")
        [1, 0]
    """
    vocabulary: dict[str, int] = {}
    for token_id, word in enumerate(words):
        vocabulary.setdefault(word, token_id)
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    if not any(character.isspace() for word in words for character in word):
        library.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return Tokenizer(library, name)
