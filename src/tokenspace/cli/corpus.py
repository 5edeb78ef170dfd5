"""``tokenspace corpus``: token files on disk."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cyclopts import App

from tokenspace.cli.flags import Json, Out, Sources, check_sources
from tokenspace.cli.show import print_json, print_rows, remarks

app = App(name="corpus", help="Turn text into token files, check them, and trade them with other tools.")


@app.command
def build(
    *sources: Sources,
    out: Out,
    tokenizer: str = "gpt2",
    validation: float | None = None,
    text_field: str = "text",
    encoding: str = "utf-8",
    errors: str = "strict",
    json: Json = False,
) -> None:
    """Encode text into a corpus folder that appears whole or not at all.

    Parameters
    ----------
    sources
        Files, folders, URLs, JSONL, Parquet, compressed or not; "-" for standard input.
    out
        The corpus folder to make.
    tokenizer
        gpt2, a tokenizer file, or train:8000 to learn a vocabulary of that size.
    validation
        Share of the tokens kept for validation, by document. Default: a tenth, less for long texts.
    text_field
        Field of JSONL and Parquet rows that holds the text.
    encoding
        Of the text files.
    errors
        strict, or replace to go on after bytes that are no text in this encoding.
    json
        Print the manifest's counts as JSON.
    """
    check_sources(sources)
    from tokenspace.cli.watch import TerminalWatcher
    from tokenspace.corpus import TextSource, build_from_source, readable_twice
    from tokenspace.training import Progress

    with TerminalWatcher() as watch, readable_twice(sources, tokenizer) as readable:
        source = TextSource.files(readable, encoding, errors, text_field)
        corpus = build_from_source(source, tokenizer, out, validation, lambda *done: watch(Progress(*done)))
    _describe(out, json)
    for line in corpus.manifest.statistics.remarks():
        remarks().print(line)


@app.command
def verify(corpus: Path, /, *, json: Json = False) -> None:
    """Check every block of a corpus against its checksums.

    Parameters
    ----------
    corpus
        The corpus folder.
    json
        Print the counts as JSON.
    """
    from tokenspace import Corpus

    first = Corpus.open(corpus)
    first.tokenizer()
    for split in first.manifest.splits:
        Corpus.open(corpus, split=split).verify()
    _describe(corpus, json)
    remarks().print(f"{corpus}: every block is as it was written")


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
    _describe(out, json)
    for line in corpus.manifest.statistics.remarks():
        remarks().print(line)


@app.command
def export(corpus: Path, /, *, out: Out, format: Literal["nanogpt", "llm.c", "megatron"], json: Json = False) -> None:
    """Write a corpus as token files of another tool.

    Parameters
    ----------
    corpus
        The corpus folder.
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


@contextmanager
def _bar(task: str) -> Iterator[Callable[[int, int], None]]:
    from tokenspace.cli.watch import TerminalWatcher
    from tokenspace.training import Progress

    with TerminalWatcher() as watch:
        yield lambda done, total: watch(Progress(task, done, total))


def _describe(path: Path, json: bool) -> None:
    from tokenspace import Corpus

    manifest = Corpus.open(path).manifest
    splits = {
        name: {"documents": split.num_documents, "tokens": split.num_tokens} for name, split in manifest.splits.items()
    }
    if json:
        print_json({"corpus": str(path), "splits": splits})
        return
    rows = [[name, f"{counts['documents']:,}", f"{counts['tokens']:,}"] for name, counts in splits.items()]
    print_rows(["part", "documents", "tokens"], rows, str(path))
