"""Token ids in a model's settings: `eos_token_id` and its kin, in config.json and generation_config.json.

Works on plain dicts: the content of such a file, or the attributes of a config object.
"""

import re
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from tokenspace.errors import SettingError
from tokenspace.vocabulary.edit import Edit

_NAMES = re.compile(r"(?:.*_)?(?:token_ids?|token_index)|(?:begin_)?suppress_tokens|bad_words_ids|force_words_ids")


def named_ids(fields: MutableMapping[str, Any], num_rows: int) -> dict[int, str]:
    """The ids that settings name and that have a row, each with the first name for it.

    Example:
        >>> named_ids({"eos_token_id": [2, 7], "pad_token_id": None, "vocab_size": 5}, num_rows=5)
        {2: 'eos_token_id'}
    """
    found: dict[int, str] = {}
    for name, value in _entries(fields):
        for token_id in _flat(value):
            if 0 <= token_id < num_rows:
                found.setdefault(token_id, name)
    return found


def renumber_settings(fields: MutableMapping[str, Any], edit: Edit) -> None:
    """Write the new ids in place, and the new number of rows where the old one stood.

    Raises:
        SettingError: a setting names a row that goes, or that becomes another token's.
    """
    for owner in _owners(fields):
        for name in [name for name in owner if _NAMES.fullmatch(name)]:
            owner[name] = _mapped(name, owner[name], edit)
        if "vocab_size" in owner:
            owner["vocab_size"] = edit.new_num_rows


def _mapped(name: str, value: Any, edit: Edit) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_mapped(name, member, edit) for member in value)
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    new = edit.new_id(value)
    if new is None:
        next_step = "Give that setting another id first"
        raise SettingError(name, "name a row that stays what it is", value, next_step)
    return new


def _entries(fields: MutableMapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for owner in _owners(fields):
        yield from ((name, value) for name, value in owner.items() if _NAMES.fullmatch(name))


def _owners(fields: MutableMapping[str, Any]) -> Iterator[MutableMapping[str, Any]]:
    """These fields and those of the text part of a model for more than text."""
    yield fields
    text = fields.get("text_config")
    text = text if isinstance(text, dict) else getattr(text, "__dict__", None)
    if text is not None:
        yield text


def _flat(value: Any) -> Iterator[int]:
    if isinstance(value, list | tuple):
        for member in value:
            yield from _flat(member)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value


def check_fixed(fixed: Mapping[int, str], edit: Edit) -> None:
    """Refuse an edit that moves an id from which the model counts its positions, as RoBERTa's does.

    Raises:
        SettingError: names what holds it.
    """
    for token_id, name in fixed.items():
        new = edit.new_id(token_id)
        if new != token_id:
            rule = f"stay {token_id}, from which positions are counted"
            raise SettingError(name, rule, "none" if new is None else new, "Keep the tokens before it, in their order")


def check_named(named: Mapping[int, str], edit: Edit) -> None:
    """Refuse an edit after which a setting would name no token, or another one.

    Raises:
        SettingError: names the setting.
    """
    for token_id, name in named.items():
        _mapped(name, token_id, edit)
