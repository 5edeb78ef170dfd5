"""`corpus import` and `corpus export`: what they write, what they print, and their mistakes."""

import json

import numpy as np
import pytest

from tokenspace import Corpus

EOT = 50256


@pytest.fixture
def nanogpt(tmp_path):
    """A folder as nanoGPT's prepare.py leaves it."""
    folder = tmp_path / "openwebtext"
    folder.mkdir()
    (folder / "prepare.py").write_text("", encoding="utf-8")
    np.array([464, 3797, EOT, 464, 3290, EOT], "<u2").tofile(folder / "train.bin")
    np.array([464, EOT], "<u2").tofile(folder / "val.bin")
    return folder


@pytest.fixture
def corpus(command, nanogpt, tmp_path):
    """The same, imported."""
    out = tmp_path / "corpus"
    assert command("corpus", "import", nanogpt, "-o", out, "--tokenizer", "gpt2").status == 0
    return out


def test_import_says_the_counts_on_stdout_and_how_well_the_tokenizer_fits_on_stderr(command, nanogpt, tmp_path):
    result = command("corpus", "import", nanogpt, "-o", tmp_path / "c", "--tokenizer", "gpt2", "--json")
    assert result.status == 0
    assert json.loads(result.out)["splits"] == {
        "train": {"documents": 2, "tokens": 6},
        "validation": {"documents": 1, "tokens": 2},
    }
    assert "1.00 tokens a word" in result.err  # The cat The dog The: five tokens, five words


@pytest.mark.parametrize("format", ["nanogpt", "llm.c", "megatron"])
def test_every_export_is_imported_again_without_naming_the_format(command, corpus, tmp_path, format):
    assert command("corpus", "export", corpus, "-o", tmp_path / "out", "--format", format).status == 0
    arguments = ("corpus", "import", tmp_path / "out", "-o", tmp_path / "again", "--tokenizer", "gpt2")
    assert command(*arguments, "--end-of-text", "append").status == 0
    for split in ("train", "validation"):
        first, second = Corpus.open(corpus, split), Corpus.open(tmp_path / "again", split)
        assert second.document_bounds.tolist() == first.document_bounds.tolist()
        assert second.tokens(0, second.num_tokens).tolist() == first.tokens(0, first.num_tokens).tolist()


def test_an_import_is_verified_like_any_corpus(command, corpus):
    assert command("corpus", "verify", corpus).status == 0


def test_the_format_and_the_dtype_can_be_said(command, tmp_path):
    np.array([464, EOT], "<u4").tofile(tmp_path / "a.bin")
    options = ("--tokenizer", "gpt2", "--format", "nanogpt", "--dtype", "uint32")
    assert command("corpus", "import", tmp_path / "a.bin", "-o", tmp_path / "c", *options).status == 0
    assert Corpus.open(tmp_path / "c").document(0).tolist() == [464, EOT]


def test_export_lists_the_files(command, corpus, tmp_path):
    arguments = ("corpus", "export", corpus, "--format", "nanogpt", "-o")
    fields = json.loads(command(*arguments, tmp_path / "a", "--json").out)
    assert fields["files"] == ["meta.json", "tokenizer.json", "train.bin", "val.bin"]
    out = command(*arguments, tmp_path / "b").out
    assert "val.bin" in out and "bytes" in out


def test_mistakes_are_one_line_and_status_2(command, nanogpt, corpus, tmp_path):
    out = ("-o", tmp_path / "new", "--tokenizer", "gpt2")
    for arguments, message in (
        (("import", tmp_path / "none.bin", *out), "`files` must be token files that exist"),
        (("import", *out), "`files` must name at least one token file"),
        (("import", nanogpt / "prepare.py", *out), "`files` must be token files that exist"),
        (("import", nanogpt, "-o", tmp_path / "new"), "--tokenizer"),
        (("import", nanogpt, "-o", tmp_path / "new", "--tokenizer", "train:300"), "There is no text to train one on"),
        (("import", nanogpt, *out, "--format", "megatron"), "`files` must have an index beside each .bin"),
        (("import", nanogpt, *out, "--format", "npy"), "npy"),
        (("import", "--bad", *out), "`flag` must be one that --help lists"),
        (("export", corpus, "-o", corpus, "--format", "nanogpt"), "`out` must not exist yet"),
        (("export", tmp_path / "none", "-o", tmp_path / "new", "--format", "nanogpt"), "`corpus` must be a folder"),
        (("export", corpus, "-o", tmp_path / "new"), "--format"),
    ):
        result = command("corpus", *arguments)
        assert result.status == 2
        assert message in result.error_line
        assert not (tmp_path / "new").exists()
