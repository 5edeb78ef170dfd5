r"""A printable name for every token; no two tokens of a vocabulary share one.

A space is shown as `␣`, a line break as `\n`, a byte that is no valid UTF-8 by itself as `\xe0`,
a character that has no shape of its own as `\u200d`, and a combining mark that stands alone
on a dotted circle. A backslash is doubled, so that every label can be read back.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from tokenspace.tokenizer.token_bytes import BYTE_TOKEN

_DOTTED_CIRCLE = "\u25cc"
_SPACE = "␣"
_SHORT = {" ": _SPACE, "\n": r"\n", "\r": r"\r", "\t": r"\t", "\\": r"\\"}
_RESERVED = {_DOTTED_CIRCLE, _SPACE}  # used as signs here, so escaped where they are text
_PLAIN = re.compile(r"[!-\[\]-~]+")  # ASCII that is shown as it is
# Printable to Unicode, yet drawn as nothing: joiners, fillers, variation selectors, the blank Braille cell.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def labels(tokens: Sequence[str | None], token_bytes: Sequence[bytes | None]) -> list[str]:
    r"""One label a token id.

    Args:
        tokens: The tokens as the vocabulary writes them, by id; None where an id has no token.
        token_bytes: Their bytes; None where they are not defined, and the token's own spelling is shown.

    Returns:
        The labels by id. Tokens that would look alike (the byte token of `A` is shown as `\x41`, but a file may
        hold one spelling twice) carry their id: `A\id{65}`; so does an id without a token: `\id{65}`.

    Example:
        >>> labels(["Ġcat", "à¤", None], [b" cat", b"\xe0\xa4", b""])
        ['␣cat', '\\xe0\\xa4', '\\id{2}']
    """
    shown = [_label(token, data) for token, data in zip(tokens, token_bytes, strict=True)]
    count = Counter(shown)
    return [
        label if label and count[label] == 1 else f"{label}\\id{{{token_id}}}" for token_id, label in enumerate(shown)
    ]


def _label(token: str | None, data: bytes | None) -> str:
    if data is None or token is None:
        return show(token or "")
    if len(data) == 1 and BYTE_TOKEN.fullmatch(token):  # must not look like the letter it may stand for
        return f"\\x{data[0]:02x}"
    return show(data.decode("utf-8", errors="surrogateescape"))


def show(text: str) -> str:
    r"""`text` in visible characters; lone surrogates stand for bytes, as `surrogateescape` makes them.

    Example:
        >>> show(" naïve\n\u200d")
        '␣naïve\\n\\u200d'
    """
    if _PLAIN.fullmatch(text):
        return text
    shown: list[str] = []
    on_letter = False  # whether a combining mark has something to stand on
    for character in text:
        if character in _SHORT:
            shown.append(_SHORT[character])
            on_letter = False
        elif "\udc80" <= character <= "\udcff":
            shown.append(f"\\x{ord(character) - 0xDC00:02x}")
            on_letter = False
        elif character in _RESERVED or not character.isprintable() or _UNSEEN.match(character):
            shown.append(f"\\u{ord(character):04x}" if character < "\U00010000" else f"\\U{ord(character):08x}")
            on_letter = False
        else:
            is_mark = unicodedata.category(character).startswith("M")
            shown.append(_DOTTED_CIRCLE + character if is_mark and not on_letter else character)
            on_letter = True
    return "".join(shown)
