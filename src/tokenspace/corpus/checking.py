"""All that is wrong with a corpus: every file read, every checksum compared, nothing assumed.

And the repair: a task of the plan that is run again gives the same bytes, which take the place of
those that were damaged.
"""

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tokenspace.corpus.manifest import BLOCK_BYTES, FILE_NAME, TOKENIZER_FILE, Manifest, Shard
from tokenspace.corpus.plan import PLAN_NAME, Plan
from tokenspace.corpus.tail import cut_shard
from tokenspace.corpus.task import Advance, Job, new_attempt
from tokenspace.corpus.writer import hidden_name
from tokenspace.errors import CorpusError, TokenspaceError
from tokenspace.files import sealed_json
from tokenspace.store import Store
from tokenspace.tokenizer import Tokenizer


@dataclass(frozen=True)
class Fault:
    """One thing that is not as it was written.

    Attributes:
        where: File, and bytes of it.
        found: What is wrong there.
        task: Which task makes it anew, or None.
    """

    where: str
    found: str
    task: int | None = None


def find_faults(store: Store, progress: Callable[[int, int], None] | None = None) -> list[Fault]:
    """Check every block, index, sidecar, the tokenizer, the plan and the manifest.

    Args:
        store: Where the corpus is.
        progress: Called with the bytes of ids done and in all.

    Returns:
        Everything that is wrong, in the order of the files; nothing where all is as it was written.

    Raises:
        CorpusError: there is no manifest.
    """
    data = store.read(FILE_NAME)
    try:
        manifest = Manifest.from_bytes(data, store.path_of(FILE_NAME))
    except CorpusError as error:
        return [Fault(FILE_NAME, str(error.args[2]))]
    faults = [] if data == _sealed_again(data) else [Fault(FILE_NAME, "written in another way")]
    faults += _whole_file(store, TOKENIZER_FILE, manifest.tokenizer_crc32) or _tokenizer_faults(store, manifest)
    if manifest.plan_crc32 is not None:
        faults += _whole_file(store, PLAN_NAME, manifest.plan_crc32)
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    total, done = sum(shard.bin_bytes for shard in shards), 0
    for shard in shards:
        for num_bytes, fault in _shard_faults(store, shard):
            done += num_bytes
            faults += [fault] if fault else []
            if progress:
                progress(done, total)
    return faults


def _sealed_again(data: bytes) -> bytes:
    """The same fields as they would be written; json reads some texts alike that are not."""
    fields = json.loads(data)
    del fields["sha256"]
    return sealed_json(fields)


def _tokenizer_faults(store: Store, manifest: Manifest) -> list[Fault]:
    try:
        tokenizer = Tokenizer.from_json(store.read(TOKENIZER_FILE).decode("utf-8", "replace"))
    except TokenspaceError as error:
        return [Fault(TOKENIZER_FILE, str(error.args[2]))]
    if tokenizer.identity != manifest.tokenizer.identity:
        return [Fault(TOKENIZER_FILE, "another tokenizer than the manifest names")]
    return []


def _whole_file(store: Store, name: str, expected: str | None, task: int | None = None) -> list[Fault]:
    """The fault of a file that is checked as a whole, if it has one."""
    try:
        found = f"{zlib.crc32(store.read(name)):08x}"
    except CorpusError as error:
        return [Fault(name, str(error.args[2]), task)]
    return [] if expected in (found, None) else [Fault(name, f"checksum {found} instead of {expected}", task)]


def _shard_faults(store: Store, shard: Shard) -> Iterator[tuple[int, Fault | None]]:
    """The bytes of each block, and its fault if it has one."""
    for name, size in shard.files.items():
        if (found := store.size(name)) != size:
            yield 0, Fault(name, "missing" if found is None else f"{found} bytes instead of {size}", shard.task)
    for suffix, expected in ((".idx", shard.idx_crc32), (".origins", shard.origins_crc32)):
        if store.size(shard.name + suffix) == shard.files.get(shard.name + suffix) and expected is not None:
            for fault in _whole_file(store, shard.name + suffix, expected, shard.task):
                yield 0, fault
    name = f"{shard.name}.bin"
    if store.size(name) is None:
        return
    for nth, expected in enumerate(shard.block_crc32s):
        start = nth * BLOCK_BYTES
        stop = min(start + BLOCK_BYTES, shard.bin_bytes)
        found = f"{zlib.crc32(store.read_range(name, start, stop)):08x}"
        where = f"{name}, bytes {start} to {stop - 1}"
        wrong = Fault(where, f"checksum {found} instead of {expected}", shard.task)
        yield stop - start, None if found == expected else wrong


def repair(store: Store, index: int, advance: Advance | None = None) -> None:
    """Run one task of a published corpus again, and put its files in the place of those there.

    Args:
        store: Where the corpus is.
        index: Number of the task.
        advance: See `Advance`.

    Raises:
        CorpusError: manifest, plan or tokenizer are damaged, or the files come out otherwise than the
            manifest says; those there stay.
        TextError: a source is no longer what it was.
    """
    manifest = Manifest.from_bytes(store.read(FILE_NAME), store.path_of(FILE_NAME))
    step = "Build the corpus again"
    if manifest.plan_crc32 is None:
        raise CorpusError("corpus", "have a plan, to run a task again", f"{store.place} without one", step)
    if _whole_file(store, PLAN_NAME, manifest.plan_crc32):
        raise CorpusError(PLAN_NAME, f"have the checksum {manifest.plan_crc32}", "damaged", step)
    job = Job(store, Plan.from_bytes(store.read(PLAN_NAME), store.path_of(PLAN_NAME)))
    job.plan.check_index(index)
    wanted = [shard for split in manifest.splits.values() for shard in split.shards if shard.task == index]
    attempt = new_attempt()
    record = job.attempt(index, attempt, advance or (lambda num_bytes, num_tokens: None))
    made = [shard for split in record.splits.values() for shard in split.shards]
    made = _cut_as_published(store, made, wanted, job, attempt)
    same = {shard.name: shard for shard in made} == {shard.name: shard for shard in wanted}
    for name in (file for shard in made for file in shard.files):
        if same:
            store.rename(hidden_name(name, attempt), name)
        else:
            store.remove(hidden_name(name, attempt))
    store.sync()
    if not same:
        rule = f"come out of task {index} as the manifest says"
        raise CorpusError(
            "files", rule, "otherwise", "Use the versions of the libraries it was built with, or build anew"
        )


def _cut_as_published(store: Store, made: list[Shard], wanted: list[Shard], job: Job, attempt: str) -> list[Shard]:
    """The shards that were made, one of them cut in two where the published one was."""
    heads = {shard.name: shard for shard in wanted}
    shards: list[Shard] = []
    for shard in made:
        head = heads.get(f"{shard.name}-head")
        known = heads.get(shard.name)
        if head is not None:
            num_tokens = shard.num_tokens - head.num_tokens
            first, last = cut_shard(store, shard, job.plan.dtype, num_tokens, read_as=attempt, attempt=attempt)
            for file in shard.files:
                store.remove(hidden_name(file, attempt))
            shards += [first.shards[0], last.shards[0]]
        elif known is not None and known.continues != shard.continues:  # the shard before it was cut
            shards.append(replace(shard, continues=known.continues))
        else:
            shards.append(shard)
    return shards
