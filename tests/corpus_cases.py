"""What the tests of corpus building share: a small text in several files, and how to compare what came out."""

import hashlib
import json
import random
from pathlib import Path

from tokenspace.corpus import BuildSettings, plan_corpus
from tokenspace.tokenizer import Tokenizer

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "slept",
    "on",
    "by",
    "near",
    "mat",
    "door",
    "log",
    "and",
    "but",
    "then",
    "बिल्ली",
    "चटाई",
    "पर",
    "बैठी",
]
SETTINGS = BuildSettings(validation_fraction=0.1, shard_bytes=30_000, id_field="meta.id")


def sentences(seed: int, count: int) -> str:
    """Some text, always the same."""
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(count))


def write_text(folder: Path, size: int = 1) -> Path:
    """A folder with a long plain text, many short documents, and empty ones."""
    folder.mkdir()
    (folder / "long.txt").write_text(sentences(1, 20_000 * size), encoding="utf-8")
    for part in range(2):
        rows = [
            {"text": sentences(100 * part + row, row % 40), "meta": {"id": f"{part}-{row}"}}
            for row in range(300 * size)
        ]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"part{part}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "short.md").write_text("a cat", encoding="utf-8")
    return folder


def write_tokenizer(path: Path) -> Path:
    """A small vocabulary."""
    Tokenizer.train([sentences(7, 3000)], 300).save(path)
    return path


def planned(text: Path, tokenizer: Path, out, *, task_bytes: int = 20_000, settings: BuildSettings = SETTINGS):
    """A job of some ten tasks."""
    return plan_corpus([text], str(tokenizer), out, settings, task_bytes=task_bytes)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, hidden ones too."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
