"""`RowwiseAdamW` beside torch's SparseAdam and fused AdamW: a step of a token table, and of a whole model.

    python benchmarks/bench_optim.py [--rounds N] [--device cuda]

A step of a table is a lookup, the backward pass of a given gradient of its output, and the optimiser;
tokens follow Zipf's law, weight decay is 0.1 (SparseAdam has none). A step of a model is one of a
decoder with an untied head. The optimisers take turns by blocks of steps, each with a table of its own,
and the ratio is of medians. AdamW's time depends on malloc: it is measured as Python starts and with
large pages (`THP_MEM_ALLOC_ENABLE=1`, as the command line sets it), each in a process of its own.
Memory is what the gradient holds after a backward pass.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timing import machine, markdown_row
from tokenspace import LanguageModel, RowwiseAdamW, TokenEmbedding

CASES = ((50257, 768, 1024), (50257, 256, 4), (262144, 1024, 1024))  # vocabulary, d_model, length of 8 rows
B, WARM_UP, STEPS = 8, 3, 12
OPTIMIZERS = ("RowwiseAdamW", "SparseAdam", "AdamW(fused)")


def zipf_batches(V: int, T: int, device: str, number: int = 40) -> list[Tensor]:
    """Batches of ids (B, T) in which the r-th most frequent token has a share of 1 / r."""
    generator = torch.Generator().manual_seed(0)
    shares, ids = 1 / torch.arange(1, V + 1).double(), torch.randperm(V, generator=generator)
    drawn = (torch.multinomial(shares, B * T, replacement=True, generator=generator) for _ in range(number))
    return [ids[some].view(B, T).to(device) for some in drawn]


def table_steps(name: str, V: int, D: int, batches: list[Tensor]) -> tuple[Callable[[int], None], nn.Embedding]:
    """What does the i-th step of a table, and the table."""
    device = batches[0].device
    with device:
        if name == "RowwiseAdamW":
            table = TokenEmbedding(V, D, sparse=True)
            optimizer = RowwiseAdamW(table.parameters(), lr=1e-3, weight_decay=0.1)
        elif name == "SparseAdam":
            table = nn.Embedding(V, D, sparse=True)
            optimizer = torch.optim.SparseAdam(table.parameters(), lr=1e-3)
        else:
            table = nn.Embedding(V, D)
            optimizer = torch.optim.AdamW(table.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
    gradient = torch.randn(*batches[0].shape, D, generator=torch.Generator().manual_seed(1)).to(device) * 1e-4

    def step(i: int) -> None:
        optimizer.zero_grad()
        table(batches[i % len(batches)]).backward(gradient)
        optimizer.step()

    return step, table


def model_steps(name: str, batches: list[Tensor]) -> Callable[[int], None]:
    """What does the i-th training step of a decoder with 50,257 tokens and an untied head."""
    torch.manual_seed(0)
    with torch.device(batches[0].device):
        model = LanguageModel(
            vocab_size=50257, d_model=256, num_layers=2, num_heads=4, context_length=128, tie_head=False
        )
    if name == "RowwiseAdamW":
        model.embedding.token.sparse = True
        optimizer = RowwiseAdamW(model.parameters(), lr=1e-3)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step(i: int) -> None:
        ids = batches[i % len(batches)]
        optimizer.zero_grad()
        F.cross_entropy(model(ids).flatten(0, 1), ids.roll(-1, dims=1).flatten()).backward()
        optimizer.step()

    return step


def in_turns(steps: dict[str, Callable[[int], None]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of a step of each, taken by blocks in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds):
        for name, step in steps.items():
            for i in range(WARM_UP + STEPS):
                started = time.perf_counter()
                step(number * STEPS + i)
                if device == "cuda":
                    torch.cuda.synchronize()
                if i >= WARM_UP:
                    seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(some) for name, some in seconds.items()}


def held_by(gradient: Tensor) -> int:
    """Bytes of a gradient."""
    parts = (gradient._indices(), gradient._values()) if gradient.is_sparse else (gradient,)
    return sum(part.numel() * part.element_size() for part in parts)


def measure(label: str, rounds: int, device: str) -> None:
    """One row a case, with this state of malloc."""
    for V, D, T in CASES:
        batches = zipf_batches(V, T, device)
        built = {name: table_steps(name, V, D, batches) for name in OPTIMIZERS}
        seconds = in_turns({name: step for name, (step, _) in built.items()}, rounds, device)
        ours, sparse, dense = (1e3 * seconds[name] for name in OPTIMIZERS)
        gradients = {name: held_by(table.weight.grad) for name, (_, table) in built.items()}
        less = gradients["AdamW(fused)"] / gradients["RowwiseAdamW"]
        cells = (
            f"{sparse:.2f}",
            f"{dense:.2f}",
            f"**{sparse / ours:.2f}**",
            f"**{dense / ours:.1f}**",
            f"1/{less:.0f}",
        )
        print(markdown_row(label, f"table {V:,} × {D}, {B} × {T}", f"{ours:.2f}", *cells), flush=True)
    batches = zipf_batches(50257, 128, device)
    names = ("RowwiseAdamW", "AdamW(fused)")
    seconds = in_turns({name: model_steps(name, batches) for name in names}, rounds, device)
    ours, dense = (seconds[name] for name in names)
    tokens = f"{B * 128 / ours:,.0f} against {B * 128 / dense:,.0f} tokens/s"
    title = f"whole model, untied head: {tokens}"
    print(
        markdown_row(label, title, f"{1e3 * ours:.1f}", "–", f"{1e3 * dense:.1f}", "–", f"**{dense / ours:.2f}**", "–")
    )


def main() -> None:
    """All cases, in both states of malloc."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--state", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.state:
        measure(given.state, given.rounds, given.device)
        return
    print(f"{machine()}, torch {torch.__version__} with {torch.get_num_threads()} threads, {given.device}\n")
    header = ("malloc", "step", "ours, ms", "SparseAdam, ms", "AdamW(fused), ms", "SparseAdam / ours", "AdamW / ours")
    print(markdown_row(*header, "gradient memory, ours of dense"))
    print(markdown_row(*["---"] * 8), flush=True)
    for state, pages in (("as it starts", "0"), ("large pages", "1")):
        command = [sys.executable, __file__, "--state", state, "--rounds", str(given.rounds), "--device", given.device]
        subprocess.run(command, check=True, env={**os.environ, "THP_MEM_ALLOC_ENABLE": pages})


if __name__ == "__main__":
    main()
