"""One task of a plan: read its spans, encode them, write their shards, commit them.

The shards depend on the plan alone. They are written under hidden names that carry the attempt;
the attempt that creates the commit record first is the one that counts, and its files get their
final names then. Whoever reads a record later finishes that, should the attempt have died in between.
"""

import contextlib
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial

import numpy as np

from tokenspace.corpus.encoding import DocumentEncoder, Encoded
from tokenspace.corpus.manifest import FILE_NAME, TOKENIZER_FILE, Split
from tokenspace.corpus.plan import PLAN_NAME, Plan
from tokenspace.corpus.split import split_by_hash, split_stream
from tokenspace.corpus.writer import SplitWriter, Target, hidden_name
from tokenspace.errors import CorpusError
from tokenspace.files import sealed_json, unseal_json
from tokenspace.store import Store
from tokenspace.text import Piece, read_span
from tokenspace.tokenizer import Tokenizer, TokenStatistics

SPLITS = ("train", "validation")

Advance = Callable[[int, int], None]  # bytes of the sources and tokens since the last call

_ATTEMPT = re.compile(r"\.(?P<host>[A-Za-z0-9]+)-(?P<process>\d+)-[0-9a-f]{8}\.[a-z]+\.part$")


@dataclass(frozen=True)
class TaskRecord:
    """What a committed task made; `tasks/NUMBER.json` until the corpus is published.

    Attributes:
        task: Its number.
        plan: CRC-32 of the plan.
        attempt: Which attempt made the files.
        splits: "train" and "validation", where not empty.
        text_bytes: Of its text, as UTF-8.
        statistics: Of its text.
    """

    task: int
    plan: str
    attempt: str
    splits: dict[str, Split]
    text_bytes: int
    statistics: TokenStatistics

    @property
    def files(self) -> dict[str, int]:
        """The names of its files and their sizes."""
        return {
            name: size for split in self.splits.values() for shard in split.shards for name, size in shard.files.items()
        }

    def to_bytes(self) -> bytes:
        """The text of the record."""
        return sealed_json(asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes, path: str) -> "TaskRecord":
        """A record from the content of its file.

        Raises:
            CorpusError: it is damaged.
        """
        fields = unseal_json(data, path, CorpusError)
        splits = {name: Split.from_fields(split) for name, split in fields["splits"].items()}
        return cls(**{**fields, "splits": splits, "statistics": TokenStatistics(**fields["statistics"])})


@dataclass(frozen=True)
class Job:
    """A planned corpus, opened to work on it.

    Attributes:
        store: Where it is built.
        plan: What of.
        loaded: The tokenizer, where it is at hand.
    """

    store: Store
    plan: Plan
    loaded: Tokenizer | None = None

    @classmethod
    def open(cls, store: Store) -> "Job":
        """A job from the folder that `tokenspace corpus plan` made.

        Raises:
            CorpusError: there is no plan, or it is damaged.
        """
        if store.size(PLAN_NAME) is None:
            step = "Plan it first: tokenspace corpus plan SOURCES -o CORPUS"
            raise CorpusError("corpus", f"hold {PLAN_NAME}", store.place, step)
        return cls(store, Plan.from_bytes(store.read(PLAN_NAME), store.path_of(PLAN_NAME)))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the plan, from the copy beside it.

        Raises:
            CorpusError: the copy is another tokenizer.
            TokenizerError: it is damaged.
        """
        if self.loaded is not None:
            return self.loaded
        path = self.store.path_of(TOKENIZER_FILE)
        tokenizer = Tokenizer.from_json(self.store.read(TOKENIZER_FILE).decode("utf-8", "replace"), path)
        if tokenizer.identity != self.plan.tokenizer.identity:
            rule = f"be {self.plan.tokenizer.name}, which the plan names"
            raise CorpusError(path, rule, "another tokenizer", "Plan again in another folder")
        tokenizer.name = self.plan.tokenizer.name
        return tokenizer

    def record(self, index: int) -> TaskRecord | None:
        """What a task committed, its files under their final names; None where it has to run (again)."""
        name = _record_name(index)
        if self.store.size(name) is None:
            return None
        try:
            record = TaskRecord.from_bytes(self.store.read(name), self.store.path_of(name))
            if record.plan == self.plan.crc32 and _settle(self.store, record):
                return record
        except (CorpusError, TypeError, KeyError):
            pass  # damaged on the way, or removed by another process
        self.store.remove(name)
        return None

    def run(self, index: int, advance: Advance | None = None) -> None:
        """Run one task and commit it, unless that is done already.

        Args:
            index: Number of the task.
            advance: See `Advance`.

        Raises:
            SettingError: there is no such task.
            TextError: a source cannot be read, or is not what it was when the plan was made.
            DiskError: the disk is full; nothing of the attempt is left behind.
        """
        self.plan.check_index(index)
        if self.record(index) is not None:
            return
        attempt = new_attempt()
        record = self.attempt(index, attempt, advance or (lambda num_bytes, num_tokens: None))
        name, counts = _record_name(index), False
        try:
            counts = not self._is_published and self.store.create(name, record.to_bytes())
            if counts and self._is_published:  # in between, with another's record
                self.store.remove(name)
                counts = False
        finally:
            if not counts:
                for file in record.files:
                    self.store.remove(hidden_name(file, attempt))
        if counts:
            _settle(self.store, record)

    @property
    def _is_published(self) -> bool:
        return self.store.size(FILE_NAME) is not None

    def attempt(self, index: int, attempt: str, advance: Advance) -> TaskRecord:
        """Write the shards of a task under the hidden names of `attempt`."""
        plan, spans = self.plan, self.plan.tasks[index]
        tokens = _Differences(lambda num_tokens: advance(0, num_tokens))
        encoder = DocumentEncoder(
            self.tokenizer,
            plan.eot_id,
            plan.settings.split_seed,
            lambda characters, num_tokens: tokens(num_tokens),
            continues=spans[0].continues,
        )
        batches = encoder.encode(_pieces(plan, index, lambda num_bytes: advance(num_bytes, 0)))
        parted = split_stream if len(plan.tasks) == 1 else split_by_hash
        targets = {name: Target(self.store, partial(_shard_name, name, index), index, attempt) for name in SPLITS}
        splits = write_splits(
            targets,
            plan.dtype,
            plan.settings.shard_bytes,
            parted(batches, plan.settings.validation_fraction),
            continues=spans[0].continues,
        )
        return TaskRecord(index, plan.crc32, attempt, splits, encoder.text_bytes, encoder.statistics)


def write_splits(
    targets: dict[str, Target],
    dtype: np.dtype,
    shard_bytes: int,
    batches: Iterable[tuple[Encoded, bool]],
    continues: bool = False,
) -> dict[str, Split]:
    """Write batches that train and batches that validate (True) to their splits; empty ones are left out."""
    train = SplitWriter(targets["train"], dtype, shard_bytes, continues)
    validation = SplitWriter(targets["validation"], dtype, shard_bytes)
    try:
        for batch, validates in batches:
            (validation if validates else train).append(batch)
        splits = {"train": train.close(), "validation": validation.close()}
    except BaseException:
        train.abandon()
        validation.abandon()
        raise
    return {name: split for name, split in splits.items() if split}


class _Differences:
    """Is told how much there was so far, and tells how much there was since."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._seen = 0

    def __call__(self, so_far: int) -> None:
        self._tell(so_far - self._seen)
        self._seen = so_far


def _pieces(plan: Plan, index: int, progress: Callable[[int], None]) -> Iterator[Piece]:
    settings = plan.settings
    for span in plan.tasks[index]:
        meter = _Differences(progress)
        yield from read_span(
            span,
            encoding=settings.encoding,
            errors=settings.errors,
            text_field=settings.text_field,
            id_field=settings.id_field,
            progress=meter,
        )


def _shard_name(split: str, task: int, nth: int) -> str:
    return f"{split}-{task:05d}" + (f"-{nth:03d}" if nth else "")


def _record_name(index: int) -> str:
    return f"tasks/{index:05d}.json"


def _settle(store: Store, record: TaskRecord) -> bool:
    """Give the files of a committed task their final names; False where some are lost."""
    for name, size in record.files.items():
        hidden = hidden_name(name, record.attempt)
        if store.size(hidden) is not None:
            with contextlib.suppress(FileNotFoundError):  # another process did it just now
                store.rename(hidden, name)
        if store.size(name) != size:
            return False
    return True


def new_attempt() -> str:
    """A name that no other attempt has; it says which process on which machine makes it."""
    return f"{_host()}-{os.getpid()}-{secrets.token_hex(4)}"


def sweep(store: Store, *, all_attempts: bool) -> None:
    """Remove what killed attempts left behind.

    Args:
        store: Where the corpus is built.
        all_attempts: Remove those of attempts that may still live too, because the corpus is published.
    """
    for name in store.names():
        if not name.endswith(".part"):
            continue
        made_by = _ATTEMPT.search(name)
        if all_attempts or (made_by and made_by["host"] == _host() and not _is_alive(int(made_by["process"]))):
            store.remove(name)


def _host() -> str:
    return re.sub("[^A-Za-z0-9]", "", socket.gethostname()) or "host"


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # where asking would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
