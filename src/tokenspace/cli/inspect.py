"""``tokenspace inspect``: a run, the tokens of a text, or what word order does."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from tokenspace.cli.flags import Json
from tokenspace.cli.show import output, print_heat_map, print_json, print_table, remarks
from tokenspace.cli.training_of import show_training
from tokenspace.errors import SettingError, check_at_least

if TYPE_CHECKING:
    from tokenspace.embedding import InputEmbedding
    from tokenspace.tokenizer import Tokenizer

app = App(name="inspect", help="Look at tokens, vectors and positions.")
_MAP_CELLS = 24
_WIDE = 100  # columns of a terminal


@app.default
def run(
    run: Path,
    /,
    *,
    token: str | None = None,
    neighbours: int = 10,
    untrained: Annotated[bool, Parameter(negative="")] = False,
    moved: Annotated[bool, Parameter(negative="")] = False,
    limit: int = 20,
    json: Json = False,
) -> None:
    """Shapes, norms, spectrum and position similarity of a run's tables; or what training did to its tokens.

    Parameters
    ----------
    run
        The run folder. Other things to inspect: `inspect tokens`, `inspect order`.
    token
        Show the nearest tokens of this text's first token, or of an id.
    neighbours
        How many of them.
    untrained
        Only the tokens that training never saw, by the run's ledger. For a folder of a GPT-2 that
        transformers saved, and where there is no ledger: those that look untrained, by their weights.
    moved
        Only the tokens that training moved farthest.
    limit
        How many tokens these two show.
    json
        Print one JSON value for machines.
    """
    import torch

    from tokenspace import Run, inspection

    if untrained or moved:
        if token is not None:
            raise SettingError("token", "stand without --untrained and --moved", token, "Ask one thing at a time")
        show_training(run, untrained=untrained, moved=moved, limit=limit, json=json)
        return
    check_at_least(1, neighbours=neighbours)
    opened = Run.open(run)
    embedding, tokenizer = opened.embedding(), opened.tokenizer
    context_length = opened.model_config.context_length
    results = [inspection.summary(embedding.token.weight, "token table")]
    position_table = inspection.position_vectors(embedding, context_length)
    enters = bool(position_table.any())
    if enters:
        results.append(inspection.summary(position_table, f"{embedding.position.name} positions"))
    near = None
    if token is not None:
        near = inspection.neighbours(embedding.token.weight, _token_id(token, tokenizer), tokenizer, neighbours)
    if json:
        fields = {"run": str(opened.path), "step": opened.step, "tables": [result.fields() for result in results]}
        print_json(fields | ({"neighbours": near.fields()} if near else {}))
        return
    output().print(f"{opened.path}, step {opened.step:,}", style="bold")
    for result in results:
        print_table(result)
    if near is not None:
        print_table(near)
    if enters:
        shown = torch.linspace(0, context_length - 1, min(_MAP_CELLS, context_length)).round().long()
        similarity = inspection.position_similarity(embedding, context_length)[shown][:, shown]
        print_heat_map(similarity, shown.tolist(), "Cosine of the position vectors")
    else:
        output().print(f"{embedding.position.name!r} positions add nothing to the input embedding.")


@app.command
def tokens(
    text: str,
    run: Path | None = None,
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
        A run folder; without one, a seeded random table stands in.
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
    run: Path | None = None,
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
        A run folder; without one, a seeded random table stands in.
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


def _tables(run: Path | None, tokenizer: str, positions: str) -> tuple["Tokenizer", "InputEmbedding"]:
    from tokenspace import Run, Tokenizer, inspection

    if run is not None:
        opened = Run.open(run)
        return opened.tokenizer, opened.embedding()
    opened_tokenizer = Tokenizer.from_spec(tokenizer)
    return opened_tokenizer, inspection.random_embedding(opened_tokenizer.vocab_size, scheme=positions)


def _token_id(token: str, tokenizer: "Tokenizer") -> int:
    if token.isascii() and token.isdecimal():  # other scripts' digits are text
        return int(token)
    ids = tokenizer.encode(token)
    if not ids:
        raise SettingError("token", "be an id or text of at least one token", token, "Give a word")
    if len(ids) > 1:
        remarks().print(f"{token!r} is {len(ids)} tokens; the first is {tokenizer.label(ids[0])}")
    return ids[0]
