"""Training a byte-level BPE on documents, with a split pattern for scripts that have combining marks.

GPT-2's own pattern lets a word consist of letters alone, and so tears Devanagari, Tamil or Arabic
apart at every vowel sign. Here a letter carries the marks and joiners that follow it; all else is
as in GPT-2. The training itself is the `tokenizers` library's.
"""

from collections.abc import Callable, Iterable, Iterator

import tokenizers

from tokenspace.errors import TokenizerError, check_at_least
from tokenspace.tokenizer.gpt2 import END_OF_TEXT

# \x{200C} and \x{200D} are the joiners of Indic and Persian words. Marks after anything but a letter
# stay with that (an emoji and its variation selector).
SPLIT_PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)"
    r"| ?\p{L}[\p{L}\p{M}\x{200C}\x{200D}]*"
    r"| ?\p{N}+"
    r"| ?[^\s\p{L}\p{N}]+"
    r"|\s+(?!\S)|\s+"
)
_LEAST_FREQUENCY = 2  # a pair seen once would be learned by heart
_LONGEST_PIECE = 1_000_000  # characters handed to the library at once
_SMALLEST_VOCABULARY = 257  # the bytes and the end of text

Progress = Callable[[int, int], None]


def train(documents: Iterable[str], vocab_size: int, progress: Progress | None = None) -> tokenizers.Tokenizer:
    """A byte-level BPE of at most `vocab_size` tokens, `<|endoftext|>` the last of them.

    Args:
        documents: The texts, read once, as a stream.
        vocab_size: Tokens wanted, at least 257; a small text gives fewer.
        progress: Called with the documents and the characters read so far.

    Raises:
        SettingError: `vocab_size` is below 257.
        TokenizerError: a document holds a lone surrogate.

    Source: Sennrich et al. 2016 (arXiv:1508.07909); bytes as in GPT-2 (Radford et al. 2019).
    """
    check_at_least(_SMALLEST_VOCABULARY, vocab_size=vocab_size)
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(SPLIT_PATTERN), "isolated")
    to_bytes = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=_LEAST_FREQUENCY,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,  # it would print; `progress` is told instead
    )
    tokenizer.train_from_iterator(_pieces(documents, progress), trainer)
    tokenizer.add_special_tokens([tokenizers.AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return tokenizer


def _pieces(documents: Iterable[str], progress: Progress | None) -> Iterator[str]:
    """The documents, long ones cut where the split pattern cuts too."""
    characters = 0
    for number, document in enumerate(documents):
        _check_unicode(document, number)
        start = 0
        while start < len(document):
            end = _cut(document, start)
            yield document[start:end]
            characters += end - start
            start = end
            if progress is not None:
                progress(number + (end == len(document)), characters)


def _cut(document: str, start: int) -> int:
    """The end of the piece that begins at `start`: the document's, or just before a space after a letter."""
    end = start + _LONGEST_PIECE
    while (end := document.find(" ", end)) != -1:
        if document[end - 1].isalpha():
            return end
        end += 1
    return len(document)


def _check_unicode(document: str, number: int) -> None:
    try:
        document.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"character {error.start:,} of document {number:,}",
            "be one of Unicode, no lone surrogate",
            document[error.start],
            "Read it with errors='replace', or remove that character",
        ) from error
