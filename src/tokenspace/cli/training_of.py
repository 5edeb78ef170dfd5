"""What ``tokenspace inspect --untrained`` and ``--moved`` print: from a run's ledger, or indicators without one."""

from pathlib import Path
from typing import TYPE_CHECKING

from tokenspace.cli.show import output, print_json, print_rows, print_table
from tokenspace.errors import CheckpointError, check_at_least

if TYPE_CHECKING:
    from tokenspace import LanguageModel, Tokenizer
    from tokenspace.ledger import LedgerRecord


def show_training(path: Path, *, untrained: bool, moved: bool, limit: int, json: bool) -> None:
    """Print what training did to the tokens of a run, or of a folder of a GPT-2 that transformers saved.

    Raises:
        CheckpointError: it is neither; or `moved` is asked for where there is no ledger.
    """
    from tokenspace import Run

    check_at_least(1, limit=limit)
    ledger = None
    if (path / "config.json").is_file():
        model, tokenizer = _saved_gpt2(path)
    else:
        run = Run.open(path)
        tokenizer, ledger = run.tokenizer, run.ledger
        model = run.model() if ledger is None else None
    if ledger is not None:
        tied = run.model_config.tie_head
        _show_ledger(path, ledger, tokenizer, untrained=untrained, moved=moved, limit=limit, json=json, tied=tied)
        return
    if moved:
        next_step = "Only --untrained can be told from weights alone"
        raise CheckpointError(str(path), "have a ledger for --moved", "without", next_step)
    _show_indicators(path, model, tokenizer, limit=limit, json=json)


def _saved_gpt2(path: Path) -> tuple["LanguageModel", "Tokenizer"]:
    from tokenspace import Tokenizer
    from tokenspace.model.gpt2 import load_gpt2

    file = path / "tokenizer.json"
    return load_gpt2(path), Tokenizer.from_file(file) if file.is_file() else Tokenizer.gpt2()


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
            remark = " (the softmax of a tied head moves every row)" if pushed else ""
            console.print(f"{number:>9,} tokens {state}{remark}")
        if never.tokens:
            print_rows(never.header(), never.rows()[:limit])
        if len(never.tokens) > limit:
            console.print(f"… and {len(never.tokens) - limit:,} more: --limit shows more, --json all.")
    if farthest is not None:
        print_table(farthest)


def _show_indicators(path: Path, model: "LanguageModel", tokenizer: "Tokenizer", *, limit: int, json: bool) -> None:
    from tokenspace import inspection

    head = None if model.config.tie_head else model.head.weight
    result = inspection.untrained_indicators(model.embedding.token.weight, tokenizer, output_VD=head, k=limit)
    if json:
        print_json({"run": str(path), "indicators": result.fields()})
        return
    console = output()
    console.print(f"{path}: no ledger", style="bold")
    console.print(
        "These are indicators from the weights (arXiv 2405.05417), not counts: what looks untrained may not be."
    )
    console.print(f"Lowest {result.name} first; compared with {len(result.unused):,} tokens known to be unused.")
    print_table(result)
