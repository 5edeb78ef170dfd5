"""``tokenspace corpus``: token files on disk."""

from pathlib import Path

from cyclopts import App

from tokenspace.cli.flags import Json, Out, Sources, check_sources
from tokenspace.cli.show import print_json, print_rows, remarks

app = App(name="corpus", help="Turn text into token files, and check them.")


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
        Files, folders, JSONL, Parquet, "-" for standard input.
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
