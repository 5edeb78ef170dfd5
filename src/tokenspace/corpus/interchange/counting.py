"""How much text ids stand for, from the bytes of their tokens: nothing is decoded.

Counts are those of `TokenStatistics.of` over the text, byte-level vocabularies; SentencePiece-style
ones write a space before each document, which is counted too. Where tokens have no bytes of their
own (WordPiece), only tokens are counted.
"""

import numpy as np

from tokenspace.corpus.interchange.foreign import Batch
from tokenspace.errors import TokenizerError
from tokenspace.tokenizer import Tokenizer, TokenStatistics


class IdCounter:
    """Counts a stream of ids; `statistics` is what it came to so far."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.statistics = TokenStatistics()
        self._eot_id = tokenizer.eot_id
        self._partial_utf8 = tokenizer.partial_utf8
        data = [_bytes_of(tokenizer, token_id) for token_id in range(tokenizer.vocab_size)]
        self._knows_bytes = any(data)
        self._sizes = np.array([len(part) for part in data], np.int64)
        self._characters = np.array([sum(byte & 0xC0 != 0x80 for byte in part) for part in data], np.int64)
        words = [_in_word(part) for part in data]
        self._inner_words = np.array([np.count_nonzero(word[1:] > word[:-1]) for word in words], np.int64)
        self._begins_in_word = np.array([word[:1].any() for word in words])
        self._ends_in_word = np.array([word[-1:].any() for word in words])
        self._in_word = False  # at the end of the ids so far

    def count(self, batch: Batch) -> int:
        """Count the ids of a batch.

        Returns:
            The bytes of its text.
        """
        ids = batch.ids
        counts = np.bincount(ids, minlength=len(self._sizes))
        if self._eot_id is not None:
            counts[self._eot_id] = 0
        self.statistics += TokenStatistics(
            characters=int(counts @ self._characters),
            words=int(counts @ self._inner_words) + self._words_begun(batch) if self._knows_bytes else 0,
            tokens=int(counts.sum()),
            partial_tokens=int(counts[self._partial_utf8].sum()),
        )
        return int(counts @ self._sizes)

    def _words_begun(self, batch: Batch) -> int:
        """Ids that begin with a word where the id before did not end in one."""
        after = np.concatenate([[self._in_word], self._ends_in_word[batch.ids]])
        after[np.cumsum(batch.lengths)[batch.ends]] = False  # a document begins anew
        self._in_word = bool(after[-1])
        return int(np.count_nonzero(self._begins_in_word[batch.ids] & ~after[:-1]))


def _bytes_of(tokenizer: Tokenizer, token_id: int) -> bytes:
    if token_id == tokenizer.eot_id:
        return b""
    try:
        return tokenizer.token_bytes(token_id)
    except TokenizerError:  # the vocabulary does not say
        return b""


def _in_word(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8) > 0x20
