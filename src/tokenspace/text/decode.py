"""Bytes -> characters, as a stream, with an error that says where and what else it may be.

Newlines stay as they are; a byte order mark at the very beginning is dropped.
"""

import codecs
import io
from collections.abc import Callable, Iterator
from typing import BinaryIO

from tokenspace.errors import SettingError, TextError

_STEP_BYTES = 1 << 18
_SAMPLE_BYTES = 1 << 15
_ERROR_HANDLERS = ("strict", "replace", "ignore")


def check_encoding(encoding: str, errors: str) -> None:
    """Refuse an encoding that Python does not know, or an unknown way to treat errors.

    Raises:
        SettingError: one of the two is no name this package takes.
    """
    try:
        io.TextIOWrapper(io.BytesIO(), encoding)
    except LookupError as error:
        step = "Give a name such as utf-8, cp1252 or utf-16"
        raise SettingError("encoding", "be a text encoding that Python knows", encoding, step) from error
    if errors not in _ERROR_HANDLERS:
        raise SettingError("errors", f"be one of {', '.join(_ERROR_HANDLERS)}", errors, "Give one of these")


def decode_stream(
    file: BinaryIO, name: str, encoding: str, errors: str, advance: Callable[[int], None], offset: int = 0
) -> Iterator[str]:
    """The characters of a file in chunks of some 256 KiB.

    Args:
        file: Open for reading bytes.
        name: What an error calls it.
        encoding: A name that `check_encoding` let pass.
        errors: What to do about bytes that do not fit: "strict", "replace" or "ignore".
        advance: Called with the number of bytes of each chunk.
        offset: Where in the file the first byte stands; a byte order mark is dropped at 0.

    Raises:
        TextError: bytes do not fit the encoding and `errors` is "strict".
    """
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    at_start = offset == 0
    while True:
        data = file.read(_STEP_BYTES)
        held = len(decoder.getstate()[0])  # bytes of a character that the last chunk began
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise _undecodable(error, name, encoding, offset - held) from error
        offset += len(data)
        advance(len(data))
        if at_start and text:
            text, at_start = text.removeprefix("\ufeff"), False
        if text:
            yield text
        if not data:
            return


def _undecodable(error: UnicodeDecodeError, name: str, encoding: str, offset: int) -> TextError:
    from charset_normalizer import from_bytes  # slow to import, and hardly ever needed

    sample = error.object[max(0, error.start - _SAMPLE_BYTES) : error.start + _SAMPLE_BYTES]
    best = from_bytes(sample).best()
    likely = "cp1252" if best and "cp1252" in best.could_be_from_charset else best and best.encoding  # the commonest
    found = f"something else from byte {offset + error.start} on (0x{error.object[error.start]:02x})"
    if likely and codecs.lookup(likely) != codecs.lookup(encoding):
        step = f"It may be {likely}: read it with --encoding {likely}, or go on with --errors replace"
    else:
        step = "It may be no text at all; give its --encoding, or go on with --errors replace"
    return TextError(name, f"be {encoding} text", found, step)
