"""The changes that can be made to a vocabulary; each plans an `Edit` and changes nothing itself.

Which tokens may go, how rows are numbered, and when padding is used is decided here.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import orjson
import torch
from torch import Tensor

from tokenspace.errors import SettingError, TokenizerError, check_type
from tokenspace.tokenizer import Tokenizer
from tokenspace.vocabulary.adding import stay_whole, with_tokens
from tokenspace.vocabulary.checks import (
    check_new,
    check_number,
    check_removable,
    check_rows,
    checked_tokens,
    find_tokens,
    whole_numbers,
)
from tokenspace.vocabulary.edit import Edit, Respell
from tokenspace.vocabulary.renumbering import renumbered, spellings
from tokenspace.vocabulary.rows import NewRows


class Change:
    """Something to be done to a vocabulary."""

    verb: ClassVar[str]

    def plan(self, tokenizer: Tokenizer, num_rows: int, named: Mapping[int, str] | None = None) -> Edit:
        """What it comes to.

        Args:
            tokenizer: Of the model.
            num_rows: Rows of its table.
            named: Ids that the model's settings name, and the name of each; they must stay.

        Raises:
            SettingError, TokenizerError: it cannot be done.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Add(Change):
    """New tokens; they take padding rows first, and the table grows only for what is beyond.

    Attributes:
        tokens: Their text.
        special: Whether they are special: text is never parsed as one unless asked for. Else they are found
            wherever they stand in a text, before the vocabulary's own tokens.
        init: A recipe's name, or a `NewRows`.
        pad_to_multiple_of: The number of rows becomes a multiple of it.
    """

    tokens: Sequence[str]
    special: bool = False
    init: str | NewRows = "subtokens"
    pad_to_multiple_of: int | None = None

    verb: ClassVar[str] = "add"

    def plan(self, tokenizer: Tokenizer, num_rows: int, named: Mapping[int, str] | None = None) -> Edit:
        """See `Change.plan`.

        Raises:
            SettingError: a token is empty or stands twice, or a setting is out of range.
            TokenizerError: a token exists already, or has no pieces to begin with.
        """
        check_type("special", self.special, bool, "Use False")
        recipe = self.init if isinstance(self.init, NewRows) else NewRows(recipe=self.init)
        check_rows(tokenizer, num_rows)
        settings = tokenizer.settings
        tokens = checked_tokens(self.tokens)
        check_new(tokens, settings)
        for token in tokens:
            if recipe.recipe == "subtokens" and not tokenizer.encode(token):
                step = "Use init 'mean', or other text"
                raise TokenizerError(f"token {token!r}", "have pieces in the tokenizer before", "without any", step)
        source = torch.arange(num_rows)
        least = tokenizer.vocab_size + len(tokens)
        source = _padded(source, _multiple(max(least, num_rows), self.pad_to_multiple_of))
        source[tokenizer.vocab_size : least] = -1  # padding that becomes a token
        normalized = () if self.special else stay_whole(tokens, tokenizer)
        respell = partial(with_tokens, tokens=tokens, special=self.special, normalized=normalized)
        new = _respelt(tokenizer, respell) if tokens else tokenizer
        _check_ids(new, dict(zip(range(tokenizer.vocab_size, least), tokens, strict=True)))
        return Edit(
            verb=self.verb,
            old=tokenizer,
            new=new,
            num_rows=num_rows,
            source=source,
            texts=tokens,
            recipe=recipe,
            respell=respell,
        )


@dataclass(frozen=True, eq=False)
class Remove(Change):
    """Tokens taken out; those behind them move up. Padding stays, unless a multiple is given.

    Attributes:
        tokens: Their text, or their ids.
        pad_to_multiple_of: The rows become the least multiple of it that holds all tokens.
    """

    tokens: Sequence[str | int]
    pad_to_multiple_of: int | None = None

    verb: ClassVar[str] = "remove"

    def plan(self, tokenizer: Tokenizer, num_rows: int, named: Mapping[int, str] | None = None) -> Edit:
        """See `Change.plan`.

        Raises:
            TokenizerError: there is no such token, or others are made of it, or it is needed.
            SettingError: a setting names it.
        """
        check_rows(tokenizer, num_rows)
        settings = tokenizer.settings
        gone = find_tokens(self.tokens, settings)
        check_removable(gone, settings, tokenizer, named or {})
        order = [token_id for token_id in range(tokenizer.vocab_size) if token_id not in gone]
        return reordered(self.verb, tokenizer, num_rows, order, self.pad_to_multiple_of)


@dataclass(frozen=True, eq=False)
class Reorder(Change):
    """Tokens in another order; padding stays behind.

    Attributes:
        order: All old ids, in the new order; or, for `by_count`, how often each occurs.
        by_count: Whether the most frequent come first. Added tokens that are none of the model's own stay last, and
            padding where it is: some models count positions from its id.
    """

    order: Sequence[int]
    by_count: bool = False

    verb: ClassVar[str] = "reorder"

    def plan(self, tokenizer: Tokenizer, num_rows: int, named: Mapping[int, str] | None = None) -> Edit:
        """See `Change.plan`.

        Raises:
            SettingError: not every id stands there once.
            TokenizerError: this kind of tokenizer cannot have that order.
        """
        check_rows(tokenizer, num_rows)
        check_type("by_count", self.by_count, bool, "Use False")
        order = whole_numbers(self.order)
        if self.by_count:
            padding = {token_id for token_id, name in (named or {}).items() if "pad_token" in name}
            order = _most_frequent_first(order, tokenizer, padding)
        elif sorted(order) != list(range(tokenizer.vocab_size)):
            found = f"{len(order):,} ids, {len(set(order)):,} different"
            rule = f"hold each id below {tokenizer.vocab_size:,} once"
            raise SettingError("order", rule, found, "Give all old ids in their new order")
        return reordered(self.verb, tokenizer, num_rows, order, None)


@dataclass(frozen=True, eq=False)
class Resize(Change):
    """Another number of rows for the same tokens, padding added or taken away; or another number of positions.

    Attributes:
        num_rows: How many; None for as many as there are.
        pad_to_multiple_of: The rows become a multiple of it, and no fewer.
        num_positions: Length of the position table; None for what it is.
        interpolate: Whether that table is stretched; else it is cut, or extended by new rows.
    """

    num_rows: int | None = None
    pad_to_multiple_of: int | None = None
    num_positions: int | None = None
    interpolate: bool = False

    verb: ClassVar[str] = "resize"

    def plan(self, tokenizer: Tokenizer, num_rows: int, named: Mapping[int, str] | None = None) -> Edit:
        """See `Change.plan`.

        Raises:
            SettingError: fewer rows than tokens are asked for.
        """
        check_rows(tokenizer, num_rows)
        check_type("interpolate", self.interpolate, bool, "Use False")
        wanted = num_rows if self.num_rows is None else self.num_rows
        check_number("num_rows", wanted)
        if self.num_positions is not None:
            check_number("num_positions", self.num_positions)
        if wanted < tokenizer.vocab_size:
            rule = f"be at least the tokenizer's {tokenizer.vocab_size:,} tokens"
            raise SettingError("num_rows", rule, wanted, "Remove or trim tokens to have fewer")
        source = _padded(torch.arange(min(wanted, num_rows)), _multiple(wanted, self.pad_to_multiple_of))
        return Edit(
            verb=self.verb,
            old=tokenizer,
            new=tokenizer,
            num_rows=num_rows,
            source=source,
            num_positions=self.num_positions,
            interpolate=self.interpolate,
        )


def _multiple(num_rows: int, multiple: int | None) -> int:
    if multiple is None:
        return num_rows
    check_number("pad_to_multiple_of", multiple)
    return -(-num_rows // multiple) * multiple


def _most_frequent_first(order: Sequence[int], tokenizer: Tokenizer, padding: Collection[int]) -> list[int]:
    counts = np.asarray(order)
    if len(counts) != tokenizer.vocab_size:
        rule = f"have a number for each of {tokenizer.vocab_size:,} ids"
        raise SettingError("order", rule, len(counts), "Give the counts of a corpus of this tokenizer")
    vocabulary = tokenizer.settings["model"]["vocab"]
    own = np.zeros(len(counts), dtype=bool)
    own[list(range(len(vocabulary)) if isinstance(vocabulary, list) else vocabulary.values())] = True
    stays = sorted(token_id for token_id in padding if own[token_id])
    own[stays] = False
    first, last = np.flatnonzero(own), [i for i in np.flatnonzero(~own).tolist() if i not in stays]
    order = [*first[np.argsort(-counts[first], kind="stable")].tolist(), *last]
    for token_id in stays:
        order.insert(token_id, token_id)
    return order


def check_change(change: Change, text: str | None) -> None:
    """Refuse an argument `change` or `text` of another type."""
    if not isinstance(change, Change):
        kinds = "an Add, Remove, Trim, Reorder or Resize"
        raise SettingError("change", f"be {kinds}", f"of type {type(change).__name__}", "Use vocabulary.Add([…])")
    check_type("text", text, str | None, "Give the text itself")


def _padded(source: Tensor, num_rows: int) -> Tensor:
    return torch.cat([source[:num_rows], torch.full((max(0, num_rows - len(source)),), -1)])


def reordered(verb: str, tokenizer: Tokenizer, num_rows: int, order: Sequence[int], multiple: int | None) -> Edit:
    """The tokens of `order`, then the padding there was, as far as the multiple leaves it."""
    source = torch.cat([torch.tensor(order, dtype=torch.int64), torch.arange(tokenizer.vocab_size, num_rows)])
    if multiple is not None:
        source = _padded(source, _multiple(len(order), multiple))
    unchanged = list(order) == list(range(tokenizer.vocab_size))
    respell = dict if unchanged else partial(renumbered, order=tuple(order))
    new = tokenizer if unchanged else _respelt(tokenizer, respell)
    edit = Edit(verb=verb, old=tokenizer, new=new, num_rows=num_rows, source=source, respell=respell)
    old = {token_id: token for token, token_id in spellings(tokenizer.settings).items()}
    _check_ids(new, {place: old[token_id] for place, token_id in enumerate(order) if token_id in old})
    return edit


def _respelt(tokenizer: Tokenizer, respell: Respell) -> Tokenizer:
    settings = respell(tokenizer.settings)
    return Tokenizer.from_json(orjson.dumps(settings).decode(), f"{tokenizer.name.removesuffix(' (edited)')} (edited)")


def _check_ids(new: Tokenizer, expected: Mapping[int, str]) -> None:
    """Refuse what the library, which numbers added tokens itself, would number otherwise."""
    found = spellings(new.settings)
    for token_id, token in expected.items():
        if found.get(token) != token_id:
            next_step = "Trim first: its ids have gaps, and the library fills them"
            raise TokenizerError(f"id of token {token!r}", f"be {token_id}", found.get(token), next_step)
