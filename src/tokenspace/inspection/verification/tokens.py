"""The tokenizer against the table: rows, padding, special tokens, tokens that no text gives."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import torch

from tokenspace.checkpoint import Run
from tokenspace.checkpoint.models import Tables
from tokenspace.errors import TokenspaceError
from tokenspace.inspection.indicators import unused_tokens
from tokenspace.inspection.results import token_label
from tokenspace.inspection.verification.files import tokenizer_settings
from tokenspace.inspection.verification.finding import Finding, listed
from tokenspace.inspection.verification.rows import RowStatistics
from tokenspace.ledger import STATES
from tokenspace.tokenizer import Tokenizer
from tokenspace.tokenizer.reachable import missing_bytes, unreachable_tokens

_NAMES = ("bos", "eos", "pad", "unk", "cls", "sep", "mask")
_FILE = "tokenizer.json"


def tokenizer_findings(tables: Tables, tokenizer: Tokenizer | None) -> Iterator[Finding]:
    """Rows, padding, ids without a token, missing bytes, tokens that no text gives."""
    if tables.words is not None:
        twice = len(tables.words) - len(set(tables.words))
        if twice:
            found = f"{twice:,} words stand more than once; the first row of each is found by its text"
            yield Finding("warning", "repeated-words", str(tables.path), found, "Remove the repeated lines")
        return
    if tokenizer is None:
        if tables.path.is_dir():
            next_step = "Save it there: AutoTokenizer.from_pretrained(…).save_pretrained(…)"
            found = "there is none, so tokens were not checked"
            yield Finding("warning", "no-tokenizer", _FILE, found, next_step)
        return
    rows, size = tables.num_rows, tokenizer.vocab_size
    if size > rows:
        found = f"{size:,} ids, but the table has {rows:,} rows: {_ids(tokenizer, range(rows, size))}"
        next_step = "Grow the table (`tokenspace vocab resize`), or take the tokenizer that the model was trained with"
        yield Finding("error", "rows-missing", _FILE, found, next_step, list(range(rows, size)))
    if size < rows:
        multiple = next((f", a multiple of {m}" for m in (512, 256, 128, 64, 32, 16, 8) if rows % m == 0), "")
        found = f"{rows:,} rows for {size:,} tokens: {rows - size:,} of padding{multiple}"
        yield Finding("note", "padding", tables.token.key, found, "Nothing: new tokens may use these rows")
    gaps = [i for i in range(size) if tokenizer.label(i) == f"\\id{{{i}}}"]
    if gaps:
        yield Finding("note", "ids-without-token", _FILE, f"{len(gaps):,} ids: {listed(gaps)}", "Nothing", gaps)
    bytes_ = missing_bytes(tokenizer)
    if bytes_:
        found = f"no token for {len(bytes_)} bytes: {listed(bytes_, lambda byte: f'{byte:02x}')}"
        yield Finding("error", "bytes-missing", _FILE, found, "Add them: texts with these bytes lose them", bytes_)
    unreachable = unreachable_tokens(tokenizer)
    if unreachable is None:
        found = "this kind of tokenizer is not judged for tokens that no text gives"
        yield Finding("note", "reach-not-judged", _FILE, found, "Nothing")
    elif unreachable:
        why = "; ".join(f"{tokenizer.label(i)}: {reason}" for i, reason in list(unreachable.items())[:4])
        found = f"{len(unreachable):,} tokens that no text gives: {why}"
        next_step = "Nothing: a byte-level vocabulary has all bytes"
        if not all(reason.startswith("no UTF-8 text has the byte ") for reason in unreachable.values()):
            next_step = "Nothing, or free their rows with `tokenspace vocab remove`: they cannot be trained as inputs"
        yield Finding("note", "unreachable-tokens", _FILE, found, next_step, list(unreachable))


def special_token_findings(tables: Tables, tokenizer: Tokenizer, statistics: RowStatistics) -> Iterator[Finding]:
    """Special tokens without training: by the ledger where there is one, else where rows look like unused ones."""
    special = [i for i in tokenizer.special_tokens.values() if i < tables.num_rows]
    ledger = Run.from_folder(tables.path).ledger if tables.is_run else None
    if ledger is not None:
        untrained = [i for i in special if ledger.states[i] >= STATES.index("never seen, yet moved")]
        found, level = "by the ledger, training never saw", "warning"
    else:
        untrained = _like_unused(tables, tokenizer, statistics, special)
        found, level = "rows like those of tokens known to be unused, so perhaps untrained (an indicator):", "note"
    if untrained:
        next_step = "Train on texts that have them before relying on them"
        found = f"{found} {_ids(tokenizer, untrained)}"
        yield Finding(level, "special-tokens-untrained", tables.token.key, found, next_step, untrained)


@torch.no_grad()
def _like_unused(tables: Tables, tokenizer: Tokenizer, statistics: RowStatistics, special: list[int]) -> list[int]:
    """Special tokens whose centred rows point where the unused ones do, as nearly as those do themselves."""
    unused = [i for i in unused_tokens(tokenizer, tables.num_rows) if statistics.norms[i] > 0]  # NaN is not
    asked = [i for i in special if i not in set(unused) and statistics.norms[i] > 0]
    if len(unused) < 2 or not asked:
        return []
    centred = tables.token.rows(unused).double() - statistics.mean
    mean = centred.mean(dim=0)
    least = torch.cosine_similarity(centred, mean.expand_as(centred)).min()
    cosines = torch.cosine_similarity(tables.token.rows(asked).double() - statistics.mean, mean.unsqueeze(0))
    return [i for i, cosine in zip(asked, cosines, strict=True) if least > 0.5 and cosine >= least]


def config_findings(tables: Tables, tokenizer: Tokenizer | None) -> Iterator[Finding]:
    """The ids of special tokens in the config, against the table and the tokenizer's own settings."""
    own = tokenizer_settings(tables)
    id_of = {} if tokenizer is None else _ids_by_text(tokenizer)
    for name in _NAMES:
        stated = tables.config.get(f"{name}_token_id")
        ids = [i for i in (stated if isinstance(stated, list) else [stated]) if type(i) is int]
        outside = [i for i in ids if not 0 <= i < tables.num_rows and i != -1]
        place = f"{name}_token_id of config.json"
        if outside:
            found = f"{outside[0]}, where the table has {tables.num_rows:,} rows"
            yield Finding("error", "special-id", place, found, "Set it to the token's id, or to null", outside)
        text = own.get(f"{name}_token")
        text = text.get("content") if isinstance(text, dict) else text
        if tokenizer is None or not isinstance(text, str):
            continue
        token_id = id_of.get(text)
        if token_id is None:
            found = f"{text!r} is {name}_token, and no token of {_FILE}"
            yield Finding("error", "special-token", "tokenizer_config.json", found, "Add it, or correct its name")
        elif ids and token_id not in ids:
            found = f"{ids[0]}, but {name}_token {text!r} has id {token_id}"
            yield Finding("warning", "special-id", place, found, "Set the two alike", [*ids, token_id])


def _ids_by_text(tokenizer: Tokenizer) -> dict[str, int]:
    settings = json.loads(tokenizer.to_json())
    vocabulary = settings["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary = {text: token_id for token_id, (text, _) in enumerate(vocabulary)}
    return {**vocabulary, **{token["content"]: token["id"] for token in settings["added_tokens"]}}


def labels_of(tables: Tables, tokenizer: Tokenizer | None) -> Callable[[int], str]:
    """Names of rows, with their ids."""
    if tokenizer is None:
        return str
    return lambda row: f"{token_label(tokenizer, row)} ({row})"


def opened_tokenizer(tables: Tables) -> tuple[Tokenizer | None, list[Finding]]:
    """The tokenizer, or what is wrong with it."""
    try:
        tokenizer = Run.from_folder(tables.path).tokenizer if tables.is_run else tables.tokenizer
    except TokenspaceError as error:
        _, rule, value, next_step = error.args
        return None, [Finding("error", "tokenizer", _FILE, f"it must {rule}, but is {value}", next_step)]
    return tokenizer, []


def _ids(tokenizer: Tokenizer, ids: Any) -> str:
    return listed(ids, lambda i: token_label(tokenizer, i))
