"""Opening, first batch, resuming, and shuffled windows beside nanoGPT's way and litdata's `TokensLoader`.

    python benchmarks/bench_loading.py [--tokens N] [--rounds N]

Shuffled windows: 1,024 tokens, batches of 8, each batch asked for and dropped, the ways taking turns.
nanoGPT's way is a memory map opened anew for each batch, random starts, a slice and a cast a window,
two stacks. litdata (left out where it is not installed) streams its own optimised copy of the same ids,
shuffled. The first batch, and the growth of resident memory until it is there, are those of a fresh
process, imports done before; the corpus of a billion ids is a sparse file, and so are 4,000 shards.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from timing import machine, markdown_row, medians
from tokenspace.corpus import Corpus
from tokenspace.corpus.format import index_bytes
from tokenspace.corpus.manifest import BLOCK_BYTES, Manifest, Shard, Split, TokenizerStamp
from tokenspace.loader import WindowLoader
from tokenspace.tokenizer import TokenStatistics

UINT16 = np.dtype("<u2")
T, B = 1024, 8
FIRST = """
import resource, sys, time
from tokenspace import Corpus, WindowLoader
import torch
def resident(): return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before, started = resident(), time.perf_counter()
loader = WindowLoader(Corpus.open(sys.argv[1]), 8, 1024, int(sys.argv[2]), seed=0, documents=bool(int(sys.argv[3])))
next(iter(loader))
print(time.perf_counter() - started, resident() - before)
"""


def holes(folder: Path, num_shards: int, tokens_a_shard: int) -> Path:
    """A corpus of zeros that takes no room on the disk; a document every 500 ids."""
    folder.mkdir()
    shards = []
    for number in range(num_shards):
        name = f"train-{number:05d}"
        index = index_bytes(np.full(tokens_a_shard // 500, 500, np.int64), UINT16)
        (folder / f"{name}.idx").write_bytes(index)
        size = tokens_a_shard // 500 * 500 * 2
        with (folder / f"{name}.bin").open("wb") as file:
            file.truncate(size)
        crcs = ("00000000",) * -(-size // BLOCK_BYTES)
        crc = f"{zlib.crc32(index):08x}"
        shards.append(Shard(name, size // 2, tokens_a_shard // 500, size, len(index), crc, crcs))
    manifest = Manifest(
        tokenizer=TokenizerStamp("0" * 64, "none", 50257, None),
        end_of_text="none",
        dtype="uint16",
        validation_fraction=0,
        seed=0,
        splits={"train": Split.of(shards, 0)},
        num_sources=1,
        text_bytes=0,
        statistics=TokenStatistics(),
    )
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return folder


def batches_of(make: Callable[[], Iterator], number: int) -> Callable[[], None]:
    """Take so many batches from where the last call stopped, beginning anew at the end."""
    state = {"batches": make()}

    def take() -> None:
        for _ in range(number):
            if next(state["batches"], None) is None:
                state["batches"] = make()

    return take


def nanogpt(path: Path) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches in nanoGPT's way."""
    while True:
        data = np.memmap(path, dtype=np.uint16, mode="r")
        starts = torch.randint(len(data) - T, (B,))
        x = torch.stack([torch.from_numpy(data[i : i + T].astype(np.int64)) for i in starts])
        y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + T].astype(np.int64)) for i in starts])
        yield x, y


def litdata(path: Path, folder: Path) -> Callable[[], Iterator] | None:
    """Batches of litdata's loader over a copy of the ids in its own form; None where it is not installed."""
    try:
        from litdata import StreamingDataLoader, StreamingDataset, TokensLoader, optimize
    except ImportError:
        return None
    ids = torch.from_numpy(np.fromfile(path, np.uint16).astype(np.int64))
    optimize(
        _itself,
        list(ids.split(1 << 20)),
        str(folder),
        chunk_size=T * 8192,
        item_loader=TokensLoader(),
        num_workers=1,
    )

    def make() -> Iterator:
        dataset = StreamingDataset(str(folder), item_loader=TokensLoader(block_size=T + 1), shuffle=True)
        return iter(StreamingDataLoader(dataset, batch_size=B, num_workers=0))

    return make


def _itself(part: torch.Tensor) -> Iterator[torch.Tensor]:
    yield part


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print(machine(), end="\n\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shuffled(folder, arguments.tokens, arguments.rounds)
        first_batches(folder)
        resuming(folder, arguments.rounds)


def shuffled(folder: Path, num_tokens: int, rounds: int) -> None:
    """Windows of 1,024, batches of 8."""
    path = holes(folder / "ids", 1, num_tokens)
    ids = np.random.default_rng(0).integers(0, 50257, num_tokens).astype(UINT16)
    (path / "train-00000.bin").write_bytes(ids.tobytes()[: os.path.getsize(path / "train-00000.bin")])  # noqa: PTH202
    loader = WindowLoader(Corpus.open(path), B, T, T, seed=0)
    number = 400
    ways = {"WindowLoader": batches_of(lambda: iter(loader), number)}
    ways["nanoGPT"] = batches_of(lambda: nanogpt(path / "train-00000.bin"), number)
    theirs = litdata(path / "train-00000.bin", folder / "litdata")
    if theirs:
        ways["litdata"] = batches_of(theirs, number)
    found = medians(ways, rounds)
    print(markdown_row("shuffled windows of 1,024, batches of 8", "million tokens/s", "ours is faster"))
    print("|---|---|---|")
    for way, seconds in found.items():
        print(markdown_row(way, number * B * T / seconds / 1e6, f"{seconds / found['WindowLoader']:.1f}"))
    print()


def first_batches(folder: Path) -> None:
    """From opening to the first batch, in a process of its own."""
    print(markdown_row("from opening to the first batch", "seconds", "MiB"))
    print("|---|---|---|")
    for title, shards, tokens in (("1 shard, 10^9 ids", 1, 10**9), ("4,000 shards, 10^9 ids", 4000, 250_000)):
        corpus = holes(folder / f"holes-{shards}", shards, tokens)
        for documents in (0, 1):
            command = [sys.executable, "-c", FIRST, str(corpus), "1024", str(documents)]
            runs = [
                subprocess.run(command, capture_output=True, check=True, text=True).stdout.split() for _ in range(7)
            ]
            seconds, memory = (statistics.median(float(run[side]) for run in runs) for side in range(2))
            told = ", documents told apart" if documents else ""
            print(markdown_row(title + told, f"{seconds:.3f}", f"{memory / 2**20:.0f}"))
    print()


def resuming(folder: Path, rounds: int) -> None:
    """From a state to the batch after it, with a stride of 1 over a billion ids."""
    corpus = Corpus.open(folder / "holes-1")

    def resume(consumed: int) -> Callable[[], None]:
        state = WindowLoader(corpus, B, T, 1, seed=0).state_dict()
        state = {**state, "seed": 0, "windows_consumed": consumed}

        def go() -> None:
            loader = WindowLoader(corpus, B, T, 1, seed=0)
            loader.load_state_dict(state)
            batches = iter(loader)
            next(batches)
            batches.close()

        return go

    found = medians({"0": resume(0), "999,990,000": resume(999_990_000)}, rounds)
    print(markdown_row("resume at window", "ms", "of 0"))
    print("|---|---|---|")
    for at, seconds in found.items():
        print(markdown_row(at, seconds * 1e3, f"{seconds / found['0']:.2f}"))


if __name__ == "__main__":
    main()
