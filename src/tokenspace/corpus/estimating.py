"""What a corpus will come to, from a sample of its text: nothing is written."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from tokenspace.corpus.encoding import DocumentEncoder
from tokenspace.corpus.format import smallest_dtype
from tokenspace.corpus.plan import BuildSettings
from tokenspace.errors import CorpusError
from tokenspace.text import Piece, list_files, read_documents, source_bytes
from tokenspace.tokenizer import Tokenizer

_SAMPLE_BYTES = 16 << 20
_FEWEST, _MOST = 16, 128  # files: the most where they are small


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
    """Encode up to 16 MiB from the beginnings of up to 128 files, and reckon.

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
    sample = _Sample(_spread(sources), settings)
    tokenizer.encode_batch(["a word " * 20_000])  # the engine is built before the clock runs
    next(_Sample(sample.names[:1], settings).pieces(), None)  # so are the readers
    start = time.perf_counter()
    tokens = sum(len(batch.ids) for batch in encoder.encode(sample.pieces()))
    seconds = time.perf_counter() - start
    num_bytes = sample.num_bytes
    scale = total / max(num_bytes, 1)
    itemsize = smallest_dtype(tokenizer.vocab_size - 1).itemsize
    return Estimate(
        source_bytes=total,
        sampled_bytes=num_bytes,
        documents=round(sample.documents * scale),
        tokens=round(tokens * scale),
        corpus_bytes=round(tokens * scale) * itemsize,
        seconds=seconds * scale,
    )


class _Sample:
    """The beginnings of some files, and what they hold once they were read."""

    def __init__(self, names: list[str], settings: BuildSettings) -> None:
        self.names = names
        self._settings = settings
        self.num_bytes = 0
        self.documents = 0.0

    def pieces(self) -> Iterator[Piece]:
        """All pieces: of each file as many bytes as are its share, or a little more."""
        for name in self.names:
            before, ended = self.num_bytes, 0
            for piece in self._pieces_of(name):
                ended += piece.ends_document
                yield piece
                if self.num_bytes - before >= _SAMPLE_BYTES // len(self.names):
                    break
            read = self.num_bytes - before
            self.documents += ended or read / (source_bytes([name]) or read or 1)  # of one that goes on, the part

    def _pieces_of(self, name: str) -> Iterator[Piece]:
        before = self.num_bytes

        def progress(done: int) -> None:
            self.num_bytes = before + done

        fields = {"encoding": self._settings.encoding, "errors": self._settings.errors}
        yield from read_documents([name], text_field=self._settings.text_field, progress=progress, **fields)


def _spread(sources: Sequence[str | Path]) -> list[str]:
    """Files that hold evenly spaced bytes of all."""
    files = list_files(sources)
    ends = list(accumulate(source_bytes([name]) or 0 for name in files))
    places = _MOST if ends[-1] / len(files) < _SAMPLE_BYTES / _MOST else _FEWEST
    wanted = [ends[-1] * (nth + 0.5) / places for nth in range(places)]
    return list(dict.fromkeys(next(name for name, end in zip(files, ends, strict=True) if end > at) for at in wanted))
