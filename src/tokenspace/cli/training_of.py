"""What ``tokenspace inspect --untrained`` and ``--moved`` print: from a run's ledger, or indicators without one."""

from pathlib import Path
from typing import TYPE_CHECKING

from tokenspace.cli.show import output, print_json, print_rows, print_table
from tokenspace.errors import CheckpointError, check_at_least

if TYPE_CHECKING:
    from tokenspace import Tokenizer
    from tokenspace.checkpoint import Tables
    from tokenspace.ledger import LedgerRecord


def show_training(
    model: str, *, untrained: bool, moved: bool, limit: int, json: bool, table: str | None = None
) -> None:
    """Print what training did to the tokens of a run, or of any other model that is opened.

    Raises:
        CheckpointError: it cannot be opened; or `moved` is asked for where there is no ledger.
    """
    from tokenspace import Run

    check_at_least(1, limit=limit)
    opened = Run.open(model, table=table)
    if opened.ledger is not None:
        shown = {"untrained": untrained, "moved": moved, "limit": limit, "json": json}
        _show_ledger(opened.path, opened.ledger, opened.tokenizer, **shown, tied=opened.tables.tied)
        return
    if moved:
        next_step = "Only --untrained can be told from weights alone"
        raise CheckpointError(str(opened.path), "have a ledger for --moved", "without", next_step)
    _show_indicators(opened.tables, opened.tokenizer, limit=limit, json=json)


def _show_ledger(
    path: Path,
    ledger: "LedgerRecord",
    tokenizer: "Tokenizer",
    *,
    untrained: bool,
    moved: bool,
    limit: int,
    json: bool,
    tied: bool,
) -> None:
    from tokenspace import inspection

    never = inspection.untrained(ledger, tokenizer) if untrained else None
    farthest = inspection.moved(ledger, tokenizer, limit) if moved else None
    if json:
        fields = {"run": str(path), "step": ledger.step, "tied_head": tied}
        fields |= {"untrained": never.fields()} if never else {}
        fields |= {"moved": farthest.fields()} if farthest else {}
        print_json(fields)
        return
    console = output()
    console.print(f"{path}, ledger of step {ledger.step:,}", style="bold")
    if never is not None:
        for state, number in never.states.items():
            pushed = tied and number and state == "never seen, yet moved"
            remark = " (the softmax of a tied head moves all)" if pushed else ""
            console.print(f"{number:>9,} tokens {state}{remark}")
        if never.tokens:
            print_rows(never.header(), never.rows()[:limit])
        if len(never.tokens) > limit:
            console.print(f"… and {len(never.tokens) - limit:,} more: --limit shows more, --json all.")
    if farthest is not None:
        print_table(farthest)


def _show_indicators(tables: "Tables", tokenizer: "Tokenizer", *, limit: int, json: bool) -> None:
    from tokenspace import inspection

    head = None if tables.head is None else tables.head.tensor()
    result = inspection.untrained_indicators(tables.token.tensor(), tokenizer, output_VD=head, k=limit)
    if json:
        print_json({"run": str(tables.path), "indicators": result.fields()})
        return
    console = output()
    console.print(f"{tables.path}: no ledger", style="bold")
    console.print(
        "These are indicators from the weights (arXiv 2405.05417), not counts: what looks untrained may not be."
    )
    console.print(f"Lowest {result.name} first; compared with {len(result.unused):,} tokens known to be unused.")
    print_table(result)
