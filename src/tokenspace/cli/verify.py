"""``tokenspace verify``: what is wrong with a model's tables, and what to do."""

import sys

from tokenspace.cli.bars import Bars
from tokenspace.cli.flags import Json
from tokenspace.cli.show import output, print_json, remarks

_STYLES = {"error": "bold red", "warning": "yellow", "note": "bold"}
_WRONG = 1  # exit status; 2 says that the model cannot be opened at all


def verify(model: str, /, *, table: str | None = None, json: Json = False) -> None:
    """Check a model's files, rows, ties, tokenizer, special tokens and positions.

    Exit status 0 says that nothing is wrong, 1 that there are errors or warnings, 2 that the model cannot be opened.

    Parameters
    ----------
    model
        A run, a model folder, a file of vectors, or a name in the local Hugging Face cache. (Token files have a verb of
        their own: corpus verify.)
    table
        Name of the token table's tensor, where it cannot be found by itself.
    json
        Print one JSON value for machines, with every row and token concerned.
    """
    from tokenspace.inspection.verification import verify as verified

    with Bars() as bars:
        result = verified(model, table=table, progress=bars)
    if json:
        print_json(result.fields() | {"sound": result.is_sound})
    else:
        size = "no tokenizer" if result.vocab_size is None else f"{result.vocab_size:,} tokens"
        console = output()
        console.print(f"{result.path}: {result.family}, {result.num_rows:,} rows, {size}", style="bold")
        for finding in result.findings:
            console.print(f"\n{finding.level}: {finding.name}, {finding.place}", style=_STYLES[finding.level])
            console.print(f"  {finding.found}", soft_wrap=True)
            console.print(f"  {finding.next_step}.", soft_wrap=True, style="dim")
    if not result.is_sound:
        sys.exit(_WRONG)
    remarks().print("nothing wrong was found")
