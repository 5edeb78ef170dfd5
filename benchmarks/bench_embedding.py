"""`InputEmbedding` beside ``tok(ids) + pos(arange)`` in eager torch, and beside copying the output.

    python benchmarks/bench_embedding.py [--rounds N]

50,257 × 768 table, 8 × 1024 ids that follow Zipf's law, learned positions. The output is 25 MB, and what
the forward passes cost depends above all on whether the allocator gives such blocks back to the system and
must fetch fresh pages every time, or keeps them. So everything is measured in fresh processes: as the
process starts by default, with every large block given back, and with every block kept (glibc's
MALLOC_* variables; elsewhere the three differ by nothing). By default glibc keeps one block of this size
and gives back two, so that eager torch, which needs two, may fall in either state. In each, the forward
is timed without gradients, with them, and within training steps, where the backward pass comes between.
Outputs must be equal, bit for bit. On cores that others use too, OMP_NUM_THREADS=1 gives steadier numbers.

It does not time the range check of the ids apart (it is part of `InputEmbedding`), nor the rest of a model.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from timing import machine, markdown_row, medians
from tokenspace import positions
from tokenspace.embedding import InputEmbedding, TokenEmbedding

VOCAB_SIZE, D_MODEL, BATCH, LENGTH = 50_257, 768, 8, 1024
ALLOCATORS = {
    "as it starts": {},
    "blocks go back": {"MALLOC_MMAP_THRESHOLD_": str(128 * 2**10)},
    "blocks are kept": {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)},
}


def zipf_ids() -> Tensor:
    """Ids whose frequency falls as one over their rank."""
    generator = torch.Generator().manual_seed(0)
    weights = 1.0 / torch.arange(1, VOCAB_SIZE + 1)
    ids = torch.multinomial(weights, BATCH * LENGTH, replacement=True, generator=generator)
    return torch.randperm(VOCAB_SIZE, generator=generator)[ids].view(BATCH, LENGTH)


def build() -> tuple[InputEmbedding, Callable[[], Tensor], Callable[[], Tensor]]:
    """Ours, and both forward passes over the same tables."""
    torch.manual_seed(0)
    ids = zipf_ids()
    scheme = positions.get("learned", num_positions=LENGTH, d_model=D_MODEL)
    ours = InputEmbedding(TokenEmbedding(VOCAB_SIZE, D_MODEL), scheme)
    token, position = nn.Embedding(VOCAB_SIZE, D_MODEL), nn.Embedding(LENGTH, D_MODEL)
    token.weight, position.weight = ours.token.weight, ours.position.weight

    def eager() -> Tensor:
        return token(ids) + position(torch.arange(LENGTH))

    assert torch.equal(ours(ids), eager())
    return ours, lambda: ours(ids), eager


def forward_alone(rounds: int, with_grad: bool) -> dict[str, float]:
    """Milliseconds of each forward pass, and of two ways to copy its output."""
    _, ours, eager = build()
    output = eager().detach()
    kept = torch.empty_like(output)
    functions = {"eager": eager, "ours": ours, "clone": output.clone, "copy": lambda: kept.copy_(output)}
    with torch.set_grad_enabled(with_grad):
        return {name: 1e3 * seconds for name, seconds in medians(functions, rounds).items()}


def forward_in_training(rounds: int) -> dict[str, float]:
    """Milliseconds of the forward pass within a step of forward and backward, and of the whole step."""
    model, ours, eager = build()
    gradient = torch.randn(BATCH, LENGTH, D_MODEL)
    functions = {"eager": eager, "ours": ours}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for number in range(rounds):
        for name in sorted(functions, reverse=bool(number % 2)):
            model.zero_grad(set_to_none=True)
            begin = time.perf_counter()
            output = functions[name]()
            forward = time.perf_counter() - begin
            output.backward(gradient)
            times[name].append((1e3 * forward, 1e3 * (time.perf_counter() - begin)))
    kept = torch.empty_like(gradient)
    copies = {"clone": gradient.clone, "copy": lambda: kept.copy_(gradient)}
    result = {name: 1e3 * seconds for name, seconds in medians(copies, rounds).items()}
    for name, pairs in times.items():
        result[name], result[f"{name} step"] = (statistics.median(column) for column in zip(*pairs[2:], strict=True))
    return result


def in_fresh_process(what: str, rounds: int, environment: dict[str, str]) -> dict[str, float]:
    """The result of one worker."""
    command = [sys.executable, __file__, "--worker", what, "--rounds", str(rounds)]
    done = subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def work(what: str, rounds: int) -> dict[str, float]:
    """What a fresh process measures."""
    if what == "training":
        return forward_in_training(max(rounds // 4, 8))
    return forward_alone(rounds, with_grad=what == "grad")


def main(rounds: int) -> None:
    """Print the machine and the table."""
    print(f"{machine()}\n")
    print(markdown_row("allocator", "state", "eager, ms", "ours, ms", "ours / eager", "`clone`, ms", "ours / `clone`",
                       "`copy_`, ms", "ours / `copy_`", "step, eager, ms", "step, ours, ms"))  # fmt: skip
    print(markdown_row(*["---"] * 11))
    for allocator, environment in ALLOCATORS.items():
        for what, state in {"no_grad": "no_grad", "grad": "with grad", "training": "within training steps"}.items():
            ms = in_fresh_process(what, rounds, environment)
            steps = [ms.get("eager step", "–"), ms.get("ours step", "–")]
            clone, copy = ms["ours"] / ms["clone"], ms["ours"] / ms["copy"]
            print(markdown_row(allocator, state, ms["eager"], ms["ours"], ms["ours"] / ms["eager"],
                               ms["clone"], clone, ms["copy"], copy, *steps), flush=True)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(work(arguments.worker, arguments.rounds)))
    else:
        main(arguments.rounds)
