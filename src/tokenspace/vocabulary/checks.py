"""What the changes of a vocabulary refuse: tokens that are none, exist, are needed, or that others are made of."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokenspace.errors import SettingError, ShapeError, TokenizerError, check_at_least
from tokenspace.tokenizer import Tokenizer
from tokenspace.tokenizer.token_bytes import byte_alphabet, is_byte_level
from tokenspace.vocabulary.closure import Merges, alphabet
from tokenspace.vocabulary.renumbering import ids_with_tokens, named_tokens, spellings

_MOST_ROWS = 2**31 - 1


def check_rows(tokenizer: Tokenizer, num_rows: int) -> None:
    """Refuse a table that lacks rows for tokens."""
    if num_rows < tokenizer.vocab_size:
        rule = f"have a row for each of the tokenizer's {tokenizer.vocab_size:,} tokens"
        next_step = "Give the tokenizer that belongs to this model"
        raise ShapeError("token table", rule, f"of {num_rows:,} rows", next_step)


def check_list(name: str, value: Any, of: str) -> None:
    """Refuse what is no list, nor anything else that gives one thing after another."""
    try:
        if not isinstance(value, str | bytes | Mapping):
            iter(value)
            return
    except TypeError:  # of a tensor without axes too
        pass
    raise SettingError(name, f"be a list of {of}", value, "Put it into a list")


def check_number(name: str, value: int) -> None:
    """Refuse what is no number of rows."""
    check_at_least(1, **{name: value})
    if value > _MOST_ROWS:
        raise SettingError(name, f"be at most {_MOST_ROWS:,}", value, "Give fewer")


def whole_numbers(order: Sequence[int]) -> list[int]:
    """Ids, or counts."""
    check_list("order", order, "ids, or counts")
    numbers = []
    for number in order:
        try:
            numbers.append(operator.index(number))
        except (TypeError, ValueError, RuntimeError) as error:  # torch's words for a float, and for several numbers
            advice = "Give ids, or counts for by_count"
            raise SettingError("order", "hold whole numbers", number, advice) from error
    return numbers


def checked_tokens(tokens: Sequence[str]) -> tuple[str, ...]:
    """The tokens, refused where one is empty, stands twice or is no Unicode."""
    check_list("tokens", tokens, "texts")
    tokens = tuple(tokens)
    if not all(isinstance(token, str) for token in tokens):
        raise SettingError("tokens", "be a list of texts", tokens, 'Give ["<new>"]')
    seen: set[str] = set()
    for token in tokens:
        if not token:
            raise SettingError("token", "have at least one character", "", "Leave it out")
        check_unicode(token)
        if token in seen:
            raise SettingError("tokens", "name each token once", token, "Remove the second one")
        seen.add(token)
    return tokens


def check_unicode(token: str) -> None:
    """Refuse a token that has no bytes."""
    try:
        token.encode()
    except UnicodeEncodeError as error:
        rule = "be Unicode, without lone surrogates"
        raise SettingError("token", rule, token, "Correct or remove it") from error


def check_new(tokens: Sequence[str], settings: dict[str, Any]) -> None:
    """Refuse tokens that exist, in whatever spelling."""
    known, by_bytes, letters = spellings(settings), is_byte_level(settings), byte_alphabet()
    for token in tokens:
        as_bytes = "".join(letters[byte] for byte in token.encode()) if by_bytes else token
        for spelling in (token, as_bytes, token.replace(" ", "▁")):
            if spelling in known:
                raise TokenizerError(f"token {token!r}", "be new", f"token {known[spelling]} already", "Leave it out")


def find_tokens(tokens: Sequence[str | int], settings: dict[str, Any]) -> dict[int, str | int]:
    """Tokens that are named by their text, their spelling or their id, by id."""
    known, with_tokens, letters = spellings(settings), set(ids_with_tokens(settings)), byte_alphabet()
    added, by_bytes = {token["content"] for token in settings["added_tokens"]}, is_byte_level(settings)
    found: dict[int, str | int] = {}
    check_list("tokens", tokens, "texts or ids")
    for token in tokens:
        if not isinstance(token, str):
            if not isinstance(token, int | np.integer) or int(token) not in with_tokens:
                raise TokenizerError("token id", "be one of the vocabulary", token, "Use an id that has a token")
            found[int(token)] = token
            continue
        check_unicode(token)
        in_letters = by_bytes and token not in added
        as_bytes = "".join(letters[byte] for byte in token.encode()) if in_letters else token
        spelling = next((way for way in (as_bytes, token.replace(" ", "▁"), token) if way in known), None)
        if spelling is None:
            next_step = "Check its spelling and its space"
            raise TokenizerError(f"token {token!r}", "be one of the vocabulary", "unknown", next_step)
        found[known[spelling]] = token
    return found


def check_removable(
    gone: Mapping[int, str | int], settings: dict[str, Any], tokenizer: Tokenizer, named: Mapping[int, str]
) -> None:
    """Refuse to remove what is needed, or what other tokens are made of."""
    token_of = {token_id: token for token, token_id in spellings(settings).items()}
    letters, by_file = alphabet(settings), named_tokens(settings)
    for token_id in gone:
        name, token = f"token {tokenizer.label(token_id)!r}", token_of[token_id]
        if token_id in named:
            raise SettingError(named[token_id], "name a token that stays", tokenizer.label(token_id), "Change it first")
        if token in letters:
            raise TokenizerError(name, "stay", "needed for texts of any bytes or letters", "Leave it in")
        if token in by_file:
            raise TokenizerError(name, "stay", "named by the tokenizer's post-processor or padding", "Leave it in")
    if settings["model"]["type"] == "BPE":
        orphans = Merges(settings["model"]).orphans({token_of[token_id] for token_id in gone})
        if orphans:
            orphan, part = next(iter(orphans.items()))
            known = spellings(settings)
            name = f"token {tokenizer.label(known[part])!r}"
            found = f"a part of {tokenizer.label(known[orphan])!r}" + (
                f" and {len(orphans) - 1:,} others in all" if len(orphans) > 1 else ""
            )
            raise TokenizerError(name, "be no part of tokens that stay", found, "Remove these too, or trim")
