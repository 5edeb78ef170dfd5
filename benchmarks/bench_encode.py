"""Text to GPT-2 ids in numpy, one thread: `Tokenizer.encode_batch` beside tiktoken.

    python benchmarks/bench_encode.py [FILE ...]

Texts are the standard library's sources, its reference topics, and the files given. Each is cut
into documents of some 4,000 characters at line ends, and these are dealt to seven parts, so that
every timing sees text that neither encoder has seen before. On each part the encoders take turns in
changing order. The ids must be equal. fastokens remembers words, and a long text repeats them: the
first part (a fresh encoder, nothing remembered) is shown apart, as `cold`; the rest are medians of
MB/s, and the median of the ratios to `encode_ordinary` within a part. Each text gets fresh encoders.

It does not time the building of the encoders, nor reading the files.
"""

import datetime
import os
import pathlib
import platform
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator

os.environ["RAYON_NUM_THREADS"] = "1"  # read by the encoder when it starts its threads

import numpy as np
import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from tokenspace.tokenizer import Tokenizer, gpt2

DOCUMENT_LENGTH = 4000
NUM_PARTS = 7
TIKTOKENS_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

Encoder = Callable[[list[str]], np.ndarray | list[list[int]]]


def standard_library_texts() -> dict[str, str]:
    """What every CPython carries: much code, and some 465,000 characters of English."""
    from pydoc_data import topics

    folder = pathlib.Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "test", "tests", "pydoc_data"}
    sources = [path for path in sorted(folder.rglob("*.py")) if not skipped & set(path.relative_to(folder).parts)]
    return {
        "standard library, sources": "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in sources),
        "standard library, reference topics": "\n".join(topics.topics.values()),
    }


def documents(text: str) -> Iterator[str]:
    """The text in pieces of whole lines, each of at least some 4,000 characters."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + DOCUMENT_LENGTH) + 1 or len(text)
        yield text[start:end]
        start = end


def tiktoken_gpt2() -> tiktoken.Encoding:
    """GPT-2 by tiktoken, from the same files, so that nothing is downloaded."""
    folder = gpt2.data_folder()
    return tiktoken.Encoding(
        name="gpt2",
        pat_str=TIKTOKENS_PATTERN,
        mergeable_ranks=data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json")),
        special_tokens={gpt2.END_OF_TEXT: 50256},
    )


def seconds(encode: Encoder, part: list[str]) -> tuple[float, np.ndarray]:
    """The time one encoder takes for a part, and its ids."""
    begin = time.perf_counter()
    ids = encode(part)
    took = time.perf_counter() - begin
    return took, ids if isinstance(ids, np.ndarray) else np.concatenate([np.array(one, np.uint32) for one in ids])


def fresh_encoders() -> dict[str, Encoder]:
    """The encoders, built and with nothing remembered."""
    own, reference = Tokenizer.gpt2(), tiktoken_gpt2()
    assert own.engine  # builds it
    return {
        "encode_batch": lambda part: own.encode_batch(part)[0],
        "encode_ordinary": lambda part: [reference.encode_ordinary(document) for document in part],
        "encode_to_numpy": lambda part: np.concatenate(
            [reference.encode_to_numpy(document, disallowed_special=()) for document in part]
        ),
    }


def row(name: str, text: str) -> str:
    """One line of the table."""
    encoders = fresh_encoders()
    every = list(documents(text))
    speeds: dict[str, list[float]] = {encoder: [] for encoder in encoders}
    for number in range(NUM_PARTS):
        part = every[number::NUM_PARTS]
        megabytes = sum(len(document.encode()) for document in part) / 1e6
        order = sorted(encoders, reverse=bool(number % 2))
        results = {encoder: seconds(encoders[encoder], part) for encoder in order}
        expected = results["encode_ordinary"][1]
        assert all(np.array_equal(ids, expected) for _, ids in results.values()), f"other ids on {name}"
        for encoder, (took, _) in results.items():
            speeds[encoder].append(megabytes / took)
    shown = [f"{statistics.median(speeds[encoder][1:]):.1f}" for encoder in encoders]
    pairs = zip(speeds["encode_batch"], speeds["encode_ordinary"], strict=True)
    cold, *warm = (own / other for own, other in pairs)
    megabytes = len(text.encode()) / 1e6
    return f"| {name} | {megabytes:.2f} | {' | '.join(shown)} | {statistics.median(warm):.1f}× | {cold:.1f}× |"


def main(files: list[str]) -> None:
    """Print the machine, the engine and the table."""
    print(f"{datetime.date.today()}, {platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{Tokenizer.gpt2().engine}; tiktoken {tiktoken.__version__}; one thread\n")
    print("| text | MB | tokenspace, MB/s | tiktoken `encode_ordinary` | tiktoken `encode_to_numpy` | ratio | cold |")
    print("|---|---|---|---|---|---|---|")
    given = {pathlib.Path(file).name: pathlib.Path(file).read_text(encoding="utf-8") for file in files}
    for name, text in (standard_library_texts() | given).items():
        print(row(name, text), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
