"""How new tokens stand in a tokenizer.json, so that they are found wherever they stand in a text."""

from collections.abc import Collection, Sequence
from typing import Any

from tokenspace.tokenizer import Tokenizer
from tokenspace.tokenizer.opening import open_library
from tokenspace.vocabulary.renumbering import ids_with_tokens


def with_tokens(
    settings: dict[str, Any], *, tokens: Sequence[str], special: bool, normalized: Collection[str]
) -> dict[str, Any]:
    """The settings with more added tokens, as the library adds them."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "special": special}
    first = ids_with_tokens(settings)[-1] + 1
    added = [
        {"id": first + n, "content": token, "normalized": token in normalized, **flags}
        for n, token in enumerate(tokens)
    ]
    return {**settings, "added_tokens": [*settings["added_tokens"], *added]}


def stay_whole(tokens: Sequence[str], tokenizer: Tokenizer) -> frozenset[str]:
    """The tokens that may be sought in the normalised text, in which case and accents may be gone: the library's way.

    Normalisers like Llama 2's put a mark before each text, a token's too, which would be found at the beginning of
    texts alone. Such tokens are sought in the text as it is.
    """
    normalizer = open_library(tokenizer.to_json(), tokenizer.name).normalizer
    if normalizer is None:
        return frozenset(tokens)
    written = {token: normalizer.normalize_str(token) for token in tokens}
    return frozenset(
        token for token, text in written.items() if text and text in normalizer.normalize_str(f"a{token}b")
    )
