"""Plan, run all tasks, publish: a corpus of text in files, in as many processes as there are.

What was committed stays committed: the same call again goes on where the last one was stopped.
Which engine runs the tasks, and how many at a time, changes no byte.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tokenspace.corpus.engines import Engine, engine_named
from tokenspace.corpus.manifest import FILE_NAME, TOKENIZER_FILE, Manifest
from tokenspace.corpus.plan import PLAN_NAME, BuildSettings, Plan
from tokenspace.corpus.publish import publish_job
from tokenspace.corpus.task import SPLITS, Job, sweep
from tokenspace.errors import SettingError, TokenspaceError
from tokenspace.store import LocalStore, Store
from tokenspace.text import join_documents, read_documents, source_bytes
from tokenspace.tokenizer import Tokenizer

_ROUNDS = 3  # a record whose files are lost is made again; more than twice means that something removes them

Watch = Callable[[str, int, int | None, int], None]
"""Called with the name of the work at hand, the bytes done and in all where known, and the tokens so far."""


def plan_corpus(
    sources: Sequence[str | Path],
    tokenizer_spec: str,
    out: str | Path | Store,
    settings: BuildSettings,
    *,
    task_bytes: int | None = None,
    watch: Watch | None = None,
) -> Job:
    """Plan a corpus; where the same plan is at `out` already, open it.

    Args:
        sources: Files, folders and URLs, each of which can be read again.
        tokenizer_spec: See `Tokenizer.from_spec`; a vocabulary is learned from the same sources.
        out: Folder or URL.
        settings: What else decides the bytes.
        task_bytes: Size of a task; None for what suits the size of all.
        watch: See `Watch`.

    Raises:
        SettingError: something else stands at `out`, or an argument breaks its rule.
        TextError: a source is missing or cannot be read.
    """
    store = Store.of(out)
    _check_free(store)

    def make(tokenizer: Tokenizer) -> Plan:
        return Plan.make(sources, tokenizer, settings, task_bytes)

    if tokenizer_spec.startswith("train:") and store.size(PLAN_NAME) is not None:  # spare learning it again
        job = Job.open(store)
        if job.plan.tokenizer.name == tokenizer_spec and make(job.tokenizer) == job.plan:
            return job
    tokenizer = Tokenizer.from_spec(tokenizer_spec, _documents(sources, settings, watch))
    plan = make(tokenizer)
    if not store.create(PLAN_NAME, plan.content) and store.read(PLAN_NAME) != plan.content:
        step = "Go on with the same sources and settings, or remove it, or give another path"
        raise SettingError("out", "hold no other plan", f"{store.place} with another plan", step)
    store.create(TOKENIZER_FILE, tokenizer.to_json().encode())
    return Job(store, plan, tokenizer)


def _documents(sources: Sequence[str | Path], settings: BuildSettings, watch: Watch | None) -> Iterator[str]:
    """What a vocabulary is learned from; nothing is read unless it is."""
    total = source_bytes(sources)
    pieces = read_documents(
        sources,
        encoding=settings.encoding,
        errors=settings.errors,
        text_field=settings.text_field,
        progress=(lambda done: watch("learning the vocabulary", done, total, 0)) if watch else None,
    )
    return join_documents(pieces)


def run_job(job: Job, *, engine: str = "local", workers: int | None = None, watch: Watch | None = None) -> Manifest:
    """Run what is left of a plan, and publish it.

    Args:
        job: From `plan_corpus` or `Job.open`.
        engine: "local", or "ray" for the cluster that Ray's settings name.
        workers: How many tasks run at a time; None for as many as there are cores and work for.
        watch: See `Watch`.

    Returns:
        What was published.

    Raises:
        SettingError: there is no such engine, or it cannot run this job.
        TextError: a source is not what it was when the plan was made, or cannot be read.
        CorpusError: there is no text at all, or none on one side of the split.
        DiskError: the disk is full.
    """
    with engine_named(engine, workers) as running:
        return _run(job, running, watch)


def _run(job: Job, engine: Engine, watch: Watch | None) -> Manifest:
    for _ in range(_ROUNDS):
        if job.store.size(FILE_NAME) is not None:  # by another process
            break
        pending = [index for index in range(len(job.plan.tasks)) if job.record(index) is None]
        sweep(job.store, all_attempts=False)  # only now: files of an attempt that counts have their names
        if not pending:
            break
        meter = _Meter(job, pending, watch)
        try:
            engine.run(job, pending, meter.advance)
        finally:
            sweep(job.store, all_attempts=False)
    return publish_job(job)


def withdraw(job: Job) -> None:
    """Remove all there is of an unpublished corpus."""
    ours = (PLAN_NAME, TOKENIZER_FILE, "tasks/", ".", *(f"{split}-" for split in SPLITS))
    for name in job.store.names():
        if name.startswith(ours):
            job.store.remove(name)
    job.store.prune()


def build_planned(
    sources: Sequence[str | Path],
    tokenizer_spec: str,
    out: str | Path | Store,
    settings: BuildSettings,
    *,
    engine: str = "local",
    workers: int | None = None,
    watch: Watch | None = None,
) -> Manifest:
    """Plan and run, or go on; arguments as those of `plan_corpus` and `run_job`.

    A mistake that comes before anything was committed leaves nothing behind.
    """
    store = Store.of(out)
    is_new = store.size(PLAN_NAME) is None
    with engine_named(engine, workers) as running:
        if store.is_shared:
            running.prepare(source_bytes(sources) or 0)
        job = plan_corpus(sources, tokenizer_spec, store, settings, watch=watch)
        try:
            return _run(job, running, watch)
        except (TokenspaceError, OSError, KeyboardInterrupt):
            committed = any(name.startswith("tasks/") for name in store.names())
            if is_new and store.size(FILE_NAME) is None and (len(job.plan.tasks) == 1 or not committed):
                withdraw(job)
            raise


class _Meter:
    """Adds up what tasks tell; what was done before counts for the bytes."""

    def __init__(self, job: Job, pending: Sequence[int], watch: Watch | None) -> None:
        self._watch = watch
        self._total = job.plan.num_bytes
        self._done = self._total - sum(job.plan.task_bytes(index) for index in pending)
        self._tokens = 0

    def advance(self, num_bytes: int, num_tokens: int) -> None:
        self._done += num_bytes
        self._tokens += num_tokens
        if self._watch:
            self._watch("encoding", self._done, self._total, self._tokens)


def _check_free(store: Store) -> None:
    """Refuse a place at which anything but the beginnings of a corpus stands."""
    if isinstance(store, LocalStore):
        store.folder.parent.mkdir(parents=True, exist_ok=True)
    names = store.names()
    scaffolding = [name for name in names if name.endswith(".part") or name.startswith("tasks/")]
    if FILE_NAME in names:  # killed after it was published, before all was swept: that can be done still
        goes_on = PLAN_NAME in names and scaffolding
    else:
        goes_on = PLAN_NAME in names or (names and names == scaffolding) or _is_nothing(store, names)
    if not goes_on:
        raise SettingError("out", "not exist yet", store.place, "Give another path, or remove that one")


def _is_nothing(store: Store, names: list[str]) -> bool:
    if isinstance(store, LocalStore):
        return not (store.folder.exists() or store.folder.is_symlink())
    return not names
