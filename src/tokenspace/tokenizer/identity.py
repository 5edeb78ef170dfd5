"""One number for what a tokenizer does: SHA-256 over all that decides the ids, and nothing else.

The text of a file is not what is hashed: the library that writes `tokenizer.json` may order or
indent it anew, and adds fields over time. Left out are the decoder, the post-processor,
padding and truncation, which ids of plain text do not depend on.
"""

import hashlib
import json
from typing import Any

# Fields that change offsets or speed, but never an id.
_WITHOUT_EFFECT = {"trim_offsets", "cache_capacity"}


def identity_of(settings: dict[str, Any]) -> str:
    """SHA-256, in hexadecimal, of what decides the ids.

    Args:
        settings: The content of a `tokenizer.json`.
    """
    model = settings["model"]
    vocabulary = model["vocab"]
    decides = {
        "tokens": vocabulary
        if isinstance(vocabulary, list)
        else sorted((id_, text) for text, id_ in vocabulary.items()),
        "merges": model.get("merges"),
        "model": _set_fields({name: value for name, value in model.items() if name not in ("vocab", "merges")}),
        "normalizer": _set_fields(settings["normalizer"]),
        "pre_tokenizer": _set_fields(settings["pre_tokenizer"]),
        "added": [_added(token, settings["normalizer"]) for token in settings["added_tokens"]],
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _added(token: dict[str, Any], normalizer: dict[str, Any] | None) -> dict[str, Any]:
    """An added token's fields; where nothing is normalised, whether to normalise it first decides nothing."""
    return _set_fields({name: value for name, value in token.items() if name != "normalized" or normalizer})


def _set_fields(value: Any) -> Any:
    """`value` without the fields that are unset, so that a newer library's empty ones change nothing."""
    if isinstance(value, dict):
        fields = {name: _set_fields(field) for name, field in value.items() if name not in _WITHOUT_EFFECT}
        return {name: field for name, field in fields.items() if not (field is None or field is False or field == "")}
    if isinstance(value, list):
        return [_set_fields(member) for member in value]
    return value
