"""Text to token ids and back: GPT-2's vocabulary, any `tokenizer.json`, or one trained on the spot."""

from tokenspace.tokenizer.statistics import TokenStatistics
from tokenspace.tokenizer.tokenizer import Tokenizer

__all__ = ["TokenStatistics", "Tokenizer"]
