"""`plan.json`: what a corpus is to be made of, split into tasks; it decides every byte.

Made once and never changed. Which machine runs which task, in which order and how often, is
no part of it.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tokenspace.corpus.format import smallest_dtype
from tokenspace.corpus.manifest import TokenizerStamp
from tokenspace.errors import CorpusError, SettingError, check_at_least
from tokenspace.files import sealed_json, unseal_json
from tokenspace.text import SourceFile, Span, plan_spans, source_bytes
from tokenspace.tokenizer import Tokenizer

PLAN_NAME = "plan.json"
GIBIBYTE = 1 << 30

_FORMAT, _VERSION = "tokenspace plan", 1
_MEBIBYTE = 1 << 20
_LEAST_TASK, _LARGEST_TASK, _MOST_TASKS = 8 * _MEBIBYTE, GIBIBYTE, 1000


@dataclass(frozen=True)
class BuildSettings:
    """What decides the bytes of a corpus, beside the text and the tokenizer.

    Attributes:
        validation_fraction: Share of the tokens for validation, from 0 (none) to 0.5.
        seed: Of the choice of validation documents.
        end_of_text: Append the tokenizer's end-of-text token to each document, where it has one.
        shard_bytes: Size at which a `.bin` is closed, at the next end of a document.
        encoding: Of plain text and JSON Lines.
        errors: What to do about bytes that do not fit it.
        text_field: Where JSON Lines and Parquet have the text.
        id_field: Where they have the document's own id, or None.
    """

    validation_fraction: float = 0.1
    seed: int = 0
    end_of_text: bool = True
    shard_bytes: int = GIBIBYTE
    encoding: str = "utf-8"
    errors: str = "strict"
    text_field: str = "text"
    id_field: str | None = None

    def __post_init__(self) -> None:
        check_at_least(0, seed=self.seed)
        check_at_least(1, shard_bytes=self.shard_bytes)
        if not 0 <= self.validation_fraction <= 0.5:
            rule, found = "be from 0 to 0.5", self.validation_fraction
            raise SettingError("validation_fraction", rule, found, "Give 0 for no validation")

    @property
    def split_seed(self) -> int | None:
        """`seed`, or None where no document is drawn, so that none needs to be hashed."""
        return self.seed if self.validation_fraction else None


@dataclass(frozen=True)
class Plan:
    """The sources as they were found, and what each task reads of them.

    Attributes:
        tokenizer: Which tokenizer encodes.
        settings: See `BuildSettings`.
        sources: All files, sorted by path.
        tasks: What each task reads, in order.
    """

    tokenizer: TokenizerStamp
    settings: BuildSettings
    sources: tuple[SourceFile, ...]
    tasks: tuple[tuple[Span, ...], ...]

    @classmethod
    def make(
        cls,
        sources: Sequence[str | Path],
        tokenizer: Tokenizer,
        settings: BuildSettings,
        task_bytes: int | None = None,
    ) -> "Plan":
        """Look at all sources and divide them.

        Args:
            sources: Files, folders and URLs.
            tokenizer: What will encode them.
            settings: See `BuildSettings`.
            task_bytes: Size of a task; None for a thousandth of all, from 8 MiB to 1 GiB.

        Raises:
            TextError: a source is missing or cannot be read.
            SettingError: an argument breaks its rule.
        """
        if task_bytes is None:
            task_bytes = _suitable_task_bytes(sources)
        check_at_least(1, task_bytes=task_bytes)
        files, spans = plan_spans(
            sources, task_bytes, cuts_documents=tokenizer.splits_at_spaces, encoding=settings.encoding
        )
        tasks = _packed(spans, {file.path: file.size for file in files}, task_bytes)
        return cls(TokenizerStamp.of(tokenizer), settings, tuple(files), tuple(tasks))

    @property
    def num_bytes(self) -> int:
        """Of all sources, as they are stored."""
        return sum(source.size for source in self.sources)

    def task_bytes(self, index: int) -> int:
        """Of what one task reads, as it is stored; a guess where spans are not counted in bytes."""
        return round(sum(_stored_bytes(self.tasks[index], self._sizes, self._lengths)))

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return {source.path: source.size for source in self.sources}

    @cached_property
    def _lengths(self) -> Counter[str]:
        return _lengths(span for task in self.tasks for span in task)

    @property
    def dtype(self) -> np.dtype:
        """Of the ids on disk."""
        return smallest_dtype(self.tokenizer.vocab_size - 1)

    @property
    def eot_id(self) -> int | None:
        """The id appended to each document, or None."""
        return self.tokenizer.eot_id if self.settings.end_of_text else None

    @cached_property
    def crc32(self) -> str:
        """Of `plan.json`, 8 hexadecimal digits."""
        return f"{zlib.crc32(self.content):08x}"

    @cached_property
    def content(self) -> bytes:
        """The text of `plan.json`; spans name their source by its number."""
        numbers = {source.path: nth for nth, source in enumerate(self.sources)}
        fields = {
            "format": _FORMAT,
            "version": _VERSION,
            "tokenizer": asdict(self.tokenizer),
            "settings": asdict(self.settings),
            "sources": [list(vars(source).values()) for source in self.sources],
            "tasks": [[[numbers[span.path], *list(vars(span).values())[1:]] for span in task] for task in self.tasks],
        }
        return sealed_json(fields)

    @classmethod
    def from_bytes(cls, data: bytes, path: str) -> "Plan":
        """A plan from the content of `plan.json`.

        Raises:
            CorpusError: it is damaged, altered, or of another version.
        """
        fields = unseal_json(data, path, CorpusError)
        found = (fields.pop("format", None), fields.pop("version", None))
        if found != (_FORMAT, _VERSION):
            step = "Use the version of tokenspace that made it, or plan again in another folder"
            raise CorpusError(PLAN_NAME, f"be of {_FORMAT!r}, version {_VERSION}", f"{found[0]!r}, {found[1]}", step)
        sources = tuple(SourceFile(*source) for source in fields["sources"])
        return cls(
            TokenizerStamp(**fields["tokenizer"]),
            BuildSettings(**fields["settings"]),
            sources,
            tuple(tuple(Span(sources[span[0]].path, *span[1:]) for span in spans) for spans in fields["tasks"]),
        )

    def check_index(self, index: int) -> None:
        """Refuse a task that the plan does not have.

        Raises:
            SettingError: see above.
        """
        if not 0 <= index < len(self.tasks):
            rule = f"be from 0 to {len(self.tasks) - 1}, the tasks of the plan"
            raise SettingError("index", rule, index, "Give the number of a task")


def _suitable_task_bytes(sources: Sequence[str | Path]) -> int:
    size = min(max((source_bytes(sources) or 0) / _MOST_TASKS, _LEAST_TASK), _LARGEST_TASK)
    return -int(-size // _MEBIBYTE) * _MEBIBYTE


def _packed(spans: Sequence[Span], sizes: dict[str, int], task_bytes: int) -> Iterator[tuple[Span, ...]]:
    """Consecutive spans, together of at most `task_bytes` where a single one is not larger."""
    task: list[Span] = []
    num_bytes = 0.0
    for span, size in zip(spans, _stored_bytes(spans, sizes, _lengths(spans)), strict=True):
        if task and num_bytes + size > task_bytes:
            yield tuple(task)
            task, num_bytes = [], 0.0
        task.append(span)
        num_bytes += size
    yield tuple(task)


def _stored_bytes(spans: Iterable[Span], sizes: dict[str, int], lengths: Counter[str]) -> Iterator[float]:
    return (sizes[span.path] * (span.stop - span.start) / max(lengths[span.path], 1) for span in spans)


def _lengths(spans: Iterable[Span]) -> Counter[str]:
    """Of each file, in the unit of its spans: bytes, or row groups."""
    lengths: Counter[str] = Counter()
    for span in spans:
        lengths[span.path] += span.stop - span.start
    return lengths
