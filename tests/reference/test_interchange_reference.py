"""Megatron-core itself, in a process of its own, reads what is exported and writes what is imported."""

import json
import subprocess
import sys

import pytest

from tokenspace.corpus import Corpus, build_corpus
from tokenspace.corpus.interchange import export, import_megatron
from tokenspace.text import read_strings
from tokenspace.tokenizer import Tokenizer

pytest.importorskip("megatron")  # the package megatron-core

EOT = 50256
TEXTS = ["The cat sat on the mat.", "", *(f"document {n}: " + "word " * n for n in range(60)), "बिल्ली चटाई पर बैठी"]
SEQUENCES = [[[1, 2, 3], [4]], [[5, EOT]], [[]], [[6], [], [7, 8]]]  # of each document

MEGATRON = """
import json, sys
import numpy, torch
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder
from megatron.core.datasets.utils import get_blend_from_list

folder, documents, sequences = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])

def write(name, dtype, documents):
    builder = IndexedDatasetBuilder(f"{folder}/{name}.bin", dtype=dtype)
    for parts in documents:
        builder.add_document(torch.tensor(sum(parts, []), dtype=torch.int64), list(map(len, parts)))
    builder.finalize(f"{folder}/{name}.idx")

write("same", numpy.uint16, [[document] for document in documents])
for dtype in (numpy.uint16, numpy.int32, numpy.int64):
    write(f"sequences-{dtype.__name__}", dtype, sequences)

def read(prefix, mmap):
    dataset = IndexedDataset(prefix, mmap=mmap)
    bounds = dataset.document_indices.tolist()
    return [sum((dataset[n].tolist() for n in range(a, b)), []) for a, b in zip(bounds, bounds[1:])]

splits = json.load(open(f"{folder}/exported/splits.json"))
found = {}
for split in ("train", "valid"):
    prefixes, weights = get_blend_from_list(splits[split])
    name = {"train": "train", "valid": "validation"}[split]
    assert get_blend_from_list(open(f"{folder}/exported/{name}.txt").read().split()) == (prefixes, weights)
    read_twice = [[read(prefix, mmap) for prefix in prefixes] for mmap in (True, False)]
    assert read_twice[0] == read_twice[1]
    found[split] = {"documents": sum(read_twice[0], []), "weights": weights,
                    "tokens": [sum(map(len, shard)) for shard in read_twice[0]]}
print(json.dumps(found))
"""


def documents_of(corpus):
    return [corpus.document(nth).tolist() for nth in range(corpus.num_documents)]


@pytest.fixture(scope="module")
def gpt2():
    return Tokenizer.gpt2()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, gpt2):
    out = tmp_path_factory.mktemp("reference") / "corpus"
    return build_corpus(read_strings(TEXTS), gpt2, out, validation_fraction=0.2, shard_bytes=900)


@pytest.fixture(scope="module")
def folder(corpus, gpt2):
    """With an export, a corpus of one shard, and what Megatron-core wrote and found."""
    folder = corpus.path.parent
    export(corpus.path, folder / "exported", format="megatron")
    build_corpus(read_strings(TEXTS), gpt2, folder / "one", validation_fraction=0)
    export(folder / "one", folder / "one-exported", format="megatron")
    documents = json.dumps(documents_of(Corpus.open(folder / "one")))
    arguments = [sys.executable, "-W", "ignore", "-c", MEGATRON, folder, documents, json.dumps(SEQUENCES)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "found.json").write_text(done.stdout.splitlines()[-1], encoding="utf-8")
    return folder


def test_megatron_reads_every_document_of_the_export(folder, corpus):
    found = json.loads((folder / "found.json").read_bytes())
    assert len(corpus.manifest.splits["train"].shards) > 2
    assert found["train"]["documents"] == documents_of(corpus)
    assert found["valid"]["documents"] == documents_of(Corpus.open(corpus.path, "validation"))


def test_megatron_reads_the_lists_with_tokens_as_weights(folder):
    for part in json.loads((folder / "found.json").read_bytes()).values():
        assert part["weights"] == part["tokens"]


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_the_export_is_what_megatrons_builder_writes_byte_for_byte(folder, suffix):
    exported = (folder / "one-exported" / "train-00000").with_suffix(suffix).read_bytes()
    assert exported == (folder / "same").with_suffix(suffix).read_bytes()


@pytest.mark.parametrize("dtype", ["uint16", "int32", "int64"])
def test_what_megatrons_builder_writes_is_imported(folder, tmp_path, gpt2, dtype):
    corpus = import_megatron([folder / f"sequences-{dtype}"], tmp_path / "c", tokenizer=gpt2)
    assert documents_of(corpus) == [sum(document, []) for document in SEQUENCES]  # noqa: RUF017
