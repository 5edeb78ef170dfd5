"""Text that can be read twice: once to learn a vocabulary from it, once to encode it.

What `train` and `corpus build` have in common: sources and a tokenizer's spec in, a
published corpus out, with progress.
"""

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tokenspace.corpus.build import build_corpus
from tokenspace.corpus.corpus import Corpus
from tokenspace.corpus.driver import build_planned
from tokenspace.corpus.plan import BuildSettings
from tokenspace.errors import SettingError
from tokenspace.text import STDIN, Piece, join_documents, read_documents, read_strings, source_bytes
from tokenspace.tokenizer import Tokenizer

_MOST_VALIDATION_BYTES = 400_000  # some 100,000 tokens: enough to tell two losses apart by 0.01 nats

Watch = Callable[[str, int, int | None], None]  # task, bytes done, bytes in all where known


@dataclass(frozen=True)
class TextSource:
    """Text, wherever it is.

    Attributes:
        read: Gives the text from its beginning; its argument is called with the bytes read so far.
        num_bytes: How much there is, or None where that is not known.
        sources: The files, where it is in files.
        settings: How they are read.
    """

    read: Callable[[Callable[[int], None]], Iterator[Piece]]
    num_bytes: int | None
    sources: tuple[str | Path, ...] = ()
    settings: BuildSettings = field(default_factory=BuildSettings)

    @classmethod
    def files(
        cls,
        sources: Sequence[str | Path],
        encoding: str = "utf-8",
        errors: str = "strict",
        text_field: str = "text",
        id_field: str | None = None,
    ) -> "TextSource":
        """Files, folders, JSON Lines, Parquet; see `tokenspace.text.read_documents`.

        Raises:
            SettingError: there is no source.
            TextError: a source does not exist.
        """
        if not sources:
            raise SettingError("sources", "name at least one text", "none", "Give a file or a folder")

        def read(progress: Callable[[int], None]) -> Iterator[Piece]:
            return read_documents(sources, encoding=encoding, errors=errors, text_field=text_field, progress=progress)

        settings = BuildSettings(encoding=encoding, errors=errors, text_field=text_field, id_field=id_field)
        return cls(read, source_bytes(sources), tuple(sources), settings)

    @classmethod
    def documents(cls, documents: Sequence[str], name: str = "documents") -> "TextSource":
        """Documents in memory; progress counts their characters.

        Example:
            >>> TextSource.documents(["one", "two"]).num_bytes
            6
        """

        def read(progress: Callable[[int], None]) -> Iterator[Piece]:
            done = 0
            for piece in read_strings(documents, name):
                yield piece
                done += len(piece.text)
                progress(done)

        return cls(read, sum(map(len, documents)))

    @property
    def validation_fraction(self) -> float:
        """Share of the text to keep for validation: a tenth, less where that is more than is of use.

        Example:
            >>> TextSource.documents(["a" * 20_000]).validation_fraction
            0.1
        """
        if not self.num_bytes:
            return 0.05
        return max(0.0005, min(0.1, _MOST_VALIDATION_BYTES / self.num_bytes))

    def settings_with(self, validation_fraction: float | None) -> BuildSettings:
        """Settings of a build; None for the fraction that suits the size."""
        fraction = self.validation_fraction if validation_fraction is None else validation_fraction
        return replace(self.settings, validation_fraction=fraction)


@contextlib.contextmanager
def readable_twice(sources: Sequence[str | Path], tokenizer_spec: str) -> Iterator[list[str | Path]]:
    """The same sources; where a vocabulary is to be learned from standard input, a copy of it on disk.

    The copy is removed at the end of the block.
    """
    if STDIN not in sources or not tokenizer_spec.startswith("train:"):
        yield list(sources)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "stdin"
        with copy.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield [copy if source == STDIN else source for source in sources]


def build_from_source(
    source: TextSource,
    tokenizer_spec: str,
    out: Path,
    validation_fraction: float | None = None,
    watch: Watch | None = None,
) -> Corpus:
    """Open or train the tokenizer that a spec names, and encode the source with it.

    What is in files is built as `tokenspace corpus build` does; a build that was stopped goes on.

    Args:
        source: The text.
        tokenizer_spec: See `Tokenizer.from_spec`.
        out: The corpus folder to make.
        validation_fraction: Share kept for validation; None for what suits the size.
        watch: Called with the name of the work at hand and the bytes done and in all.

    Returns:
        The training part.

    Raises:
        TokenspaceError: the text, the spec or the output path breaks a rule; nothing is left behind.
    """
    settings = source.settings_with(validation_fraction)
    if source.sources and STDIN not in source.sources:
        build_planned(
            source.sources,
            tokenizer_spec,
            out,
            settings,
            watch=(lambda task, done, total, tokens: watch(task, done, total)) if watch else None,
        )
        return Corpus.open(out)

    def pieces(task: str) -> Iterator[Piece]:
        return source.read(lambda done: watch(task, done, source.num_bytes) if watch else None)

    tokenizer = Tokenizer.from_spec(tokenizer_spec, join_documents(pieces("learning the vocabulary")))
    return build_corpus(pieces("encoding"), tokenizer, out, validation_fraction=settings.validation_fraction)
