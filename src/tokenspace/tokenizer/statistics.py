"""How well a tokenizer fits a text: tokens a word, and tokens that are torn characters."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Self

import numpy as np

_TOO_MANY_PARTIAL = 0.2


@dataclass(frozen=True)
class TokenStatistics:
    """Counts over encoded text; those of two texts can be added.

    Attributes:
        characters: Unicode code points.
        words: Runs of characters other than ASCII white space and control characters.
        tokens: Ids, without end-of-text.
        partial_tokens: Ids whose bytes are no valid UTF-8 by themselves.

    Example:
        >>> statistics = TokenStatistics.of(["क"], np.array([1, 1, 1]), partial_utf8=np.array([False, True]))
        >>> (statistics + statistics).tokens_per_word, statistics.partial_share
        (3.0, 1.0)
    """

    characters: int = 0
    words: int = 0
    tokens: int = 0
    partial_tokens: int = 0

    @classmethod
    def of(
        cls, texts: Sequence[str], ids: np.ndarray, partial_utf8: np.ndarray, data: Sequence[bytes] | None = None
    ) -> Self:
        """Count some texts, or pieces of texts cut before white space.

        Args:
            texts: The texts.
            ids: Their ids, all together.
            partial_utf8: For every id, whether its token is no valid UTF-8 by itself (`Tokenizer.partial_utf8`).
            data: The texts as UTF-8, where that is at hand.
        """
        words = count_words(b"\n".join(data) if data is not None else "\n".join(texts))
        return cls(sum(map(len, texts)), words, len(ids), int(np.count_nonzero(np.take(partial_utf8, ids))))

    def __add__(self, other: "TokenStatistics") -> "TokenStatistics":
        return TokenStatistics(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def tokens_per_word(self) -> float:
        """Tokens for each word of the text; 0 where there was none."""
        return self.tokens / self.words if self.words else 0.0

    @property
    def partial_share(self) -> float:
        """Share of the tokens that are no valid UTF-8 by themselves, 0 to 1."""
        return self.partial_tokens / self.tokens if self.tokens else 0.0

    def remarks(self) -> list[str]:
        """How well the tokenizer fits the text, in lines for people; where it fits badly, the remedy.

        None where only tokens were counted, because the text was not at hand.
        """
        if self.tokens and not self.words:
            return []
        fit = f"{self.tokens_per_word:.2f} tokens a word; {self.partial_share:.1%} of them are no valid UTF-8 alone"
        if self.partial_share <= _TOO_MANY_PARTIAL:
            return [fit]
        return [fit, "this tokenizer does not know the script; train one on the text with --tokenizer train:8000"]


def count_words(text: str | bytes) -> int:
    r"""Runs of characters between ASCII white space and control characters.

    Counted on the bytes, some ten times as fast as `len(text.split())`.

    Example:
        >>> count_words("  बिल्ली चटाई\nपर  बैठी ")
        4
    """
    data = np.frombuffer(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"), np.uint8)
    in_word = data > 0x20
    return int(np.count_nonzero(in_word[1:] > in_word[:-1])) + int(in_word[:1].sum())
