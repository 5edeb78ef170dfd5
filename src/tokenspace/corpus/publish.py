"""All tasks committed -> one `manifest.json`, created last; then the scaffolding goes.

Several processes may publish the same plan: they make the same manifest, and one of them creates it.
"""

import zlib
from collections.abc import Iterable

from tokenspace.corpus.manifest import FILE_NAME, TOKENIZER_FILE, Manifest, Split
from tokenspace.corpus.plan import PLAN_NAME
from tokenspace.corpus.tail import cut_tail
from tokenspace.corpus.task import SPLITS, Job, sweep
from tokenspace.errors import CorpusError
from tokenspace.store import Store
from tokenspace.tokenizer import TokenStatistics


def publish_job(job: Job) -> Manifest:
    """Check all commit records against the files, and publish what they make together.

    Raises:
        CorpusError: a task has not been committed, there is no text at all, or none on one side of the split.
    """
    store, plan = job.store, job.plan
    if store.size(FILE_NAME) is not None:
        return _finished(job)
    records = [job.record(index) for index in range(len(plan.tasks))]
    if missing := [index for index, record in enumerate(records) if record is None]:
        if store.size(FILE_NAME) is not None:  # another process published, and removed the records
            return _finished(job)
        named = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
        step = f"Run `tokenspace corpus task {store.place} --index {missing[0]}`, and so on"
        raise CorpusError("tasks", "all be committed", f"{len(missing)} of {len(records)} not: {named}", step)
    splits = _with_validation(job, joined_splits(record.splits for record in records))
    statistics = sum((record.statistics for record in records), TokenStatistics())
    check_splits(splits, statistics)
    store.create(PLAN_NAME, plan.content)  # both are there, unless a build of the same was withdrawn
    store.create(TOKENIZER_FILE, job.tokenizer.to_json().encode())
    manifest = Manifest(
        tokenizer=plan.tokenizer,
        end_of_text="none" if plan.eot_id is None else "append",
        dtype=plan.dtype.name,
        validation_fraction=plan.settings.validation_fraction,
        seed=plan.settings.seed,
        splits=splits,
        num_sources=len(plan.sources),
        text_bytes=sum(record.text_bytes for record in records),
        statistics=statistics,
        tokenizer_crc32=file_crc32(store, TOKENIZER_FILE),
        plan_crc32=plan.crc32,
    )
    store.sync()
    store.create(FILE_NAME, manifest.to_bytes())
    return _finished(job)


def joined_splits(parts: Iterable[dict[str, Split]]) -> dict[str, Split]:
    """The shards of all parts, split by split."""
    parts = list(parts)
    splits = {}
    for name in SPLITS:
        found = [part[name] for part in parts if name in part]
        if found:
            shards = (shard for split in found for shard in split.shards)
            splits[name] = Split.of(shards, max(split.max_id for split in found))
    return splits


def check_splits(splits: dict[str, Split], statistics: TokenStatistics) -> None:
    """Refuse a corpus without any token, or without one to train on.

    Raises:
        CorpusError: see above.
    """
    if not statistics.tokens:
        raise CorpusError("text", "hold at least one token", "empty", "Give a text that is not empty")
    if "train" not in splits:
        step = "Give another seed, or a validation_fraction of 0"
        raise CorpusError("documents", "fall on both sides of the split", "all on one, being alike", step)


def file_crc32(store: Store, name: str) -> str:
    """CRC-32 of a whole file, 8 hexadecimal digits."""
    return f"{zlib.crc32(store.read(name)):08x}"


def _with_validation(job: Job, splits: dict[str, Split]) -> dict[str, Split]:
    """The same splits; where no document was drawn, the last tokens of a shard validate."""
    settings = job.plan.settings
    if not settings.validation_fraction or "validation" in splits or len(job.plan.tasks) == 1:
        return splits
    return cut_tail(job.store, splits, job.plan.dtype, settings.validation_fraction)


def _finished(job: Job) -> Manifest:
    """Remove what is of no use once the manifest is there."""
    manifest = Manifest.from_bytes(job.store.read(FILE_NAME), job.store.path_of(FILE_NAME))
    if manifest.plan_crc32 != job.plan.crc32:
        step = "Give another path, or remove that one"
        raise CorpusError(job.store.place, "be made by this plan", "published by another", step)
    keep = {FILE_NAME, PLAN_NAME, TOKENIZER_FILE}
    keep |= {name for split in manifest.splits.values() for shard in split.shards for name in shard.files}
    sweep(job.store, all_attempts=True)
    for name in _of_no_use(job, keep):
        job.store.remove(name)
    job.store.prune()
    return manifest


def _of_no_use(job: Job, keep: set[str]) -> list[str]:
    """Shards that a cut replaced, and then records: as long as there are some, the same build sweeps again."""
    ours = ("tasks/", *(f"{split}-" for split in SPLITS))
    found = [name for name in job.store.names() if name.startswith(ours) and name not in keep]
    return sorted(found, key=lambda name: name.startswith("tasks/"))
