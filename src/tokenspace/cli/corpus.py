"""``tokenspace corpus``: token files on disk."""

import json as json_module
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from tokenspace.cli import building
from tokenspace.cli.flags import Json, Out, Sources, check_sources
from tokenspace.cli.show import print_json, print_rows, remarks
from tokenspace.errors import CorpusError, SettingError

app = App(name="corpus", help="Turn text into token files, check them, and trade them with other tools.")


for verb in (building.build, building.plan, building.task, building.commit, building.concat):
    app.command(verb)


@app.command
def verify(corpus: str, /, *, json: Json = False) -> None:
    """Check every file of a corpus against its checksums, and list all that is wrong.

    Parameters
    ----------
    corpus
        The corpus folder, or its URL.
    json
        Print the counts, or what is wrong, as JSON.
    """
    from tokenspace.corpus import Manifest, find_faults
    from tokenspace.corpus.manifest import FILE_NAME
    from tokenspace.store import Store

    store = Store.of(corpus)
    with _bar("verifying") as progress:
        faults = find_faults(store, progress)
    if not faults:
        building.describe(corpus, Manifest.from_bytes(store.read(FILE_NAME)), json)
        remarks().print(f"{corpus}: every file is as it was written")
        return
    if json:
        print_json({"corpus": corpus, "faults": [asdict(fault) for fault in faults]})
    else:
        rows = [[fault.where, fault.found, "" if fault.task is None else str(fault.task)] for fault in faults]
        print_rows(["where", "found", "task"], rows, corpus)
    tasks = sorted({fault.task for fault in faults if fault.task is not None})
    step = "Build the corpus again, or copy the file again from where it is whole"
    if tasks and all(fault.task is not None for fault in faults):
        others = f", and with {', '.join(map(str, tasks[1:]))}" if tasks[1:] else ""
        step = f"Run `tokenspace corpus task {corpus} --index {tasks[0]}`{others}: it makes the files anew"
    more = f" (and {len(faults) - 1} more)" if faults[1:] else ""
    found = f"damaged: {faults[0].where}: {faults[0].found}{more}"
    raise CorpusError(f"corpus {corpus}", "be as it was written", found, step)


@app.command(name="import")
def import_(
    *files: Sources,
    out: Out,
    tokenizer: str,
    format: Literal["nanogpt", "megatron"] | None = None,
    dtype: Literal["uint16", "uint32", "int32"] = "uint16",
    end_of_text: Literal["append", "prepend"] | None = None,
    json: Json = False,
) -> None:
    """Make a corpus of token files that another tool wrote.

    Parameters
    ----------
    files
        .bin files, prefixes of .bin and .idx, or folders of them; those named val, valid or validation are for
        validation.
    out
        The corpus folder to make.
    tokenizer
        What made the ids: gpt2, or a tokenizer file.
    format
        nanogpt (llm.c and modded-nanogpt too) or megatron. Default: megatron where there is an .idx beside each .bin.
    dtype
        Of the ids of nanogpt files without a header.
    end_of_text
        Whether the end-of-text token ends a document of nanogpt files (append) or begins it (prepend). Default:
        prepend for files with a header, else append.
    json
        Print the manifest's counts as JSON.
    """
    check_sources(files)
    from tokenspace import Tokenizer
    from tokenspace.corpus.interchange import guess_format, import_megatron, import_nanogpt

    made_with = Tokenizer.from_spec(tokenizer)
    with _bar("importing") as progress:
        if (format or guess_format(files)) == "megatron":
            corpus = import_megatron(files, out, tokenizer=made_with, progress=progress)
        else:
            settings = {"dtype": dtype, "end_of_text": end_of_text, "progress": progress}
            corpus = import_nanogpt(files, out, tokenizer=made_with, **settings)
    building.describe(out, corpus.manifest, json)
    for line in corpus.manifest.statistics.remarks():
        remarks().print(line)


@app.command
def export(corpus: str, /, *, out: Out, format: Literal["nanogpt", "llm.c", "megatron"], json: Json = False) -> None:
    """Write a corpus as token files of another tool.

    Parameters
    ----------
    corpus
        The corpus folder, or its URL.
    out
        The folder to make.
    format
        nanogpt: train.bin and val.bin; llm.c: .bin files with a header, for modded-nanogpt too; megatron: .bin and
        .idx, with the lists that its trainer takes.
    json
        Print the names of the files as JSON.
    """
    from tokenspace.corpus.interchange import export as write

    with _bar("exporting") as progress:
        write(corpus, out, format=format, progress=progress)
    names = sorted(path.name for path in out.iterdir())
    if json:
        print_json({"out": str(out), "files": names})
        return
    print_rows(["file", "bytes"], [[name, f"{(out / name).stat().st_size:,}"] for name in names], str(out))


@app.command
def where(corpus: str, /, *, state: Path, step: int, batch_size: int | None = None, json: Json = False) -> None:
    """Name the documents in a past batch of a training, to explain a loss that jumped.

    Parameters
    ----------
    corpus
        The corpus folder, or its URL.
    state
        The run folder; or a JSON file of a WindowLoader's state_dict, any of that training.
    step
        Which step, from 1.
    batch_size
        Windows of a step, of all processes together. Default: the run's.
    json
        Print one JSON value, with every document.
    """
    from tokenspace import Corpus
    from tokenspace.loader import documents_in_batch

    found, size = _loader_state(state)
    batch_size = batch_size or size
    if batch_size is None:
        raise SettingError("batch_size", "be given with a loader's state", "absent", "Give --batch-size")
    documents = documents_in_batch(Corpus.open(corpus), found, batch_size=batch_size, step=step)
    if json:
        print_json({"step": step, "documents": [asdict(document) for document in documents]})
        return
    rows = [[str(d.window), f"{d.start:,}", str(d.num_tokens), d.source, str(d.row + 1), d.id or ""] for d in documents]
    print_rows(["window", "from token", "tokens", "source", "row", "id"], rows, f"Batch of step {step:,}")


def _loader_state(path: Path) -> tuple[dict[str, Any], int | None]:
    """A loader's state, and the batch size where it is a run's."""
    from tokenspace import Run
    from tokenspace.checkpoint.state import latest_checkpoint

    file, size = path, None
    if path.is_dir():
        run = Run.from_folder(path)
        file, size = latest_checkpoint(run.checkpoints) / "state.json", run.config["training"]["batch_size"]
    try:
        fields = json_module.loads(file.read_bytes())
        return fields.get("loader", fields), size
    except (OSError, ValueError, AttributeError) as error:
        raise CorpusError(str(file), "be the state of a loader", error, "Give a run folder") from error


@contextmanager
def _bar(task: str) -> Iterator[Callable[[int, int], None]]:
    from tokenspace.cli.watch import TerminalWatcher
    from tokenspace.training import Progress

    with TerminalWatcher() as watch:
        yield lambda done, total: watch(Progress(task, done, total))
