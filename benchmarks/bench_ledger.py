"""What a ledger adds to a training step: the same steps with and without one, in turns.

Run: python benchmarks/bench_ledger.py
"""

import argparse
import statistics
import time

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
    arguments = parser.parse_args()
    steps = arguments.steps
    for name, (make, shape) in CASES.items():
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        table, watched = make()
        _, unwatched = make()
        ledger = Ledger(table, every=arguments.every)
        seconds: dict[str, list[float]] = {"without": [], "with": []}
        for number in range(steps + 5):
            ids = zipf_tokens(shape, table.num_embeddings, generator)
            for turn in ("without", "with") if number % 2 else ("with", "without"):
                started = time.perf_counter()
                if turn == "with":
                    watched(ids)
                    ledger.step(ids)
                else:
                    unwatched(ids)
                seconds[turn].append(time.perf_counter() - started)
        without, with_ledger = (statistics.median(times[5:]) * 1e3 for times in seconds.values())
        more = statistics.median(b / a for a, b in zip(*(times[5:] for times in seconds.values()), strict=True)) - 1
        print(f"{name}: {without:.2f} ms without, {with_ledger:.2f} ms with: {more:+.1%}", flush=True)


if __name__ == "__main__":
    main()
