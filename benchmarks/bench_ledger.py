"""What a ledger adds to a training step: the same steps with and without one, in turns.

Run: python benchmarks/bench_ledger.py [--threads N]

Two steps without a ledger differ too, by what their memory costs: so much is noise. What the ledger's own calls
take is CPU time.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from tokenspace import LanguageModel, Ledger, RowwiseAdamW, TokenEmbedding


def zipf_tokens(shape: tuple[int, int], vocab_size: int, generator: torch.Generator) -> torch.Tensor:
    """Ids whose frequencies fall with their rank."""
    weights = 1 / torch.arange(1, vocab_size + 1, dtype=torch.float64)
    return torch.multinomial(weights, shape[0] * shape[1], replacement=True, generator=generator).view(shape)


def table_alone(rows: int, width: int, sparse: bool):
    """A step that is nothing but a table: the hardest case for a ledger."""
    table = TokenEmbedding(rows, width, sparse=sparse)
    optimizer = RowwiseAdamW(table.parameters(), lr=1e-3)

    def step(ids: torch.Tensor) -> None:
        table(ids).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return table, step


def whole_model(width: int, layers: int, tie_head: bool):
    """A small GPT, trained with torch's own AdamW."""
    model = LanguageModel(
        vocab_size=50257, d_model=width, num_layers=layers, num_heads=4, context_length=256, tie_head=tie_head
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step(ids: torch.Tensor) -> None:
        nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return model.embedding.token, step


class OwnTime:
    """CPU seconds that the calls of a ledger take."""

    def __init__(self, ledger: Ledger) -> None:
        self.seconds = 0.0
        for name in ("count_inputs", "step"):
            setattr(ledger, name, self.timed(getattr(ledger, name)))

    def timed(self, call: Callable[..., None]) -> Callable[..., None]:
        """The call, its time added up."""

        def timed(*arguments: torch.Tensor) -> None:
            started = time.process_time()
            call(*arguments)
            self.seconds += time.process_time() - started

        return timed


CASES = {
    "table alone 50257×768, 8×1024, AdamW rows": (lambda: table_alone(50257, 768, True), (8, 1024)),
    "table alone 50257×768, 8×1024, dense": (lambda: table_alone(50257, 768, False), (8, 1024)),
    "model 2 layers of 128, tied, 4×256": (lambda: whole_model(128, 2, True), (4, 256)),
}


def main() -> None:
    """Print the share of a step that a ledger takes, by case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=None)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    steps = arguments.steps
    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    for name, (make, shape) in CASES.items():
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        table, watched = make()
        turns = {"without": make()[1], "again": make()[1], "with": watched}
        ledger = Ledger(table, every=arguments.every)
        own = OwnTime(ledger)
        seconds: dict[str, list[float]] = {turn: [] for turn in turns}
        shares = []
        for number in range(steps + 5):
            ids = zipf_tokens(shape, table.num_embeddings, generator)
            for turn in list(turns) if number % 2 else reversed(turns):
                started, cpu, own.seconds = time.perf_counter(), time.process_time(), 0.0
                turns[turn](ids)
                if turn == "with":
                    ledger.step(ids)
                    shares.append(own.seconds / (time.process_time() - cpu - own.seconds))
                seconds[turn].append(time.perf_counter() - started)
        without, again, with_ledger = (statistics.median(times[5:]) * 1e3 for times in seconds.values())
        more = {
            turn: statistics.median(b / a for a, b in zip(seconds["without"][5:], seconds[turn][5:], strict=True)) - 1
            for turn in ("with", "again")
        }
        print(
            f"{name}: {without:.2f} ms without, {again:.2f} ms again ({more['again']:+.1%}), {with_ledger:.2f} ms with"
            f" ({more['with']:+.1%}); own CPU time {statistics.median(shares[5:]):+.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
