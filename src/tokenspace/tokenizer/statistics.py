"""How well a tokenizer fits a text: tokens a word, and tokens that are torn characters."""

import numpy as np

_TOO_MANY_TORN = 0.2


class TokenStatistics:
    """Counts over a stream of encoded text.

    Args:
        partial_utf8: For every id, whether its token is no valid UTF-8 by itself (`Tokenizer.partial_utf8`).

    Example:
        >>> statistics = TokenStatistics(np.array([False, True]))
        >>> statistics.add("क", np.array([1, 1, 1]))
        >>> statistics.tokens_per_word, statistics.partial_share
        (3.0, 1.0)
    """

    def __init__(self, partial_utf8: np.ndarray) -> None:
        self._partial_utf8 = partial_utf8
        self.words = 0
        self.tokens = 0
        self.partial_tokens = 0

    def add(self, text: str, ids: np.ndarray) -> None:
        """Count one text and its ids, or one piece of a text cut before white space."""
        self.words += count_words(text)
        self.tokens += len(ids)
        self.partial_tokens += int(np.count_nonzero(self._partial_utf8[ids]))

    @property
    def tokens_per_word(self) -> float:
        """Tokens for each word of the text; 0 where there was none."""
        return self.tokens / self.words if self.words else 0.0

    @property
    def partial_share(self) -> float:
        """Share of the tokens that are no valid UTF-8 by themselves, 0 to 1."""
        return self.partial_tokens / self.tokens if self.tokens else 0.0

    @property
    def advice(self) -> str | None:
        """What to do when the tokenizer does not fit the text; None when it does."""
        if self.partial_share <= _TOO_MANY_TORN:
            return None
        return (
            f"{self.partial_share:.0%} of the tokens are torn characters: this tokenizer does not know the script. "
            "Train one on the text with --tokenizer train:8000."
        )


def count_words(text: str) -> int:
    r"""Runs of characters between ASCII white space and control characters.

    Counted on the bytes, some ten times as fast as `len(text.split())`.

    Example:
        >>> count_words("  बिल्ली चटाई\nपर  बैठी ")
        4
    """
    data = np.frombuffer(text.encode("utf-8", errors="surrogatepass"), np.uint8)
    in_word = data > 0x20
    return int(np.count_nonzero(in_word[1:] > in_word[:-1])) + int(in_word[:1].sum())
