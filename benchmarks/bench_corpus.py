"""Text on disk to a published corpus: `build_corpus` beside the usual way with tiktoken.

    python benchmarks/bench_corpus.py [--threads N] [FILE ...]

The usual way is that of nanoGPT's `prepare.py` and of most notebooks: read a document, encode it
into a list with `encode_ordinary`, append the end-of-text token, and at the end copy all lists into
a uint16 memory map and flush it. `build_corpus` writes the same ids, and besides the index, the
tokenizer and a manifest with checksums, brought to the disk: some 0.1 s that a small text pays too.

Texts are the standard library's sources as JSON Lines (a file a document) and the files given. The
two ways take turns in changing order, each timing in a process of its own, so that neither has seen
the text before; before it is timed, each encodes one sentence many times over, by which it starts
its engine and works out what it does once for a vocabulary. The ids must be equal. Prints one row
of a Markdown table a text: medians of MB/s, and the median of the ratios of neighbours.
"""

import argparse
import datetime
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

REPETITIONS = 5
WARM_UP = "The encoder starts on this sentence. " * 100_000
END_OF_TEXT = 50256
TIKTOKENS_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


def write_standard_library(path: Path) -> Path:
    """The standard library's sources, a JSON line each."""
    root = Path(sysconfig.get_path("stdlib"))
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for source in sorted(root.rglob("*.py")):
            if "site-packages" not in source.parts:
                file.write(json.dumps({"text": source.read_text(encoding="utf-8", errors="replace")}) + "\n")
    return path


def usual_way(source: Path, out: Path) -> float:
    """Lists of ids, then a memory map; gives the seconds."""
    import numpy as np
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    from tokenspace.tokenizer import gpt2

    folder = gpt2.data_folder()
    ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
    special = {gpt2.END_OF_TEXT: END_OF_TEXT}
    encoding = tiktoken.Encoding("gpt2", pat_str=TIKTOKENS_PATTERN, mergeable_ranks=ranks, special_tokens=special)
    encoding.encode_ordinary(WARM_UP)

    begin = time.perf_counter()
    if source.suffix == ".jsonl":
        with source.open(encoding="utf-8") as file:
            documents = [json.loads(line)["text"] for line in file]
    else:
        documents = [source.read_text(encoding="utf-8")]
    lists = [[*encoding.encode_ordinary(document), END_OF_TEXT] for document in documents]
    out.mkdir()
    tokens = np.memmap(out / "train-00000.bin", dtype=np.uint16, mode="w+", shape=(sum(map(len, lists)),))
    start = 0
    for ids in lists:
        tokens[start : start + len(ids)] = ids
        start += len(ids)
    tokens.flush()
    return time.perf_counter() - begin


def own_way(source: Path, out: Path) -> float:
    """`build_corpus`; gives the seconds."""
    from tokenspace.corpus import build_corpus
    from tokenspace.text import read_documents, read_strings
    from tokenspace.tokenizer import Tokenizer

    tokenizer = Tokenizer.gpt2()
    build_corpus(read_strings([WARM_UP]), tokenizer, out.with_name("warm-up"))
    begin = time.perf_counter()
    build_corpus(read_documents([source]), tokenizer, out, validation_fraction=0)
    return time.perf_counter() - begin


WAYS = {"own": own_way, "usual": usual_way}


def timed(way: str, source: Path, threads: int) -> tuple[float, str]:
    """Seconds and digest of the ids, from a process of its own."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        command = [sys.executable, __file__, "--way", way, "--out", str(Path(folder, "out")), str(source)]
        environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
        found = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return float(found.stdout), hashlib.sha256(Path(folder, "out", "train-00000.bin").read_bytes()).hexdigest()


def row(source: Path, threads: int) -> str:
    """One line of the table."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(REPETITIONS):
        digests = set()
        for way in sorted(WAYS, reverse=bool(number % 2)):
            took, digest = timed(way, source, threads)
            seconds[way].append(took)
            digests.add(digest)
        assert len(digests) == 1, f"other ids on {source}"
    size = source.stat().st_size / 1e6
    own, usual = (f"{size / statistics.median(seconds[way]):.1f}" for way in WAYS)
    ratio = statistics.median(theirs / ours for ours, theirs in zip(seconds["own"], seconds["usual"], strict=True))
    return f"| {source.name} | {size:.2f} | {own} | {usual} | {ratio:.1f}× |"


def main() -> None:
    """Print the machine and the table, or, as a process of its own, one timing."""
    parser = argparse.ArgumentParser(description="Text on disk to a published corpus, beside tiktoken.")
    parser.add_argument("--threads", type=int, default=1, help="of build_corpus's encoder; the usual way has one")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("files", nargs="*", type=Path, help="plain text or JSON Lines, UTF-8")
    settings = parser.parse_args()
    if settings.way:
        print(WAYS[settings.way](settings.files[0], settings.out))
        return
    print(f"{datetime.date.today()}, {platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"threads of build_corpus: {settings.threads}; of the usual way: 1; the same ids\n")
    print("| text | MB | `build_corpus` MB/s | tiktoken, lists, memmap MB/s | ratio |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        library = write_standard_library(Path(folder, "standard-library.jsonl"))
        for source in [library, *settings.files]:
            print(row(source, settings.threads), flush=True)


if __name__ == "__main__":
    main()
