"""``tokenspace inspect``: a run, the tokens of a text, or what word order does."""

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import App, Parameter

from tokenspace.cli.flags import Json
from tokenspace.cli.show import output, print_heat_map, print_json, print_table, remarks
from tokenspace.cli.training_of import show_training
from tokenspace.errors import SettingError, check_at_least

if TYPE_CHECKING:
    from torch import Tensor

    from tokenspace.checkpoint import Table, Tables
    from tokenspace.embedding import InputEmbedding
    from tokenspace.inspection import TableSummary
    from tokenspace.tokenizer import Tokenizer

app = App(name="inspect", help="Look at tokens, vectors and positions.")
_MAP_CELLS = 24
_WIDE = 100  # columns of a terminal
_AFFORDABLE = 1e12  # multiplications, about a minute


@app.default
def run(
    model: str,
    /,
    *,
    token: str | None = None,
    neighbours: int = 10,
    untrained: Annotated[bool, Parameter(negative="")] = False,
    moved: Annotated[bool, Parameter(negative="")] = False,
    limit: int = 20,
    table: str | None = None,
    json: Json = False,
) -> None:
    """Shapes, norms, spectrum and position similarity of a model's tables; or what training did to its tokens.

    Parameters
    ----------
    model
        A run, a model folder, a file of vectors, or a name in the local Hugging Face cache. Other things to inspect:
        `inspect tokens`, `inspect order`.
    token
        Show the nearest tokens of this text's first token, or of an id.
    neighbours
        How many of them.
    untrained
        Only the tokens that training never saw, by the run's ledger. Where there is no ledger: those that look
        untrained, by their weights.
    moved
        Only the tokens that training moved farthest.
    limit
        How many tokens these two show.
    table
        Name of the token table's tensor, where it cannot be found by itself.
    json
        Print one JSON value for machines.
    """
    from tokenspace import Run, inspection

    if untrained or moved:
        if token is not None:
            raise SettingError("token", "stand without --untrained and --moved", token, "Ask one thing at a time")
        show_training(model, untrained=untrained, moved=moved, limit=limit, json=json, table=table)
        return
    check_at_least(1, neighbours=neighbours)
    opened = Run.open(model, table=table)
    tables = opened.tables
    results = [_summary(tables.token, "token table")]
    if tables.head is not None:
        results.append(_summary(tables.head, "head"))
    positions = _positions_of(tables)
    if positions is not None:
        results.append(inspection.summary(positions.vectors, f"{positions.name} positions"))
    near = None
    if token is not None:
        near = inspection.neighbours(tables.token.tensor(), _token_id(token, tables.tokenizer), tables, neighbours)
    if json:
        fields = {"run": str(opened.path), "family": tables.family, "step": opened.step, **_sizes(tables)}
        fields["tables"] = [result.fields() for result in results]
        print_json(fields | ({"neighbours": near.fields()} if near else {}))
        return
    about = f"step {opened.step:,}" if tables.is_run else _about(tables)
    output().print(f"{opened.path}, {about}", style="bold")
    for result in [*results, *([near] if near else [])]:
        print_table(result)
    if positions is not None:
        print_heat_map(positions.similarity, positions.shown, "Cosine of the position vectors")
    else:
        output().print(f"{tables.scheme[0]!r} positions add nothing to the input embedding.")


def _summary(table: "Table", name: str) -> "TableSummary":
    from tokenspace import inspection

    spectrum = table.shape[0] * table.shape[1] ** 2 <= _AFFORDABLE
    if not spectrum:
        remarks().print(f"{name}: its spectrum would take minutes and is left out; inspection.summary gives it")
    return inspection.summary(table.tensor(), name, spectrum=spectrum)


class _Positions(NamedTuple):
    name: str
    vectors: "Tensor"
    similarity: "Tensor"
    shown: list[int]


def _positions_of(tables: "Tables") -> _Positions | None:
    """What the position scheme adds; None where it adds nothing."""
    import torch

    from tokenspace import InputEmbedding, TokenEmbedding, inspection

    scheme = tables.position_scheme()
    if not scheme.enters_input:
        return None
    length = tables.shape.context_length if tables.shape else scheme.max_position + 1 - tables.position_offset
    embedding = InputEmbedding(TokenEmbedding(1, tables.d_model), scheme, position_offset=tables.position_offset)
    shown = torch.linspace(0, length - 1, min(_MAP_CELLS, length)).round().long()
    similarity = inspection.position_similarity(embedding, length)[shown][:, shown]
    return _Positions(scheme.name, inspection.position_vectors(embedding, length), similarity, shown.tolist())


def _sizes(tables: "Tables") -> dict[str, Any]:
    return {"num_rows": tables.num_rows, "vocab_size": tables.vocab_size, "tied": tables.tied}


def _about(tables: "Tables") -> str:
    tie = {True: "head tied", False: "head of its own", None: "no head"}[tables.tied]
    tokens = "no tokenizer" if tables.vocab_size is None else f"{tables.vocab_size:,} tokens"
    dtype = str(tables.token.dtype).removeprefix("torch.")
    return f"{tables.family}: {tables.num_rows:,} rows of {dtype}, {tokens}, {tie}, {tables.scheme[0]!r} positions"


@app.command
def tokens(
    text: str,
    run: str | None = None,
    /,
    *,
    tokenizer: str = "gpt2",
    positions: str = "learned",
    components: int | None = None,
    json: Json = False,
) -> None:
    """What the first layer of a model reads of a text: one row a token.

    Parameters
    ----------
    text
        Any text.
    run
        A run, or any other model; without one, a seeded random table stands in.
    tokenizer
        gpt2 or a tokenizer file, where no run is given.
    positions
        The position scheme, where no run is given.
    components
        How many components of each vector to show. Default: what fits.
    json
        Print one JSON value for machines.
    """
    from tokenspace import inspection

    opened_tokenizer, embedding = _tables(run, tokenizer, positions)
    if components is None:
        components = 3 if json or output().width >= _WIDE else 2
    result = inspection.tokens(text, opened_tokenizer, embedding, components)
    if json:
        print_json(result.fields())
        return
    print_table(result, f"{len(result.tokens)} tokens, the first {components} of {result.d_model} components")
    if run is None:
        remarks().print("The vectors are random: no run was given. Train one with `tokenspace demo`.")


@app.command
def order(
    first: str,
    second: str,
    run: str | None = None,
    /,
    *,
    tokenizer: str = "gpt2",
    positions: str = "learned",
    json: Json = False,
) -> None:
    """Show that a bag of token vectors cannot tell two orders of the same words apart, and positions can.

    Parameters
    ----------
    first
        A sentence.
    second
        The same words in another order.
    run
        A run, or any other model; without one, a seeded random table stands in.
    tokenizer
        gpt2 or a tokenizer file, where no run is given.
    positions
        The position scheme, where no run is given.
    json
        Print one JSON value for machines.
    """
    from tokenspace import inspection

    opened_tokenizer, embedding = _tables(run, tokenizer, positions)
    result = inspection.order(first, second, opened_tokenizer, embedding)
    if json:
        print_json(result.fields())
        return
    console = output()
    console.print("Every word is encoded with one space before it, the first one too.")
    if not result.same_tokens:
        console.print("The two texts do not have the same tokens, so they differ as bags already:")
        console.print(f"  as bags of token vectors they are {result.bag_distance:.4f} apart")
        return
    print_table(result)
    console.print(f"As bags of token vectors: {result.bag_distance:.4f} apart. The same point: order is lost.")
    if result.set_distance:
        console.print(
            f"With {result.scheme} positions added: {result.set_distance:.4f} apart (root mean square, token by token)."
        )
        console.print("Attention reads the vectors one by one and can tell the two apart; their sum alone could not.")
    else:
        console.print(f"{result.scheme!r} positions add nothing to these vectors: still the same.")


def _tables(run: str | None, tokenizer: str, positions: str) -> tuple["Tokenizer", "InputEmbedding"]:
    from tokenspace import Run, Tokenizer, inspection

    if run is not None:
        opened = Run.open(run)
        return opened.tokenizer, opened.embedding()
    opened_tokenizer = Tokenizer.from_spec(tokenizer)
    return opened_tokenizer, inspection.random_embedding(opened_tokenizer.vocab_size, scheme=positions)


def _token_id(token: str, tokenizer: "Tokenizer | None") -> int:
    if token.isascii() and token.isdecimal():  # other scripts' digits are text
        return int(token)
    if tokenizer is None:
        raise SettingError("token", "be an id, as the model has no tokenizer", token, "Give the row's number")
    ids = tokenizer.encode(token)
    if not ids:
        raise SettingError("token", "be an id or text of at least one token", token, "Give a word")
    if len(ids) > 1:
        remarks().print(f"{token!r} is {len(ids)} tokens; the first is {tokenizer.label(ids[0])}")
    return ids[0]
