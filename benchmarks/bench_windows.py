"""Windows as tensors: `WindowLoader` beside the book's `create_dataloader_v1`, over the same ids.

    python benchmarks/bench_windows.py [--tokens N] [--repetitions N]

The book's loader is that of the PyPI package `llms-from-scratch` (install it with `--no-deps`): a pair
of tensors a window, made beforehand and collated by torch. Making them is not timed, nor is opening
the corpus; timed are whole epochs, shuffled, each batch asked for and dropped. `WindowLoader` reads
once from a published corpus (memory-mapped) and once from an array; it gathers in a thread of its own,
so the processor time of all threads is given beside the clock. The ways take turns in changing order.
Unshuffled, all three must give the same tensors.

Memory is what a fresh process holds of its own (Linux: RssAnon, without mapped files), at its most
while it takes 2,000 batches, beyond what it held before the loader was made. The stream of that
measurement is a sparse file. Prints Markdown tables.
"""

import argparse
import contextlib
import datetime
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from tokenspace.corpus import Corpus, build_corpus
from tokenspace.corpus.format import gather_windows
from tokenspace.loader import TokenArray, WindowLoader
from tokenspace.text import Piece
from tokenspace.tokenizer import Tokenizer

try:
    from llms_from_scratch.ch02 import GPTDatasetV1
except ImportError:
    sys.exit("The book's loader is missing: pip install --no-deps llms-from-scratch")

SHAPES = ((4, 8, 4), (256, 8, 128), (1024, 8, 1024))  # context_length, batch_size, stride
SECONDS_A_TIMING = 0.3
BATCHES_FOR_MEMORY = 2_000
SPARSE_TOKENS = (10_000_000, 100_000_000, 1_000_000_000)
Loader = Iterable[tuple[torch.Tensor, torch.Tensor]]


class GivenIds:
    """What the book's dataset takes for a tokenizer: its `encode` gives ids that exist already."""

    def __init__(self, ids: np.ndarray) -> None:
        self._ids = ids

    def encode(self, text: str, allowed_special: set[str]) -> list[int]:
        """The ids, whatever the text."""
        return self._ids.tolist()


class SparseFile:
    """A stream of zeros as long as one likes, mapped from a file that takes no room."""

    max_id, identity = 0, "sparse"

    def __init__(self, path: Path, num_tokens: int) -> None:
        with path.open("wb") as file:
            file.truncate(2 * num_tokens)
        self.num_tokens = num_tokens
        self._ids = np.memmap(path, dtype=np.uint16, mode="r")

    def gather(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Windows of `length` ids that begin at `starts`."""
        return gather_windows(self._ids, starts, length)


def book_loader(ids: np.ndarray, shape: tuple[int, int, int], shuffle: bool = True) -> Loader:
    """What `create_dataloader_v1` returns, over ids instead of text."""
    context_length, batch_size, stride = shape
    dataset = GPTDatasetV1("", GivenIds(ids), context_length, stride)
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, drop_last=True, num_workers=0)


def own_loader(tokens: object, shape: tuple[int, int, int], shuffle: bool = True) -> Loader:
    """`WindowLoader` of the same shape."""
    context_length, batch_size, stride = shape
    return WindowLoader(tokens, batch_size, context_length, stride, shuffle=shuffle)


def library_corpus(folder: Path, num_tokens: int) -> Corpus:
    """The standard library's sources, until there are so many tokens."""

    def pieces() -> Iterable[Piece]:
        characters = 0
        for row, source in enumerate(sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))):
            if "site-packages" not in source.parts and characters < 4 * num_tokens:
                text = source.read_text(encoding="utf-8", errors="replace")
                characters += len(text)
                yield Piece(text, True, source.name, row)

    build_corpus(pieces(), Tokenizer.gpt2(), folder, validation_fraction=0.0)
    return Corpus.open(folder)


def time_epochs(loader: Loader, epochs: int) -> tuple[float, float]:
    """Tokens per second of the clock and per second of processor time."""
    tokens, clock, processor = 0, time.perf_counter(), time.process_time()
    for _ in range(epochs):
        for inputs, _targets in loader:
            tokens += inputs.numel()
    return tokens / (time.perf_counter() - clock), tokens / (time.process_time() - processor)


def check_same(ours: Loader, book: Loader) -> None:
    """End the benchmark where a batch is not the book's."""
    for (inputs, targets), (book_inputs, book_targets) in zip(ours, book, strict=True):
        if not (torch.equal(inputs, book_inputs) and torch.equal(targets, book_targets)):
            sys.exit("The batches differ from the book's")


def compare(corpus: Corpus, shape: tuple[int, int, int], repetitions: int) -> str:
    """One row of the table of speeds."""
    ids = corpus.tokens(0, corpus.num_tokens)
    for tokens in (corpus, TokenArray(ids)):
        check_same(own_loader(tokens, shape, shuffle=False), book_loader(ids, shape, shuffle=False))
    loaders = [book_loader(ids, shape), own_loader(corpus, shape), own_loader(TokenArray(ids), shape)]
    epochs = [max(1, round(SECONDS_A_TIMING / _seconds(lambda way=way: time_epochs(way, 1)))) for way in loaders]
    timings: list[list[tuple[float, float]]] = [[], [], []]
    for repetition in range(repetitions):
        for way in sorted(range(3), reverse=repetition % 2):
            timings[way].append(time_epochs(loaders[way], epochs[way]))
    book, corpus_speed, array_speed = (statistics.median(clock for clock, _ in way) / 1e6 for way in timings)

    def ratio(way: int, kind: int) -> float:
        return statistics.median(own[kind] / book[kind] for own, book in zip(timings[way], timings[0], strict=True))

    return (
        f"| {shape} | {book:.2f} | {corpus_speed:.2f} | **{ratio(1, 0):.1f}** | {ratio(1, 1):.1f} "
        f"| {array_speed:.2f} | **{ratio(2, 0):.1f}** | {ratio(2, 1):.1f} |"
    )


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def own_memory() -> int:
    """Bytes that are this process's alone, mapped files left out."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) << 10


def print_memory_growth(way: str, num_tokens: int) -> None:
    """In a fresh process: the most held while batches are taken, in MiB beyond the beginning."""
    shape = SHAPES[1]
    with tempfile.TemporaryDirectory() as folder:
        stream = SparseFile(Path(folder) / "stream.bin", num_tokens)
        warm_up = SparseFile(Path(folder) / "warm_up.bin", 100_000)  # threads and libraries start here
        for _ in own_loader(warm_up, shape):
            pass
        before = own_memory()
        loader = (
            own_loader(stream, shape)
            if way == "own"
            else book_loader(stream.gather(np.array([0]), num_tokens)[0], shape)
        )
        most = own_memory()
        with contextlib.closing(iter(loader)) if way == "own" else contextlib.nullcontext(iter(loader)) as batches:
            for number, _ in zip(range(BATCHES_FOR_MEMORY), batches, strict=False):
                if number % 10 == 0:
                    most = max(most, own_memory())
    print((most - before) / 2**20)


def memory_row(way: str, num_tokens: int) -> str:
    """One row of the table of memory."""
    command = [sys.executable, __file__, "--memory-of", way, "--tokens", str(num_tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    name = "`WindowLoader`" if way == "own" else "the book's"
    return f"| {name} | {num_tokens:,} | {float(done.stdout):,.1f} |"


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description="Windows as tensors, beside the book's loader.")
    parser.add_argument("--tokens", type=int, default=2_000_000)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--memory-of", choices=("own", "book"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        return print_memory_growth(options.memory_of, options.tokens)

    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, ", end="")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}\n")
    with tempfile.TemporaryDirectory() as folder:
        corpus = library_corpus(Path(folder) / "corpus", options.tokens)
        print(f"{corpus.num_tokens:,} tokens, shuffled, millions a second; (cpu): by processor time of all threads\n")
        print("| (length, batch, stride) | book | corpus | ratio | (cpu) | array | ratio | (cpu) |")
        print("|---|---|---|---|---|---|---|---|")
        for shape in SHAPES:
            print(compare(corpus, shape, options.repetitions), flush=True)
    if not Path("/proc/self/status").exists():
        return print("\nMemory is measured on Linux only.")
    print(f"\n| memory for {SHAPES[1]} | tokens of the stream | MiB |\n|---|---|---|")
    for way, num_tokens in [("book", 1_000_000), ("book", 4_000_000), *(("own", tokens) for tokens in SPARSE_TOKENS)]:
        print(memory_row(way, num_tokens), flush=True)
    return None


if __name__ == "__main__":
    main()
