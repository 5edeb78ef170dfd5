"""A corpus -> token files of nanoGPT, llm.c or Megatron-core.

Each block is checked against the manifest while it is copied, and nothing is linked: what is
done to the copy cannot reach the corpus. The folder appears whole or not at all.
"""

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from tokenspace.corpus.corpus import Corpus
from tokenspace.corpus.interchange.nanogpt import HEADER_BYTES, HEADERS
from tokenspace.corpus.manifest import BLOCK_BYTES, TOKENIZER_FILE, Shard
from tokenspace.errors import CorpusError, SettingError
from tokenspace.files import new_folder

Format = Literal["nanogpt", "llm.c", "megatron"]

_FILE_TOKENS = 100_000_000  # of an llm.c file; its readers hold one whole in memory
_SHORT = {"train": "train", "validation": "val"}


def export(
    corpus: str | Path, out: str | Path, *, format: Format, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write both parts of a corpus in the format of another tool.

    - nanogpt: `train.bin` and `val.bin`, raw ids of two bytes, and `meta.json`.
    - llm.c: `train_000000.bin` and so on, of 100 million ids at most, with the header that llm.c and
      modded-nanogpt read; ids of two bytes, or of four where the corpus has such.
    - megatron: `train-00000.bin` and `.idx` and so on, byte for byte what Megatron-core's builder
      writes; `train.txt`, `validation.txt` and `splits.json` name them with their numbers of tokens
      as weights, for `--data-args-path` and `--per-split-data-args-path`.

    All have a copy of `tokenizer.json`.

    Args:
        corpus: The corpus folder.
        out: Folder to make; must not exist.
        format: "nanogpt", "llm.c" or "megatron".
        progress: Called with the bytes done and in all.

    Returns:
        The new folder.

    Raises:
        SettingError: an argument breaks its rule, or something stands at `out`.
        CorpusError: the corpus is damaged, or its ids do not fit the format.
        DiskError: the disk is full; nothing is left behind.
    """
    if format not in get_args(Format):
        raise SettingError("format", f"be one of {', '.join(get_args(Format))}", format, "Name one of these")
    manifest = Corpus.open(corpus).manifest
    parts = [Corpus.open(corpus, split) for split in manifest.splits]
    reader = _BlockReader(Path(corpus), parts, progress)
    with new_folder(out := Path(out)) as folder:
        if format == "nanogpt":
            _write_nanogpt(folder, parts, reader)
        elif format == "llm.c":
            _write_llm_c(folder, parts, reader)
        else:
            _write_megatron(folder, out, parts, reader)
        (folder / TOKENIZER_FILE).write_bytes((Path(corpus) / TOKENIZER_FILE).read_bytes())
    return out


class _BlockReader:
    """The blocks of shards, each as it was written or not at all."""

    def __init__(self, path: Path, parts: list[Corpus], progress: Callable[[int, int], None] | None) -> None:
        self._path = path
        self._num_bytes = sum(shard.bin_bytes for part in parts for shard in shards_of(part))
        self._done = 0
        self._progress = progress

    def blocks(self, shard: Shard) -> Iterator[bytes]:
        path = self._path / f"{shard.name}.bin"
        with path.open("rb") as file:
            for nth, expected in enumerate(shard.block_crc32s):
                block = file.read(BLOCK_BYTES)
                _check(f"{path}, block {nth}", block, expected)
                self._done += len(block)
                if self._progress:
                    self._progress(self._done, self._num_bytes)
                yield block

    def ids(self, part: Corpus) -> Iterator[np.ndarray]:
        for shard in shards_of(part):
            for block in self.blocks(shard):
                yield np.frombuffer(block, part.dtype)

    def index(self, shard: Shard) -> bytes:
        path = self._path / f"{shard.name}.idx"
        data = path.read_bytes()
        _check(str(path), data, shard.idx_crc32)
        return data


def shards_of(part: Corpus) -> tuple[Shard, ...]:
    """The shards of a split, in order."""
    return part.manifest.splits[part.split].shards


def _check(name: str, data: bytes, expected: str) -> None:
    if (found := f"{zlib.crc32(data):08x}") != expected:
        raise CorpusError(name, f"have the checksum {expected}", found, "Build the corpus again; verify says more")


def _write_nanogpt(folder: Path, parts: list[Corpus], reader: _BlockReader) -> None:
    largest = max(part.max_id for part in parts)
    if largest > np.iinfo(np.uint16).max:
        rule = f"be at most {np.iinfo(np.uint16).max} for nanoGPT, whose ids have two bytes"
        raise CorpusError("largest id of the corpus", rule, largest, "Export it as llm.c or megatron: four bytes")
    for part in parts:
        with (folder / f"{_SHORT[part.split]}.bin").open("wb") as file:
            for ids in reader.ids(part):
                file.write(ids.astype("<u2").data)
    manifest = parts[0].manifest
    meta = {
        "vocab_size": manifest.tokenizer.vocab_size,
        "tokenizer": manifest.tokenizer.name,
        "tokenizer_sha256": manifest.tokenizer.identity,
        "eot_id": manifest.tokenizer.eot_id,
        "end_of_text": manifest.end_of_text,
        "dtype": "uint16",
        "tokens": {_SHORT[part.split]: part.num_tokens for part in parts},
    }
    (folder / "meta.json").write_bytes(_json(meta))


def _write_llm_c(folder: Path, parts: list[Corpus], reader: _BlockReader) -> None:
    dtype = np.dtype("<u2") if parts[0].dtype.itemsize == 2 else np.dtype("<u4")
    for part in parts:
        ids = reader.ids(part)
        rest = np.empty(0, dtype)
        for nth, start in enumerate(range(0, part.num_tokens, _FILE_TOKENS)):
            left = min(_FILE_TOKENS, part.num_tokens - start)
            header = np.zeros(HEADER_BYTES // 4, "<i4")
            header[:3] = *HEADERS[dtype], left
            with (folder / f"{_SHORT[part.split]}_{nth:06d}.bin").open("wb") as file:
                file.write(header.data)
                while left:
                    rest = rest if len(rest) else next(ids).astype(dtype)
                    file.write(rest[:left].data)
                    left, rest = left - len(rest[:left]), rest[left:]


def _write_megatron(folder: Path, out: Path, parts: list[Corpus], reader: _BlockReader) -> None:
    place = out.resolve()
    if any(character.isspace() for character in str(place)):
        raise SettingError("out", "hold no white space, where Megatron cuts its lists", str(place), "Give another path")
    blends: dict[str, list[str]] = {}
    for part in parts:
        blends[part.split] = []
        for shard in shards_of(part):
            with (folder / f"{shard.name}.bin").open("wb") as file:
                for block in reader.blocks(shard):
                    file.write(block)
            (folder / f"{shard.name}.idx").write_bytes(reader.index(shard))
            if shard.num_tokens:  # Megatron cannot map an empty file
                blends[part.split] += [str(shard.num_tokens), str(place / shard.name)]
        (folder / f"{part.split}.txt").write_text(" ".join(blends[part.split]) + "\n", encoding="utf-8", newline="\n")
    splits = {"train": blends["train"], "valid": blends.get("validation") or None, "test": None}
    (folder / "splits.json").write_bytes(_json(splits))


def _json(fields: dict) -> bytes:
    return (json.dumps(fields, indent=1, ensure_ascii=False) + "\n").encode()
