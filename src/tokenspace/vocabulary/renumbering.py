"""A `tokenizer.json` with other ids: tokens left out, or in another order.

Every place that holds an id is written anew: the model's vocabulary, the added tokens, what the
post-processor puts around a text, and padding. Which tokens may go is a matter of `changes`.
"""

import copy
from collections.abc import Sequence
from typing import Any

from tokenspace.errors import TokenizerError
from tokenspace.tokenizer.token_bytes import components
from tokenspace.vocabulary.closure import Merges


def renumbered(settings: dict[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """The same tokenizer with the tokens of `order` alone, numbered in that order.

    Args:
        settings: The content of a `tokenizer.json`; not changed.
        order: Old ids; some may have no token.

    Raises:
        TokenizerError: an added token that is none of the model's would not stand behind all that are, the only
            place where the library can put it.

    Example:
        >>> model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
        >>> settings = {"model": model, "added_tokens": [], "post_processor": None}
        >>> renumbered(settings, [1, 0])["model"]
        {'type': 'BPE', 'vocab': {'b': 0, 'a': 1}, 'merges': []}
    """
    to = {old: new for new, old in enumerate(order)}
    small = {name: copy.deepcopy(settings[name]) for name in ("post_processor", "padding") if name in settings}
    model = dict(settings["model"])
    settings = {**settings, **small, "model": model}
    if isinstance(model["vocab"], list):
        _renumber_pieces(model, to)
    else:
        kept = sorted((to[old], token) for token, old in model["vocab"].items() if old in to)
        model["vocab"] = {token: new for new, token in kept}
    if model.get("merges"):
        own = set(model["vocab"])
        as_text = isinstance(model["merges"][0], str)
        model["merges"] = [" ".join(pair) if as_text else list(pair) for pair in Merges(model).among(own)]
    added = [{**token, "id": to[token["id"]]} for token in settings["added_tokens"] if token["id"] in to]
    settings["added_tokens"] = sorted(added, key=lambda token: token["id"])
    _check_added(settings)
    for processor in components(settings, "post_processor"):
        _renumber_processor(processor, to)
    padding = settings.get("padding")
    if padding:
        padding["pad_id"] = to.get(padding["pad_id"], padding["pad_id"])
    return settings


def named_tokens(settings: dict[str, Any]) -> set[str]:
    """Tokens that the post-processor or padding names; without them the file could not be opened."""
    found: set[str] = set()
    for processor in components(settings, "post_processor"):
        for special in (processor.get("special_tokens") or {}).values():
            found |= set(special["tokens"])
        found |= {processor[place][0] for place in ("sep", "cls") if isinstance(processor.get(place), list)}
    padding = settings.get("padding")
    return found | ({padding["pad_token"]} if padding else set())


def _renumber_pieces(model: dict[str, Any], to: dict[int, int]) -> None:
    """A Unigram vocabulary is a list: its place is its id."""
    kept = sorted((to[old], piece) for old, piece in enumerate(model["vocab"]) if old in to)
    model["vocab"] = [piece for _, piece in kept]
    if [new for new, _ in kept] != list(range(len(kept))):
        rule = "keep its own pieces before all added tokens"
        raise TokenizerError("a Unigram vocabulary", rule, "in another order", "Leave added tokens at the end")
    if model.get("unk_id") is not None:
        model["unk_id"] = to[model["unk_id"]]


def _check_added(settings: dict[str, Any]) -> None:
    """The library numbers added tokens itself, onwards from the number of the model's own."""
    vocabulary = settings["model"]["vocab"]
    own = {piece for piece, _ in vocabulary} if isinstance(vocabulary, list) else vocabulary.keys()
    outside = [token for token in settings["added_tokens"] if token["content"] not in own]
    for place, token in enumerate(outside, start=len(vocabulary)):
        if token["id"] != place:
            name, rule = f"id of added token {token['content']!r}", f"be {place}, behind the model's own tokens"
            raise TokenizerError(name, rule, token["id"], "Leave added tokens at the end, in their order")


def _renumber_processor(processor: dict[str, Any], to: dict[int, int]) -> None:
    for special in (processor.get("special_tokens") or {}).values():
        special["ids"] = [to[token_id] for token_id in special["ids"]]
    for place in ("sep", "cls"):
        if isinstance(processor.get(place), list):
            token, token_id = processor[place]
            processor[place] = [token, to[token_id]]


def ids_with_tokens(settings: dict[str, Any]) -> list[int]:
    """All ids that have a token, in order.

    Example:
        >>> ids_with_tokens({"model": {"vocab": {"a": 0, "b": 5}}, "added_tokens": [{"id": 7}]})
        [0, 5, 7]
    """
    vocabulary = settings["model"]["vocab"]
    own = range(len(vocabulary)) if isinstance(vocabulary, list) else vocabulary.values()
    return sorted({*own, *(token["id"] for token in settings["added_tokens"])})


def spellings(settings: dict[str, Any]) -> dict[str, int]:
    """Every token as the file writes it, and its id."""
    vocabulary = settings["model"]["vocab"]
    own = {piece: n for n, (piece, _) in enumerate(vocabulary)} if isinstance(vocabulary, list) else dict(vocabulary)
    return own | {token["content"]: token["id"] for token in settings["added_tokens"]}
