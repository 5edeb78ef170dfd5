"""What a corpus will come to, from a sample of its text: nothing is written."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from tokenspace.corpus.encoding import DocumentEncoder
from tokenspace.corpus.format import smallest_dtype
from tokenspace.corpus.plan import BuildSettings
from tokenspace.errors import CorpusError
from tokenspace.text import Piece, list_files, read_documents, source_bytes
from tokenspace.tokenizer import Tokenizer

_SAMPLES = 16
_SAMPLE_BYTES = 16 << 20


@dataclass(frozen=True)
class Estimate:
    """Of a build in one process.

    Attributes:
        source_bytes: Of all sources, as they are stored.
        sampled_bytes: Of them that were read for this.
        documents: In all sources.
        tokens: End-of-text included.
        corpus_bytes: Of all ids.
        seconds: It would take one process with all cores.
    """

    source_bytes: int
    sampled_bytes: int
    documents: int
    tokens: int
    corpus_bytes: int
    seconds: float


def estimate(sources: Sequence[str | Path], tokenizer: Tokenizer, settings: BuildSettings) -> Estimate:
    """Encode up to 16 MiB from up to 16 places of the sources, and reckon.

    Args:
        sources: Files, folders and URLs.
        tokenizer: What would encode them.
        settings: As for the build.

    Raises:
        TextError: a source is missing or cannot be read.
        CorpusError: the sources are empty.
    """
    total = source_bytes(sources)
    if not total:
        raise CorpusError("sources", "hold text in files", "empty, or without a size", "Name files that have some")
    encoder = DocumentEncoder(tokenizer, tokenizer.eot_id if settings.end_of_text else None, settings.split_seed, None)
    tokens = documents = num_bytes = 0
    seconds = 0.0
    tokenizer.encode_batch(["a word " * 20_000])  # the engine is built before the clock runs
    names = _spread(sources)
    for name in names:
        start = time.perf_counter()
        pieces, read = _sample(name, settings, _SAMPLE_BYTES // len(names))
        for batch in encoder.encode(pieces):
            tokens += len(batch.ids)
            documents += int(batch.ends.sum())
        seconds += time.perf_counter() - start
        num_bytes += read
    scale = total / max(num_bytes, 1)
    itemsize = smallest_dtype(tokenizer.vocab_size - 1).itemsize
    return Estimate(
        source_bytes=total,
        sampled_bytes=num_bytes,
        documents=round(documents * scale),
        tokens=round(tokens * scale),
        corpus_bytes=round(tokens * scale) * itemsize,
        seconds=seconds * scale,
    )


def _sample(name: str, settings: BuildSettings, num_bytes: int) -> tuple[list[Piece], int]:
    """The pieces of the first `num_bytes` of a file, or a little more, and how many bytes they are."""
    read = 0

    def progress(done: int) -> None:
        nonlocal read
        read = done

    pieces = []
    documents = read_documents(
        [name],
        encoding=settings.encoding,
        errors=settings.errors,
        text_field=settings.text_field,
        progress=progress,
    )
    for piece in documents:
        pieces.append(piece)
        if read >= num_bytes:
            break
    return pieces, read


def _spread(sources: Sequence[str | Path]) -> list[str]:
    """Files that hold evenly spaced bytes of all."""
    files = list_files(sources)
    ends = list(accumulate(source_bytes([name]) or 0 for name in files))
    wanted = [ends[-1] * (nth + 0.5) / _SAMPLES for nth in range(_SAMPLES)]
    return list(dict.fromkeys(next(name for name, end in zip(files, ends, strict=True) if end > at) for at in wanted))
