"""The vocabulary as tables by id: how tokens are written, their bytes, their labels.

Each table is made when first asked for. Nothing here encodes or decodes a text.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import orjson
import tokenizers

from tokenspace.errors import TokenizerError
from tokenspace.tokenizer.labels import labels
from tokenspace.tokenizer.token_bytes import is_byte_level, token_bytes_table


class Vocabulary:
    """All tokens of one tokenizer.

    Args:
        library: The tokenizer; only read.
    """

    def __init__(self, library: tokenizers.Tokenizer) -> None:
        self._library = library

    @cached_property
    def size(self) -> int:
        """The largest id plus 1."""
        largest = max(self._library.get_vocab(with_added_tokens=True).values(), default=-1)
        return max(largest + 1, self._library.get_vocab_size(with_added_tokens=False))  # a Unigram file may repeat one

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """The special tokens and their ids, by id."""
        added = self._library.get_added_tokens_decoder()
        return {added[token_id].content: token_id for token_id in sorted(added) if added[token_id].special}

    @cached_property
    def json(self) -> str:
        """The text of its `tokenizer.json`; kept, because the library takes 30 ms to write GPT-2's."""
        return self._library.to_str(pretty=True)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The content of the `tokenizer.json`."""
        return orjson.loads(self.json)

    @cached_property
    def is_byte_level(self) -> bool:
        """Whether any bytes can be written, and decoding is joining them."""
        return is_byte_level(self.settings)

    @cached_property
    def tokens(self) -> list[str | None]:
        """Every token as the vocabulary writes it; None where an id has none."""
        return [self._library.id_to_token(token_id) for token_id in range(self.size)]

    @cached_property
    def bytes(self) -> list[bytes | None]:
        """The bytes of every token; None where they are not defined, empty where an id has no token."""
        return token_bytes_table(self.settings, self.tokens)

    @cached_property
    def labels(self) -> list[str]:
        """A printable name for every id, no two alike."""
        return labels(self.tokens, self.bytes)

    @cached_property
    def partial_utf8(self) -> np.ndarray:
        """For every id, whether its token is no valid UTF-8 by itself: bool, read-only."""
        partial = np.array([data is not None and not _is_utf8(data) for data in self.bytes], dtype=bool)
        partial.flags.writeable = False
        return partial

    def checked(self, ids: Sequence[int] | np.ndarray) -> list[int]:
        """The ids as plain numbers, all of them inside the vocabulary.

        Raises:
            TokenizerError: one is not.
        """
        array = np.asarray(ids, dtype=np.int64)
        outside = array[(array < 0) | (array >= self.size)]
        if outside.size:
            rule = f"be at least 0 and below {self.size:,}"
            raise TokenizerError("token id", rule, int(outside[0]), "Use ids of this tokenizer")
        return array.tolist()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
