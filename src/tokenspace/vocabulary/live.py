"""Edits of a live model: table, head, bias, ties, settings, optimisers and ledger together.

Every tensor with a row a token is replaced by a new parameter, in all places that share it. An
edit that is refused has changed nothing.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tokenspace.errors import SettingError
from tokenspace.ledger import Ledger
from tokenspace.model import LanguageModel
from tokenspace.tokenizer import Tokenizer
from tokenspace.vocabulary.accounting import Account
from tokenspace.vocabulary.carried import Carried, carry_link, carry_optimizer, carry_positions, check_carried
from tokenspace.vocabulary.changes import Add, Change, Remove, Reorder, Resize, check_change
from tokenspace.vocabulary.edit import Edit
from tokenspace.vocabulary.lengths import check_has_table, resize_positions
from tokenspace.vocabulary.parts import Parts
from tokenspace.vocabulary.receipt import Changed, Receipt
from tokenspace.vocabulary.rows import NewRows
from tokenspace.vocabulary.settings import check_fixed, check_named, named_ids, renumber_settings
from tokenspace.vocabulary.trimming import Trim


class Edited(NamedTuple):
    """What an edit of a live model gives back: the tokenizer that now belongs to it, and the receipt."""

    tokenizer: Tokenizer
    receipt: Receipt


def grow(
    model: nn.Module,
    tokenizer: Tokenizer,
    tokens: Sequence[str],
    *,
    init: str | NewRows = "subtokens",
    special: bool = False,
    pad_to_multiple_of: int | None = None,
    carry: Carried = (),
    text: str | None = None,
) -> Edited:
    """Add tokens to a model and its tokenizer; padding rows are used first.

    Args:
        model: A `LanguageModel`, one of transformers, or any module whose largest ``nn.Embedding`` is its table.
        tokenizer: Its tokenizer; stays as it is.
        tokens: Their text.
        init: How their rows begin; see `NewRows`.
        special: Whether they are special tokens.
        pad_to_multiple_of: The rows become a multiple of it.
        carry: Its optimisers and ledgers, which go along.
        text: What to measure before and after; at most the model's window of it is compared.

    Returns:
        The tokenizer with the new tokens, and the receipt.

    Raises:
        TokenspaceError: a token is empty or exists, or something cannot go along; nothing has changed then.

    Example:
        >>> from tokenspace import LanguageModel
        >>> tokenizer = Tokenizer.train(["to be or not to be"] * 9, vocab_size=270)
        >>> model = LanguageModel(vocab_size=272, d_model=8, num_layers=1, num_heads=2, context_length=8)
        >>> grown, receipt = grow(model, tokenizer, ["<user>", "<bot>", "<end>"], special=True)
        >>> grown.encode("be <end>", allowed_special="all")[-1], receipt.after.num_rows
        (268, 272)
    """
    return apply(Add(tokens, special, init, pad_to_multiple_of), model, tokenizer, carry=carry, text=text)


def remove(
    model: nn.Module,
    tokenizer: Tokenizer,
    tokens: Sequence[str | int],
    *,
    pad_to_multiple_of: int | None = None,
    carry: Carried = (),
    text: str | None = None,
) -> Edited:
    """Take tokens out of a model and its tokenizer; see `Remove`, and `grow` for the rest.

    Raises:
        TokenspaceError: a token is unknown or needed; nothing has changed then.
    """
    return apply(Remove(tokens, pad_to_multiple_of), model, tokenizer, carry=carry, text=text)


def trim(
    model: nn.Module,
    tokenizer: Tokenizer,
    texts: Iterable[str] = (),
    *,
    keep: Collection[int] = (),
    pad_to_multiple_of: int | None = None,
    carry: Carried = (),
    text: str | None = None,
) -> Edited:
    """Keep the tokens that texts use, and what those are made of; see `Trim`, and `grow` for the rest.

    Raises:
        TokenspaceError: there is nothing to keep; nothing has changed then.
    """
    return apply(Trim(texts, keep, pad_to_multiple_of), model, tokenizer, carry=carry, text=text)


def reorder(
    model: nn.Module,
    tokenizer: Tokenizer,
    order: Sequence[int],
    *,
    by_count: bool = False,
    carry: Carried = (),
    text: str | None = None,
) -> Edited:
    """Give tokens other ids; see `Reorder`, and `grow` for the rest.

    Raises:
        TokenspaceError: `order` does not hold each id once; nothing has changed then.
    """
    return apply(Reorder(order, by_count), model, tokenizer, carry=carry, text=text)


def resize(
    model: nn.Module,
    tokenizer: Tokenizer,
    num_rows: int | None = None,
    *,
    pad_to_multiple_of: int | None = None,
    num_positions: int | None = None,
    interpolate: bool = False,
    carry: Carried = (),
    text: str | None = None,
) -> Edited:
    """Change the rows of padding, or the length of the position table; see `Resize`, and `grow` for the rest.

    Raises:
        TokenspaceError: fewer rows than tokens are asked for; nothing has changed then.
    """
    change = Resize(num_rows, pad_to_multiple_of, num_positions, interpolate)
    return apply(change, model, tokenizer, carry=carry, text=text)


@torch.no_grad()
def apply(
    change: Change, model: nn.Module, tokenizer: Tokenizer, *, carry: Carried = (), text: str | None = None
) -> Edited:
    """Make a change to a live model; `grow` tells of the arguments.

    Raises:
        TokenspaceError: it cannot be made; nothing has changed then.
    """
    if not isinstance(tokenizer, Tokenizer):
        next_step = "Use Tokenizer.from_json(tokenizer.backend_tokenizer.to_str())"
        raise SettingError("tokenizer", "be a tokenspace.Tokenizer", type(tokenizer).__name__, next_step)
    check_change(change, text)
    parts = Parts.of(model)
    settings = list(_settings(model))
    named = {i: name for fields in reversed(settings) for i, name in named_ids(fields, parts.num_rows).items()}
    edit = change.plan(tokenizer, parts.num_rows, named)
    check_named(named, edit)
    check_fixed(_fixed(model, parts), edit)
    return Edited(edit.new, carry_out(edit, model, parts, carry, text))


@torch.no_grad()
def carry_out(edit: Edit, model: nn.Module, parts: Parts, carry: Carried = (), text: str | None = None) -> Receipt:
    """Make a planned edit to a live model."""
    if edit.num_positions is not None:
        check_has_table(model)
    check_carried(carry, [part.tensor for part in parts.parts], edit)
    ledgers = [one for one in carry if isinstance(one, Ledger)]
    account = Account.open(edit, parts.table.weight, text, model=model, ledger=ledgers[0] if ledgers else None)
    changed = [] if edit.keeps_rows else _replace(edit, model, parts, carry)
    if edit.num_positions is not None:
        changed.append(_resize_positions(edit, model, carry))
    recipe = "" if not edit.texts else account.told
    return account.close(parts.table.weight, parts.tied, changed, recipe)


def _replace(edit: Edit, model: nn.Module, parts: Parts, carry: Carried) -> list[Changed]:
    drawer = edit.drawer()
    made = []
    for part in parts.parts:  # all of them before the first is put in its place
        old = part.tensor.t() if part.by_columns else part.tensor
        fresh = drawer.draw(old, len(edit.fresh) - len(edit.texts), is_input=part.kind == "table")
        new = edit.rows(old, fresh)
        made.append(new.t().contiguous() if part.by_columns else new)
    replaced: dict[Tensor, nn.Parameter] = {}
    for part, new in zip(parts.parts, made, strict=True):
        put = part.put(new)
        if isinstance(put, nn.Parameter):
            replaced[part.tensor] = put
            carry_link(part.tensor, put, edit)
    _write_settings(edit, model, parts)
    for one in carry:
        one.renumber(edit.source) if isinstance(one, Ledger) else carry_optimizer(one, replaced, edit)
    return [Changed(p.name, tuple(p.tensor.shape), tuple(n.shape)) for p, n in zip(parts.parts, made, strict=True)]


def _resize_positions(edit: Edit, model: nn.Module, carry: Carried) -> Changed:
    name, old, new = resize_positions(model, edit.num_positions, edit.interpolate)
    for one in carry:
        if isinstance(one, torch.optim.Optimizer):
            carry_positions(one, old, new, edit.interpolate)
    return Changed(name, tuple(old.shape), tuple(new.shape))


def _fixed(model: nn.Module, parts: Parts) -> dict[int, str]:
    """Ids of padding from which a table of positions is counted, each with what holds it."""
    edited = {id(module) for part in parts.parts for module, _ in part.places}
    found = {}
    for path, module in model.named_modules():
        padding = vars(module).get("padding_idx")
        counts = isinstance(module, nn.Embedding) or "Position" in type(module).__name__
        if counts and isinstance(padding, int) and id(module) not in edited:
            found[padding] = f"{path}.padding_idx"
    return found


def _settings(model: nn.Module) -> Iterable[dict[str, Any]]:
    """The settings objects of a model of transformers and of its parts, each once, as dicts that can be written to."""
    found: dict[int, dict[str, Any]] = {}
    for module in model.modules():
        for name in ("config", "generation_config"):
            config = vars(module).get(name)
            if config is not None and not isinstance(module, LanguageModel) and hasattr(config, "__dict__"):
                found[id(config)] = vars(config)
    return found.values()


def _write_settings(edit: Edit, model: nn.Module, parts: Parts) -> None:
    for fields in _settings(model):
        renumber_settings(fields, edit)
    for module in model.modules():
        if isinstance(module, LanguageModel):
            module.config = replace(module.config, vocab_size=edit.new_num_rows)
        elif vars(module).get("vocab_size") == edit.num_rows:
            module.vocab_size = edit.new_num_rows
    for part in parts.parts:
        for module, _ in part.places:
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.padding_idx = edit.new_id(module.padding_idx)
