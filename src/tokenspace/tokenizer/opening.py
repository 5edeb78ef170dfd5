"""From the text of a `tokenizer.json` to a tokenizer of the library, refusing what would end the process.

The library raises nothing narrower than `Exception`, panics outside of it, and on some files recurses or cuts
until the whole process is gone. Those are looked for before it reads them.
"""

import json
import re

import tokenizers

from tokenspace.errors import TokenizerError

_LONGEST_PIECE = 256  # of Unigram; encoding takes time by it, and real ones have some 16 characters
# A prefix, or Unigram's list; or letters spelt as escapes, which may be either.
_MAY_BE_BEYOND = re.compile(r'continuing_subword_prefix"\s*:\s*"[^"]|vocab"\s*:\s*\[|\\u00[4-7]')


def open_library(text: str, name: str) -> tokenizers.Tokenizer:
    """What the text of a `tokenizer.json` is to the library.

    Raises:
        TokenizerError: the text is no such thing.
    """
    next_step = "Make the file again with the tool that wrote it"
    wrong = _beyond_the_library(text) if _MAY_BE_BEYOND.search(text) else None
    if wrong is not None:
        raise TokenizerError(name, *wrong, next_step)
    try:
        return tokenizers.Tokenizer.from_str(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises nothing narrower, and panics outside of Exception
        raise TokenizerError(name, "be a tokenizer.json", f"damaged ({error})", next_step) from error


def _beyond_the_library(text: str) -> tuple[str, str] | None:
    """What a file's model must be lest the library end the process, and what it is; None where nothing is wrong."""
    try:
        model = json.loads(text)["model"]
        if isinstance(model["vocab"], list):  # Unigram's tree is as deep as its longest piece, and so is its recursion
            longest = max((len(piece) for piece, _ in model["vocab"]), default=0)
            rule = f"have pieces of at most {_LONGEST_PIECE} characters"
            return (rule, f"one with {longest:,}") if longest > _LONGEST_PIECE else None
        prefix = model.get("continuing_subword_prefix") or ""  # cut off without a look, within a letter too
        parts = (merge.partition(" ")[2] if isinstance(merge, str) else merge[1] for merge in model["merges"])
        bare = next((part for part in parts if not part.startswith(prefix)), None)
        rule = "have merges whose second part begins with the continuing_subword_prefix"
        return None if bare is None else (rule, bare)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None  # the library says what is wrong
