"""``tokenspace corpus build``, ``plan``, ``task``, ``commit``, ``concat``: all at once, or step by step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from tokenspace.cli.flags import Json, Place, Sources, check_sources
from tokenspace.cli.show import print_json, print_rows, remarks
from tokenspace.errors import SettingError

if TYPE_CHECKING:
    from tokenspace.corpus import BuildSettings, Manifest

Watch = Callable[[str, int, int | None, int], None]
PlaceArgument = Annotated[str, Parameter(show_default=False)]


def build(
    *sources: Sources,
    out: Place,
    tokenizer: str = "gpt2",
    validation: float | None = None,
    text_field: str = "text",
    id_field: str | None = None,
    encoding: str = "utf-8",
    errors: str = "strict",
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
    json: Json = False,
) -> None:
    """Encode text into a corpus; one that was stopped, however that was, goes on.

    Parameters
    ----------
    sources
        Files, folders, URLs, JSONL, Parquet, compressed or not; "-" for standard input. None at all: go on with the
        plan in the corpus folder.
    out
        The corpus folder to make, or a URL.
    tokenizer
        gpt2, a tokenizer file, or train:8000 to learn a vocabulary of that size.
    validation
        Share of the tokens kept for validation, by document. Default: a tenth, less for long texts.
    text_field
        Field of JSONL and Parquet rows that holds the text; a.b for b inside a.
    id_field
        Field that holds the document's own id, to be kept.
    encoding
        Of the text files.
    errors
        strict, or replace to go on after bytes that are no text in this encoding.
    workers
        Processes that encode. Default: one a core, as far as there is work for them.
    engine
        local, or ray for the cluster that RAY_ADDRESS names.
    json
        Print the manifest's counts as JSON.
    """
    check_sources(sources)
    from tokenspace.corpus import Job, TextSource, build_from_source, build_planned, readable_twice, run_job
    from tokenspace.store import Store

    with _bar() as watch:
        if not sources:
            manifest = run_job(Job.open(Store.of(out)), engine=engine, workers=workers, watch=watch)
        elif "-" in sources:
            place = _folder(out, "Write standard input to a file first, or give a folder of this machine")
            with readable_twice(sources, tokenizer) as readable:
                source = TextSource.files(readable, encoding, errors, text_field, id_field)
                tell = lambda task, done, total: watch(task, done, total, 0)  # noqa: E731
                manifest = build_from_source(source, tokenizer, place, validation, tell).manifest
        else:
            settings = TextSource.files(sources, encoding, errors, text_field, id_field).settings_with(validation)
            manifest = build_planned(sources, tokenizer, out, settings, engine=engine, workers=workers, watch=watch)
    describe(out, manifest, json)
    for line in manifest.statistics.remarks():
        remarks().print(line)


def plan(
    *sources: Sources,
    out: Place | None = None,
    tokenizer: str = "gpt2",
    validation: float | None = None,
    text_field: str = "text",
    id_field: str | None = None,
    encoding: str = "utf-8",
    errors: str = "strict",
    shard_size: str = "1GiB",
    estimate: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Divide text into tasks, for `corpus task` or `corpus build` to run; or only say what they will come to.

    Parameters
    ----------
    sources
        Files, folders, URLs, JSONL, Parquet, compressed or not.
    out
        The corpus folder to make, or a URL.
    tokenizer
        gpt2, a tokenizer file, or train:8000 to learn a vocabulary of that size.
    validation
        Share of the tokens kept for validation, by document. Default: a tenth, less for long texts.
    text_field
        Field of JSONL and Parquet rows that holds the text; a.b for b inside a.
    id_field
        Field that holds the document's own id, to be kept.
    encoding
        Of the text files.
    errors
        strict, or replace to go on after bytes that are no text in this encoding.
    shard_size
        Size at which a token file is closed, such as 256MiB or 2GB.
    estimate
        Say tokens, bytes and time from a sample, and plan nothing.
    json
        Print the counts as JSON.
    """
    check_sources(sources)
    from dataclasses import replace

    from tokenspace.corpus import TextSource, plan_corpus

    source = TextSource.files(sources, encoding, errors, text_field, id_field)
    settings = replace(source.settings_with(validation), shard_bytes=_bytes(shard_size))
    if estimate:
        _estimate(sources, tokenizer, settings, json)
        return
    if out is None:
        raise SettingError("out", "be given, or --estimate", "neither", "Give --out CORPUS")
    with _bar() as watch:
        job = plan_corpus(sources, tokenizer, out, settings, watch=watch)
    counts = {"corpus": job.store.place, "tasks": len(job.plan.tasks), "sources": len(job.plan.sources)}
    counts |= {"bytes": job.plan.num_bytes}
    if json:
        print_json(counts)
        return
    rows = [[f"{counts['tasks']:,}", f"{counts['sources']:,}", f"{counts['bytes']:,}"]]
    print_rows(["tasks", "sources", "bytes"], rows, job.store.place)
    remarks().print(f"next: tokenspace corpus task {out} --index 0, and so on to {len(job.plan.tasks) - 1};")
    remarks().print(f"then: tokenspace corpus commit {out}. Or all of it here: tokenspace corpus build --out {out}")


def task(corpus: PlaceArgument, /, *, index: int) -> None:
    """Run one task of a plan; on a published corpus, make its files anew.

    Parameters
    ----------
    corpus
        The corpus folder that `corpus plan` made, or its URL.
    index
        Number of the task, from 0.
    """
    from tokenspace.corpus import Job, repair
    from tokenspace.corpus.manifest import FILE_NAME
    from tokenspace.store import Store

    store = Store.of(corpus)
    with _bar() as watch:
        counts = [0, 0]
        total: int | None = None

        def advance(num_bytes: int, num_tokens: int) -> None:
            counts[0] += num_bytes
            counts[1] += num_tokens
            watch(f"task {index}", counts[0], total, counts[1])

        if store.size(FILE_NAME) is not None:
            repair(store, index, advance)
            remarks().print(f"{corpus}: the files of task {index} are as they were written")
            return
        job = Job.open(store)
        job.plan.check_index(index)
        total = job.plan.task_bytes(index)
        job.run(index, advance)
    remarks().print(f"{corpus}: task {index} of {len(job.plan.tasks)} is committed")


def commit(corpus: PlaceArgument, /, *, json: Json = False) -> None:
    """Check that all tasks of a plan are committed, and publish the corpus.

    Parameters
    ----------
    corpus
        The corpus folder that `corpus plan` made, or its URL.
    json
        Print the manifest's counts as JSON.
    """
    from tokenspace.corpus import Job, publish_job
    from tokenspace.store import Store

    manifest = publish_job(Job.open(Store.of(corpus)))
    describe(corpus, manifest, json)


def concat(*corpora: Sources, out: Place, json: Json = False) -> None:
    """Make one corpus of several, without tokenising again.

    Parameters
    ----------
    corpora
        Corpus folders of one tokenizer, in the order in which their tokens are to stand.
    out
        The corpus folder to make.
    json
        Print the manifest's counts as JSON.
    """
    check_sources(corpora)
    from tokenspace.corpus import concatenate

    place = _folder(out, "Give a folder of this machine")
    with _bar() as watch:
        manifest = concatenate(corpora, place, progress=lambda done, total: watch("joining", done, total, 0))
    describe(out, manifest, json)


def describe(place: str | Path, manifest: "Manifest", json: bool) -> None:
    """The counts of a corpus, on stdout."""
    splits = {
        name: {"documents": split.num_documents, "tokens": split.num_tokens} for name, split in manifest.splits.items()
    }
    if json:
        print_json({"corpus": str(place), "splits": splits})
        return
    rows = [[name, f"{counts['documents']:,}", f"{counts['tokens']:,}"] for name, counts in splits.items()]
    print_rows(["part", "documents", "tokens"], rows, str(place))


def _estimate(sources: tuple[str, ...], tokenizer: str, settings: "BuildSettings", json: bool) -> None:
    from dataclasses import asdict

    from tokenspace.corpus import estimate
    from tokenspace.tokenizer import Tokenizer

    if tokenizer.startswith("train:"):
        step = "Estimate with gpt2, or with the file of a vocabulary like the one you want"
        raise SettingError("tokenizer", "exist already for an estimate", tokenizer, step)
    found = estimate(sources, Tokenizer.from_spec(tokenizer), settings)
    if json:
        print_json(asdict(found))
        return
    rows = [[f"{found.source_bytes:,}", f"{found.documents:,}", f"{found.tokens:,}", f"{found.corpus_bytes:,}"]]
    rows[0].append(f"{found.seconds:,.1f}")
    print_rows(["bytes of text", "documents", "tokens", "bytes of ids", "seconds in one process"], rows)
    remarks().print(f"reckoned from {found.sampled_bytes:,} bytes")


def _folder(out: str, next_step: str) -> Path:
    if "://" in out:
        raise SettingError("out", "be a folder of this machine here", out, next_step)
    return Path(out)


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def _bytes(size: str) -> int:
    """A number of bytes out of 256MiB, 2GB and the like."""
    number = size.strip().rstrip("BKMGbkmgi ")
    unit = size.strip()[len(number) :].strip().lower()
    if not number.isdecimal() or not number.isascii() or unit not in _UNITS:
        raise SettingError("shard_size", "be a size such as 256MiB or 2GB", size, "Write a whole number and a unit")
    return int(number) * _UNITS[unit]


@contextmanager
def _bar() -> Iterator[Watch]:
    """A bar with speed, tokens and time left; drawn on a terminal only."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = remarks()
    name, tokens = TextColumn("{task.description}"), TextColumn("{task.fields[tokens]}")
    columns = (name, BarColumn(), DownloadColumn(), TransferSpeedColumn(), tokens, TimeRemainingColumn())
    bars = Progress(*columns, console=console, disable=not console.is_terminal)
    shown: dict[str, int] = {}

    def watch(task: str, done: int, total: int | None, tokens: int) -> None:
        bars.start()  # with the first work, so that a mistake shows no empty bar
        if task not in shown:
            for other in shown.values():
                bars.remove_task(other)
            shown.clear()
            shown[task] = bars.add_task(task, total=total, completed=done, tokens="")
        bars.update(shown[task], completed=done, tokens=f"{tokens:,} tokens" if tokens else "")

    try:
        yield watch
    except KeyboardInterrupt:
        console.print("what is committed stays: the same command goes on")
        raise
    finally:
        bars.stop()
