"""``tokenspace vocab``: tokens added, removed, trimmed or put in another order, rows and positions resized."""

import json as json_module
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from tokenspace.cli.flags import Json, Out, Sources, check_sources
from tokenspace.cli.show import output, print_json, print_rows, remarks
from tokenspace.errors import CorpusError, SettingError, TextError

if TYPE_CHECKING:
    import numpy as np

    from tokenspace.vocabulary import Change

app = App(name="vocab", help="Edit a model's vocabulary: table, head, tokenizer and training state, with a receipt.")


@app.command
def add(
    model: str,
    /,
    *tokens: Sources,
    out: Out,
    tokens_from: Path | None = None,
    special: Annotated[bool, Parameter(negative="")] = False,
    init: Literal["mean", "subtokens", "normal", "zeros", "vectors"] | None = None,
    vectors: Path | None = None,
    seed: int = 0,
    multiple: int | None = None,
    text: Path | None = None,
    json: Json = False,
) -> None:
    """Add tokens; rows of padding are used first.

    Parameters
    ----------
    model
        A run folder, a folder that transformers saved, or a name in the local Hugging Face cache.
    tokens
        Their text.
    out
        The folder to make.
    tokens_from
        A file with a token a line; a line that is JSON text in quotes may hold any character.
    special
        Make them special tokens: text is never parsed as one unless asked for.
    init
        How their rows begin. Default: subtokens, or vectors where these are given.
    vectors
        A file of vectors for them: word2vec text, .vec or Parquet with words.
    seed
        Of what is drawn.
    multiple
        Make the number of rows a multiple of this.
    text
        A text to measure on, before and after.
    json
        Print the receipt as JSON.
    """
    check_sources(tokens)
    from tokenspace.vocabulary import Add, NewRows

    wanted = [*tokens, *(_lines(tokens_from) if tokens_from else ())]
    recipe = init or ("subtokens" if vectors is None else "vectors")
    _edit(model, out, Add(wanted, special, NewRows(recipe=recipe, vectors=vectors, seed=seed), multiple), text, json)


@app.command
def remove(
    model: str,
    /,
    *tokens: Sources,
    out: Out,
    id: Annotated[tuple[int, ...], Parameter(negative="")] = (),
    multiple: int | None = None,
    text: Path | None = None,
    json: Json = False,
) -> None:
    """Take tokens out; those behind them move up.

    Parameters
    ----------
    model
        A run folder, a folder that transformers saved, or a name in the local Hugging Face cache.
    tokens
        Their text, with the space that belongs to it.
    out
        The folder to make.
    id
        Tokens by their ids.
    multiple
        Make the number of rows the least multiple of this that holds all tokens. Default: padding stays.
    text
        A text to measure on, before and after.
    json
        Print the receipt as JSON.
    """
    check_sources(tokens)
    from tokenspace.vocabulary import Remove

    _edit(model, out, Remove([*tokens, *id], multiple), text, json)


@app.command
def trim(
    model: str,
    /,
    *sources: Sources,
    out: Out,
    multiple: int | None = None,
    text_field: str = "text",
    encoding: str = "utf-8",
    errors: str = "strict",
    text: Path | None = None,
    json: Json = False,
) -> None:
    """Keep the tokens that a text uses, and what they are made of; every text still encodes.

    Parameters
    ----------
    model
        A run folder, a folder that transformers saved, or a name in the local Hugging Face cache.
    sources
        Files, folders, JSONL, Parquet, or one corpus folder of the same tokenizer. None at all: a run's own corpus.
    out
        The folder to make.
    multiple
        Make the number of rows the least multiple of this that holds all tokens. Default: padding stays.
    text_field
        Field of JSONL and Parquet rows that holds the text; a.b for b inside a.
    encoding
        Of the text files.
    errors
        strict, or replace to go on after bytes that are no text in this encoding.
    text
        A text to measure on, before and after.
    json
        Print the receipt as JSON.
    """
    check_sources(sources)
    from tokenspace.vocabulary import Trim

    counts = _counts(model, sources)
    if counts is not None:
        change = Trim(keep=counts.nonzero()[0].tolist(), pad_to_multiple_of=multiple)
    else:
        change = Trim(_documents(sources, text_field, encoding, errors), pad_to_multiple_of=multiple)
    _edit(model, out, change, text, json)


@app.command
def reorder(
    model: str,
    /,
    *sources: Sources,
    out: Out,
    order: Path | None = None,
    text_field: str = "text",
    encoding: str = "utf-8",
    errors: str = "strict",
    text: Path | None = None,
    json: Json = False,
) -> None:
    """Give tokens other ids: the most frequent first, or an order of your own.

    Parameters
    ----------
    model
        A run folder, a folder that transformers saved, or a name in the local Hugging Face cache.
    sources
        Where tokens are counted: files, folders, JSONL, Parquet, or one corpus folder. None at all: a run's own corpus.
    out
        The folder to make.
    order
        Instead, a JSON file with a list of all old ids in their new order.
    text_field
        Field of JSONL and Parquet rows that holds the text; a.b for b inside a.
    encoding
        Of the text files.
    errors
        strict, or replace to go on after bytes that are no text in this encoding.
    text
        A text to measure on, before and after.
    json
        Print the receipt as JSON.
    """
    check_sources(sources)
    from tokenspace.vocabulary import Reorder

    if order is not None:
        if sources:
            raise SettingError("order", "stand without sources", str(order), "Give one of the two")
        _edit(model, out, Reorder(_ids(order)), text, json)
        return
    counts = _counts(model, sources)
    if counts is None:
        counts = _counted(model, _documents(sources, text_field, encoding, errors))
    _edit(model, out, Reorder(counts.tolist(), by_count=True), text, json)


@app.command
def resize(
    model: str,
    /,
    *,
    out: Out,
    rows: int | None = None,
    multiple: int | None = None,
    positions: int | None = None,
    interpolate: Annotated[bool, Parameter(negative="")] = False,
    text: Path | None = None,
    json: Json = False,
) -> None:
    """Change the rows of padding, or the length of the position table; no token comes or goes.

    Parameters
    ----------
    model
        A run folder, a folder that transformers saved, or a name in the local Hugging Face cache.
    out
        The folder to make.
    rows
        How many rows; at least as many as there are tokens.
    multiple
        Make the number of rows a multiple of this.
    positions
        How many positions the table shall have.
    interpolate
        Stretch the position table. Default: rows stay, those beyond go, and new ones are drawn.
    text
        A text to measure on, before and after.
    json
        Print the receipt as JSON.
    """
    from tokenspace.vocabulary import Resize

    if rows is multiple is positions is None:
        raise SettingError("rows", "be given, or --multiple or --positions", "none of them", "Say what shall change")
    _edit(model, out, Resize(rows, multiple, positions, interpolate), text, json)


def _edit(model: str, out: Path, change: "Change", text: Path | None, json: bool) -> None:
    from tokenspace.vocabulary import edit_model

    receipt = edit_model(model, out, change, text=None if text is None else _text(text))
    if json:
        print_json({"out": str(out), **receipt.fields()})
        return
    print_rows(receipt.header(), receipt.rows(), f"{out}: vocab {receipt.verb}")
    for line in receipt.told():
        output().print(line)
    remarks().print(f"the whole receipt: {out / 'receipt.json'}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TextError(str(path), "be UTF-8", f"not, at byte {error.start:,}", "Convert it first") from error


def _lines(path: Path) -> Iterator[str]:
    """Tokens of a file, a line each."""
    for line in _text(path).removeprefix("\ufeff").split("\n"):
        line = line.removesuffix("\r")
        try:
            token = json_module.loads(line) if line.startswith('"') else line
        except ValueError:
            token = line
        if token:
            yield token


def _ids(path: Path) -> list[int]:
    try:
        ids = json_module.loads(path.read_bytes())
        if isinstance(ids, list) and all(type(token_id) is int for token_id in ids):
            return ids
        found = type(ids).__name__
    except (ValueError, RecursionError) as error:
        found = f"no JSON ({error})"
    raise SettingError(str(path), "hold a JSON list of ids", found, "Write [5, 3, …]")


def _documents(sources: tuple[str, ...], text_field: str, encoding: str, errors: str) -> Iterable[str]:
    from tokenspace.text import join_documents, read_documents

    return join_documents(read_documents(sources, encoding=encoding, errors=errors, text_field=text_field))


def _counts(model: str, sources: tuple[str, ...]) -> "np.ndarray | None":
    """How often each token occurs in a corpus; None where the sources are text."""
    from tokenspace import Corpus, Run
    from tokenspace.corpus import is_corpus

    if len(sources) > 1 or (sources and not is_corpus(sources[0])):
        return None
    opened = Run.open(model)
    if sources:
        place: str | Path = sources[0]
    elif isinstance(opened, Run):
        place = opened.path / opened.config["corpus"]["path"]
    else:
        raise SettingError("sources", "name at least one text", "none", "Give a text or a corpus folder")
    train = Corpus.open(place, tokenizer=opened.tokenizer)
    counts = train.counts()
    if "validation" in train.manifest.splits:
        counts += Corpus.open(place, "validation").counts()
    if not counts.any():
        raise CorpusError(str(place), "hold tokens", "none", "Give another corpus")
    return counts


def _counted(model: str, texts: Iterable[str]) -> "np.ndarray":
    import numpy as np

    from tokenspace import Run

    tokenizer = Run.open(model).tokenizer
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for text in texts:
        counts += np.bincount(tokenizer.encode_batch([text])[0], minlength=tokenizer.vocab_size)
    return counts
