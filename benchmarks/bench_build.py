"""Text to a published corpus with two workers: `corpus build` beside nanoGPT's way, datatrove, and fastokens alone.

    pip install datasets "datatrove[processing]" orjson tiktoken
    python benchmarks/bench_build.py [--megabytes 64] [--large 1000]

The text is the Python sources of the installed packages as two JSON Lines files, a file a document, but for those that
name the end-of-text token, which datatrove would take for it.
Each way reads them, encodes with GPT-2's vocabulary, ends each document with end-of-text and leaves
uint16 ids on disk; the ids must be equal, digest for digest:

- build: `build_planned`, two workers; plan, checksums, index, sidecar, fsync and manifest included
- nanoGPT: datasets' `map` with two processes over tiktoken, then a memory map filled in 1,024 parts
- datatrove: JsonlReader and DocumentTokenizer, two local tasks; nothing is merged afterwards
- fastokens: the same documents already in memory, all threads, nothing written

The ways take turns in changing order, each in a process of its own, timed after its imports. Prints one
row a way: medians of MB/s, and the median of the ratios of neighbours. Then build and fastokens alone, and the
peak memory of the build's processes, for this text and for one of `--large` MB.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPETITIONS = 5
END_OF_TEXT = 50256
TIKTOKENS_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


def write_sources(folder: Path, megabytes: float) -> None:
    """The Python sources on the search path, over and over until there is enough, in two JSON Lines files."""
    sources = sorted(path for entry in map(Path, sys.path) if entry.is_dir() for path in entry.rglob("*.py"))
    folder.mkdir()
    written = 0
    with (folder / "0.jsonl").open("w") as first, (folder / "1.jsonl").open("w") as second:
        while written < megabytes * 1e6:
            for path in sources:
                text = path.read_text(encoding="utf-8", errors="replace")
                if (
                    text and "<|endoftext|>" not in text and written < megabytes * 1e6
                ):  # datatrove reads that as the token
                    half = first if written < megabytes * 5e5 else second
                    written += half.write(json.dumps({"text": text}) + "\n")


def build(folder: Path, out: Path) -> float:
    """The verb's own way."""
    from tokenspace.corpus import BuildSettings, build_planned

    begin = time.perf_counter()
    build_planned([folder], "gpt2", out, BuildSettings(validation_fraction=0), workers=2)
    return time.perf_counter() - begin


def nanogpt(folder: Path, out: Path) -> float:
    """Lists of ids through datasets' cache, then a memory map."""
    import datasets
    import numpy as np
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    from tokenspace.tokenizer import gpt2

    datasets.disable_progress_bars()
    vocabulary = gpt2.data_folder()
    ranks = data_gym_to_mergeable_bpe_ranks(str(vocabulary / "vocab.bpe"), str(vocabulary / "encoder.json"))
    special = {gpt2.END_OF_TEXT: END_OF_TEXT}
    encoding = tiktoken.Encoding("gpt2", pat_str=TIKTOKENS_PATTERN, mergeable_ranks=ranks, special_tokens=special)

    def encode(example: dict) -> dict:
        ids = [*encoding.encode_ordinary(example["text"]), END_OF_TEXT]
        return {"ids": ids, "len": len(ids)}

    begin = time.perf_counter()
    files = [str(path) for path in sorted(folder.iterdir())]
    texts = datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(out / "cache"))
    encoded = texts.map(encode, remove_columns=["text"], num_proc=2)
    tokens = np.memmap(out / "train.bin", dtype=np.uint16, mode="w+", shape=(int(np.sum(encoded["len"])),))
    start = 0
    parts = min(1024, len(encoded))
    for index in range(parts):
        batch = encoded.shard(num_shards=parts, index=index, contiguous=True).with_format("numpy")
        ids = np.concatenate(batch["ids"])
        tokens[start : start + len(ids)] = ids
        start += len(ids)
    tokens.flush()
    return time.perf_counter() - begin


def datatrove(folder: Path, out: Path) -> float:
    """A reader and a tokenizer as two local tasks."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    from tokenspace import Tokenizer

    Tokenizer.gpt2().save(out / "tokenizer.json")
    settings = {"tokenizer_name_or_path": str(out / "tokenizer.json"), "eos_token": "<|endoftext|>"}
    pipeline = [
        JsonlReader(str(folder)),
        DocumentTokenizer(str(out / "ids"), local_working_dir=None, shuffle_documents=False, **settings),
    ]
    begin = time.perf_counter()
    LocalPipelineExecutor(pipeline, tasks=2, workers=2, logging_dir=str(out / "logs")).run()
    return time.perf_counter() - begin


def fastokens(folder: Path, out: Path) -> float:
    """The encoder alone, on texts in memory."""
    import fastokens
    import numpy as np

    from tokenspace import Tokenizer

    encoder = fastokens.Tokenizer.from_json_str(Tokenizer.gpt2().to_json())
    lines = [line for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]
    texts = [json.loads(line)["text"] for line in lines]
    begin = time.perf_counter()
    batches = [
        encoder.encode_batch_flat(texts[start : start + 256], split_special_tokens=True)
        for start in range(0, len(texts), 256)
    ]
    took = time.perf_counter() - begin
    with (out / "ids.bin").open("wb") as file:
        for data, offsets in batches:
            ids, bounds = np.frombuffer(data, "<u4").astype(np.uint16), np.frombuffer(offsets, "<u8").astype(np.int64)
            np.insert(ids, bounds[1:], END_OF_TEXT).tofile(file)
    return took


WAYS = {"build": build, "nanogpt": nanogpt, "datatrove": datatrove, "fastokens": fastokens}
IDS = {"build": "train-*.bin", "nanogpt": "train.bin", "datatrove": "ids/*.ds", "fastokens": "ids.bin"}


def measured(way: str, folder: Path) -> tuple[float, str, float, float]:
    """Seconds, digest of the ids, and the peak MB of the process and of its largest child."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as out:
        command = [sys.executable, __file__, "--way", way, "--out", out, str(folder)]
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        found = subprocess.run(command, env=environment, capture_output=True, text=True)
        if found.returncode:
            sys.exit(f"{way}: {found.stderr.strip().splitlines()[-1]}")
        seconds, own, child = map(float, found.stdout.split()[-3:])
        digest = hashlib.sha256()
        for path in sorted(Path(out).glob("corpus/" + IDS[way] if way == "build" else IDS[way])):
            digest.update(path.read_bytes())
        return seconds, digest.hexdigest(), own, child


def size_of(folder: Path) -> float:
    """MB."""
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


def compare(folder: Path) -> None:
    """The table of speeds."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(REPETITIONS):
        digests = set()
        for way in sorted(WAYS, reverse=bool(number % 2)):
            took, digest, *_ = measured(way, folder)
            seconds[way].append(took)
            digests.add(digest)
        assert len(digests) == 1, "other ids"
    print(f"{size_of(folder):.0f} MB of Python sources; two workers; the same ids\n")
    print("| way | MB/s | build is so many times as fast |\n|---|---|---|")
    for way, times in seconds.items():
        ratio = statistics.median(theirs / ours for ours, theirs in zip(seconds["build"], times, strict=True))
        print(f"| {way} | {size_of(folder) / statistics.median(times):.1f} | {ratio:.2f} |", flush=True)


def compare_alone(folder: Path) -> None:
    """A row: build, fastokens alone, and the build's memory."""
    builds, alone = [], []
    for _ in range(REPETITIONS):
        builds.append(measured("build", folder))
        alone.append(measured("fastokens", folder)[0])
    share = statistics.median(theirs / ours for (ours, *_), theirs in zip(builds, alone, strict=True))
    speeds = [size_of(folder) / statistics.median(times) for times in ([took for took, *_ in builds], alone)]
    driver, worker = (max(build[place] for build in builds) for place in (2, 3))
    shown = f"{speeds[0]:.1f} | {speeds[1]:.1f} | {share:.2f} | {driver:.0f} | {worker:.0f}"
    print(f"| {size_of(folder):.0f} | {shown} |", flush=True)


def main() -> None:
    """Print the machine and the tables, or, as a process of its own, one timing and its memory."""
    parser = argparse.ArgumentParser(description="Text on disk to a published corpus, two workers.")
    parser.add_argument("--megabytes", type=float, default=64)
    parser.add_argument("--large", type=float, default=1000, help="MB of text whose build's memory is measured")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("folder", nargs="?", type=Path, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.way:
        import resource

        seconds = WAYS[settings.way](settings.folder, settings.out / ("corpus" if settings.way == "build" else ""))
        peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        print(seconds, *peaks)
        return
    from timing import machine  # with torch, which no way needs; it would slow down Python's collector

    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write_sources(Path(folder, "text"), settings.megabytes)
        compare(Path(folder, "text"))
        print("\n| MB of text | build, MB/s | fastokens alone | share | peak MB of the driver | of the other worker |")
        print("|---|---|---|---|---|---|")
        write_sources(Path(folder, "large"), settings.large)
        for name in ("text", "large"):
            compare_alone(Path(folder, name))


if __name__ == "__main__":
    main()
