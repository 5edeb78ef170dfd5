"""Text to ids: by `fastokens` where it proves itself on this tokenizer, by `tokenizers` where not.

`tokenizers` is the truth. `fastokens` is built when there is enough text to be worth it, and used
only after it gave the same ids on a set of hard texts. This file does not decode.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from importlib import metadata

import fastokens
import numpy as np
import tokenizers

from tokenspace.errors import TokenizerError
from tokenspace.tokenizer.samples import sample_texts

_WORTH_BUILDING = 100_000  # characters; fastokens takes 0.3 s to build for GPT-2, tokenizers 0.1 s for so much text


class Engine:
    """Encodes text as text, except for the special tokens that are allowed.

    Args:
        library: The tokenizer; belongs to this engine from now on.
        allowed: Special tokens that are parsed where they stand in a text; all others are plain text there.
    """

    def __init__(self, library: tokenizers.Tokenizer, allowed: frozenset[str] = frozenset()) -> None:
        self._library = _with_allowed(library, allowed) if allowed else library
        self._library.encode_special_tokens = True  # "encode them as text"

    def encode(self, text: str) -> list[int]:
        """The ids of one text."""
        if len(text) >= _WORTH_BUILDING:
            return self.encode_batch([text])[0].tolist()
        return self._by_library(text)

    def encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts end to end (uint32), and where each begins (int64, one more than texts)."""
        if "_fast" not in vars(self) and sum(map(len, texts)) < _WORTH_BUILDING:
            return _flat([self._by_library(text) for text in texts])
        fast, _ = self._fast
        if fast is None:
            return self._batch_by_library(texts)
        try:
            return _batch_by_fastokens(fast, texts)
        except UnicodeEncodeError as error:
            raise _lone_surrogate(error) from error
        except (ValueError, RuntimeError):  # a pattern that tries too many ways; the truth says whether it may
            return self._batch_by_library(texts)

    @property
    def description(self) -> str:
        """Which engine encodes long texts, and why."""
        return self._fast[1]

    @cached_property
    def _fast(self) -> tuple[fastokens.Tokenizer | None, str]:
        """`fastokens` when it passed the check, else None; and one line that says so."""
        name = f"fastokens {metadata.version('fastokens')}"
        slow = f"tokenizers {tokenizers.__version__}"
        try:
            fast = fastokens.Tokenizer.from_json_str(self._library.to_str())
            text = self._first_difference(fast)
        except (ValueError, RuntimeError) as error:
            return None, f"{slow} ({name} refuses this tokenizer: {' '.join(str(error).split())})"
        if text is not None:
            return None, f"{slow} ({name} gave other ids on {text[:20]!r})"
        return fast, f"{name} (its ids equal those of {slow} on {len(self._samples)} hard texts)"

    @cached_property
    def _samples(self) -> list[str]:
        added = self._library.get_added_tokens_decoder()
        return sample_texts([added[token_id].content for token_id in sorted(added)])

    def _first_difference(self, fast: fastokens.Tokenizer) -> str | None:
        """The first sample that `fastokens` encodes otherwise."""
        ids, offsets = _batch_by_fastokens(fast, self._samples)
        for text, start, end in zip(self._samples, offsets, offsets[1:], strict=False):
            if ids[start:end].tolist() != self._by_library(text):
                return text
        return None

    def _by_library(self, text: str) -> list[int]:
        try:
            return self._library.encode(text, add_special_tokens=False).ids
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library raises nothing narrower, and panics outside of Exception
            raise _refusal(text, error) from error

    def _batch_by_library(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        try:
            return _flat([one.ids for one in self._library.encode_batch_fast(list(texts), add_special_tokens=False)])
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # one of them; find which
            return _flat([self._by_library(text) for text in texts])


def _batch_by_fastokens(fast: fastokens.Tokenizer, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    ids, offsets = fast.encode_batch_flat(list(texts), split_special_tokens=True)
    # Copied, because a view of immutable bytes could not be written to (torch warns of that).
    return np.frombuffer(ids, "<u4").astype(np.uint32), np.frombuffer(offsets, "<u8").astype(np.int64)


def _flat(ids_of: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, ids_of)], dtype=np.int64)
    ids = np.fromiter((token_id for ids in ids_of for token_id in ids), np.uint32, int(offsets[-1]))
    return ids, offsets


def _with_allowed(library: tokenizers.Tokenizer, allowed: frozenset[str]) -> tokenizers.Tokenizer:
    """The same tokenizer with the allowed tokens no longer marked special, so that they are always parsed."""
    settings = json.loads(library.to_str())
    for token in settings["added_tokens"]:
        token["special"] = token["special"] and token["content"] not in allowed
    return tokenizers.Tokenizer.from_str(json.dumps(settings))


def _refusal(text: str, error: BaseException) -> BaseException:
    """The error to raise instead of the library's; its own where the text is no text at all."""
    if not isinstance(text, str):
        return error
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        return _lone_surrogate(cause)
    if not isinstance(error, Exception):  # a panic: of a regular expression that tries too many ways, for one
        return TokenizerError("tokenizer", "encode any text", f"one that fails ({error})", "Correct its file")
    return TokenizerError("tokenizer", "have a token for any character", f"without ({error})", "Correct its file")


def _lone_surrogate(error: UnicodeEncodeError) -> TokenizerError:
    return TokenizerError(
        f"character {error.start:,} of the text",
        "be one of Unicode, no lone surrogate",
        error.object[error.start],
        "Read the text with errors='replace', or remove that character",
    )
