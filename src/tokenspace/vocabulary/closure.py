"""Which tokens others are made of: what has to stay so that every text still encodes.

A byte-pair vocabulary reaches a token by merging two smaller ones. A text is encoded as before
exactly if every merge on the way to its tokens stays; and as the way within a token does not
depend on what stands around it, it is that of the token's own spelling. Vocabularies without
merges need their alphabet alone. Nothing here knows ids of a table or writes a file.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from typing import Any

from tokenspace.tokenizer.token_bytes import BYTE_TOKEN, byte_alphabet, is_byte_level

Merge = tuple[str, str]


class Merges:
    """The merges of a BPE vocabulary.

    Args:
        model: The part "model" of a `tokenizer.json`.
    """

    def __init__(self, model: dict[str, Any]) -> None:
        self._prefix = model.get("continuing_subword_prefix") or ""
        self._suffix = model.get("end_of_word_suffix") or ""
        merges = model.get("merges") or ()
        as_text = bool(merges) and isinstance(merges[0], str)  # a file has one form for all
        self.pairs: list[Merge] = list(map(as_pair if as_text else tuple, merges))

    @cached_property
    def results(self) -> list[str]:
        """What each pair becomes."""
        if not self._prefix:
            return [first + second for first, second in self.pairs]
        return [self.result(pair) for pair in self.pairs]

    @cached_property
    def _rank(self) -> dict[Merge, int]:
        return {pair: rank for rank, pair in enumerate(self.pairs)}  # of a pair that stands twice the last counts

    def result(self, pair: Merge) -> str:
        """What two tokens become."""
        return pair[0] + pair[1].removeprefix(self._prefix)

    def ancestors(self, token: str) -> set[str]:
        """Every token on the way to this one, itself and its letters among them."""
        symbols, none = self._letters(token), len(self.pairs)
        found = {token, *symbols}
        while len(symbols) > 1:
            ranks = [self._rank.get(pair, none) for pair in itertools.pairwise(symbols)]
            least = min(ranks)
            if least == none:
                break  # no merge leads there: it is found whole, or never
            place = ranks.index(least)
            symbols[place : place + 2] = [self.result((symbols[place], symbols[place + 1]))]
            found.add(symbols[place])
        return found

    def among(self, tokens: Collection[str]) -> Iterator[Merge]:
        """The merges whose two parts and whose result are among these tokens, in order."""
        for pair, result in zip(self.pairs, self.results, strict=True):
            if result in tokens and pair[0] in tokens and pair[1] in tokens:
                yield pair

    def orphans(self, removed: Collection[str]) -> dict[str, str]:
        """Tokens that stay but that no merge leads to once some are removed, each with a part it lacks."""
        still, lost = set(), {}
        for pair, result in zip(self.pairs, self.results, strict=True):
            lacking = next((part for part in pair if part in removed), None)
            if lacking is None:
                still.add(result)
            elif result not in removed:
                lost.setdefault(result, lacking)
        return {token: part for token, part in lost.items() if token not in still}

    def _letters(self, token: str) -> list[str]:
        """The symbols that encoding begins with."""
        if not (self._prefix or self._suffix):
            return list(token)
        starts = token.removeprefix(self._prefix) if self._prefix else token
        ends = bool(self._suffix) and starts.endswith(self._suffix)
        letters = list(starts.removesuffix(self._suffix) if ends else starts)
        if ends and letters:
            letters[-1] += self._suffix
        first_is_bare = not (self._prefix and token.startswith(self._prefix))
        return [letter if not n and first_is_bare else self._prefix + letter for n, letter in enumerate(letters)]


def as_pair(merge: str | list[str]) -> Merge:
    """A merge as a file holds it, "a b" or ["a", "b"]."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def closed(settings: dict[str, Any], tokens: Iterable[str]) -> set[str]:
    """These tokens and all that they are made of.

    Args:
        settings: The content of a `tokenizer.json`.
        tokens: As the vocabulary writes them.

    Example:
        >>> model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "abb": 3}, "merges": ["a b", "ab b"]}
        >>> sorted(closed({"model": model}, ["abb"]))
        ['a', 'ab', 'abb', 'b']
    """
    tokens = set(tokens)
    if settings["model"]["type"] != "BPE":
        return tokens
    merges = Merges(settings["model"])
    vocabulary = settings["model"]["vocab"]
    merged = tokens - {added["content"] for added in settings.get("added_tokens", ())}  # those are found whole
    return {part for token in merged for part in merges.ancestors(token) if part in vocabulary} | tokens


def alphabet(settings: dict[str, Any]) -> set[str]:
    """The tokens without which some text could no longer be encoded.

    Those of the 256 bytes where the vocabulary falls back on them; single characters where it does not;
    the piece of least score of a Unigram vocabulary, as what is unknown is scored by it.
    """
    model = settings["model"]
    spellings = [piece for piece, _ in model["vocab"]] if isinstance(model["vocab"], list) else list(model["vocab"])
    found = set(_unknown(model))
    if is_byte_level(settings):
        found |= set(byte_alphabet()) & set(spellings)
    elif model.get("byte_fallback"):
        found |= {token for token in spellings if BYTE_TOKEN.fullmatch(token)}
    elif model["type"] != "WordLevel":
        prefix, suffix = (model.get(name) or "" for name in ("continuing_subword_prefix", "end_of_word_suffix"))
        found |= {t for t in spellings if len(t) == 1 or len(t.removeprefix(prefix).removesuffix(suffix)) == 1}
    if isinstance(model["vocab"], list) and model["vocab"]:
        found.add(min(model["vocab"], key=lambda piece: piece[1])[0])
    return found


def _unknown(model: dict[str, Any]) -> Iterator[str]:
    if model.get("unk_id") is not None:
        yield model["vocab"][model["unk_id"]][0]
    if model.get("unk_token") in model["vocab"]:
        yield model["unk_token"]
