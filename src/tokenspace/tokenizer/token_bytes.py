"""Which bytes each token stands for, in every family of tokenizer that defines them.

Bytes are defined where decoding is joining: byte-level vocabularies (GPT-2, Llama 3, Qwen)
and those in SentencePiece's manner (Llama 2, Gemma, T5). They are not defined where decoding
puts white space back by guess (WordPiece, `</w>` suffixes), nor for an unknown-token mark.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def components(settings: dict[str, Any], *parts: str) -> Iterator[dict[str, Any]]:
    """The components of these parts of a `tokenizer.json`, sequences opened, in order.

    Example:
        >>> sequence = {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]}
        >>> [component["type"] for component in components({"decoder": sequence}, "decoder")]
        ['Fuse', 'ByteFallback']
    """
    for part in parts:
        component = settings.get(part)
        if component is None:
            continue
        if component["type"] == "Sequence":
            (members,) = (value for value in component.values() if isinstance(value, list))
            for member in members:
                yield from components({part: member}, part)
        else:
            yield component


def is_byte_level(settings: dict[str, Any]) -> bool:
    """Whether the vocabulary is written in GPT-2's alphabet of 256 letters for the bytes."""
    parts = components(settings, "normalizer", "pre_tokenizer", "decoder")
    return not _marks_words(settings) and any(part["type"] == "ByteLevel" for part in parts)


def token_bytes_table(settings: dict[str, Any], tokens: Sequence[str | None]) -> list[bytes | None]:
    """The bytes of every token; None where they are not defined, empty where an id has no token.

    Args:
        settings: The content of a `tokenizer.json`.
        tokens: The tokens as the vocabulary writes them, by id; None where an id has no token.
    """
    if is_byte_level(settings):
        byte_of = dict.fromkeys(range(0x100), "\uffff")  # what is no letter of the alphabet is no byte either
        byte_of |= {ord(letter): chr(byte) for byte, letter in enumerate(byte_alphabet())}
        table = [_from_alphabet(token or "", byte_of) for token in tokens]
        for added in settings["added_tokens"]:  # these are matched in the text itself, not in its bytes' letters
            table[added["id"]] = added["content"].encode()
        return table
    decode = _joining_decoder(settings)
    unknown = _unknown_token(settings)
    added = {token["id"] for token in settings["added_tokens"]}
    table = []
    for token_id, token in enumerate(tokens):
        if token is None:
            table.append(b"")
        elif token == unknown:
            table.append(None)
        elif decode is not None:
            table.append(decode(token))
        else:
            table.append(token.encode() if token_id in added else None)
    return table


def byte_alphabet() -> list[str]:
    """The letter that GPT-2's vocabulary writes for each byte.

    Printable bytes stand for themselves in Latin-1; the others take the letters from U+0100 on.

    Example:
        >>> byte_alphabet()[ord("A")], byte_alphabet()[ord(" ")]
        ('A', 'Ġ')

    Source: `bytes_to_unicode` in github.com/openai/gpt-2, src/encoder.py.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _from_alphabet(token: str, byte_of: dict[int, str]) -> bytes:
    try:
        return token.translate(byte_of).encode("latin-1")
    except UnicodeEncodeError:  # a token outside the alphabet is text, to the library as well
        return token.encode()


def _joining_decoder(settings: dict[str, Any]) -> Callable[[str], bytes] | None:
    """A function from a token to its bytes, or None where decoding is more than joining."""
    if _marks_words(settings):
        return None
    spaces: list[tuple[str, str]] = []
    falls_back = fused = False
    for step in components(settings, "decoder"):
        match step:
            case {"type": "Metaspace", "replacement": mark}:
                spaces.append((mark, " "))
            case {"type": "Replace", "pattern": {"String": mark}, "content": text} if not fused:
                spaces.append((mark, text))
            case {"type": "ByteFallback"}:
                falls_back = True
            case {"type": "Fuse"}:
                fused = True
            case {"type": "Strip"} if fused:
                pass  # takes the space before the whole text, no token's own
            case _:
                return None
    if not spaces:
        return None

    def decode(token: str) -> bytes:
        byte = BYTE_TOKEN.fullmatch(token) if falls_back else None
        if byte:
            return bytes([int(byte[1], 16)])
        for mark, text in spaces:
            token = token.replace(mark, text)
        return token.encode()

    return decode


def _marks_words(settings: dict[str, Any]) -> bool:
    """Whether tokens carry `##` or `</w>` instead of white space."""
    model = settings["model"]
    return bool(model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"))


def _unknown_token(settings: dict[str, Any]) -> str | None:
    model = settings["model"]
    if model.get("unk_id") is not None:
        return model["vocab"][model["unk_id"]][0]
    return model.get("unk_token")
