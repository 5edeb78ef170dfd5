"""The verbs `atlas` and `export --format parquet`, frames of `train`, and what they refuse."""

import json
import re
import shutil
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from tokenspace import Run

STORY = "The cat sat on the mat, and the dog slept by the door in the evening. " * 60
WORDING = re.compile(r"`[^`]+` must .+, but is .+\. [A-Z].*[.?]")


@pytest.fixture
def refused(command, tmp_path):
    """Calls the command line, and gives the one line of a refusal that left nothing behind."""

    def call(*arguments):
        before = sorted(tmp_path.rglob("*"))
        result = command(*arguments)
        assert result.status == 2, result
        assert WORDING.fullmatch(result.error_line), result.error_line
        assert result.err == f"error: {result.error_line}\n"
        assert sorted(tmp_path.rglob("*")) == before
        return result.error_line

    return call


@pytest.fixture
def copy(trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "run")
    return Run.open(tmp_path / "run")


# atlas


def test_atlas_says_what_it_wrote(command, trained, tmp_path):
    out = tmp_path / "space.html"
    result = command("atlas", trained.path, "-o", out)
    assert result.status == 0 and result.err == ""
    V, frames = trained.config["model"]["vocab_size"], len(trained.projections().steps)
    line = rf"{V} tokens and {frames} frames in {re.escape(str(out))} \(\d+\.\d MB\), made in \d+ s\. "
    assert re.fullmatch(line + r"Open it in a browser\.\n", result.out)
    assert out.is_file()


def test_atlas_without_out_is_written_here(command, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("atlas", trained.path).status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["atlas.html"]


def test_atlas_json(command, trained, tmp_path):
    result = command("atlas", trained.path, "-o", tmp_path / "a.html", "--json")
    fields = json.loads(result.out)
    assert list(fields) == ["out", "bytes", "seconds", "tokens", "frames", "health", "notes"]
    assert fields["bytes"] == (tmp_path / "a.html").stat().st_size
    assert fields["frames"] == trained.projections().steps


def test_atlas_of_a_gpt2_folder_says_what_is_missing(command, trained, tmp_path):
    command("export", trained.path, "-o", tmp_path / "hf")
    result = command("atlas", tmp_path / "hf", "-o", tmp_path / "a.html")
    assert result.status == 0
    assert result.err == "A model from elsewhere: no ledger, no frames, no losses and no text to measure on.\n"


@pytest.fixture
def odd(trained, tmp_path):
    """A folder of no known family, whose table only its name tells."""
    (tmp_path / "odd").mkdir()
    settings = {"model_type": "gpt_neox", "hidden_size": 8}
    (tmp_path / "odd" / "config.json").write_text(json.dumps(settings))
    V = trained.tokenizer.vocab_size
    save_file({"wanted": torch.randn(V, 8), "other": torch.randn(V, 8)}, tmp_path / "odd" / "model.safetensors")
    trained.tokenizer.save(tmp_path / "odd" / "tokenizer.json")
    return tmp_path / "odd"


def test_atlas_takes_the_table_that_its_refusal_asks_for(refused, command, odd, tmp_path):
    assert "--table" in refused("atlas", odd, "-o", tmp_path / "a.html")
    assert command("atlas", odd, "-o", tmp_path / "a.html", "--table", "wanted").status == 0


def test_parquet_is_of_the_table_that_was_named(command, odd, tmp_path):
    out = tmp_path / "a.parquet"
    assert command("export", odd, "-o", out, "--format", "parquet", "--table", "wanted").status == 0
    table = load_file(odd / "model.safetensors")["wanted"]
    assert torch.equal(torch.tensor(pq.read_table(out)["vector"].to_pylist()), table)


def test_one_frame_is_said_in_the_singular(command, trained, tmp_path):
    command("export", trained.path, "-o", tmp_path / "hf")
    result = command("atlas", tmp_path / "hf", "-o", tmp_path / "a.html")
    assert " and 1 frame in " in result.out


def test_atlas_of_a_run_without_frames_says_how_to_get_them(command, story, tmp_path):
    settings = [part for pair in ("d_model=16", "context_length=16", "steps=4") for part in ("-c", pair)]
    arguments = ["train", story, "-o", tmp_path / "run", "--tokenizer", "train:300", "--frames", "0", *settings]
    assert command(*arguments).status == 0
    result = command("atlas", tmp_path / "run", "-o", tmp_path / "a.html")
    assert result.err == "This run kept no frames on the way: train with --frames 24 to play the training back.\n"


def test_atlas_over_an_existing_file(refused, trained, tmp_path):
    (tmp_path / "a.html").write_text("mine")
    assert refused("atlas", trained.path, "-o", tmp_path / "a.html").startswith("`out` must ")
    assert (tmp_path / "a.html").read_text() == "mine"


def test_folders_on_the_way_to_the_output_are_made(command, trained, tmp_path):
    page, table = tmp_path / "new" / "a.html", tmp_path / "other" / "a.parquet"
    assert command("atlas", trained.path, "-o", page).status == 0
    assert command("export", trained.path, "-o", table, "--format", "parquet").status == 0
    assert page.is_file() and table.is_file()


def test_atlas_of_no_run(refused, tmp_path):
    assert refused("atlas", tmp_path / "none", "-o", tmp_path / "a.html").startswith(
        "`model` must be a folder, a file of vectors, or a model of the local Hugging Face cache"
    )


@pytest.mark.parametrize(
    "name",
    ["config.toml", "tokenizer.json", "ledger.safetensors", "metrics.jsonl", "frames/projections.safetensors"],
)
def test_atlas_of_a_corrupt_run(refused, copy, tmp_path, name):
    path = copy.path / name
    path.write_bytes(path.read_bytes()[:-20] + b"\x00\n")
    refused("atlas", copy.path, "-o", tmp_path / "a.html")


def test_atlas_of_a_run_whose_checkpoints_are_gone(refused, copy, tmp_path):
    shutil.rmtree(copy.checkpoints)
    assert "checkpoint" in refused("atlas", copy.path, "-o", tmp_path / "a.html")


def test_atlas_on_a_full_disk(refused, trained, tmp_path, monkeypatch):
    from tokenspace.errors import DiskError

    def full(data, out):
        raise DiskError(str(out), "have room", "a full disk", "Free some")

    monkeypatch.setattr("tokenspace.atlas.atlas.write_page", full)
    refused("atlas", trained.path, "-o", tmp_path / "a.html")


@pytest.mark.parametrize(("name", "module"), [("umap", "umap"), ("tsne", "openTSNE")])
def test_a_projection_that_is_not_installed(refused, trained, tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    line = refused("atlas", trained.path, "-o", tmp_path / "a.html", "--projection", name)
    assert line.endswith(f"Run `pip install 'tokenspace[{name}]'`, or use pca.")


def test_an_unknown_projection(command, trained, tmp_path):
    result = command("atlas", trained.path, "-o", tmp_path / "a.html", "--projection", "lda")
    assert result.status == 2 and "pca" in result.error_line


def test_progress_is_drawn_on_a_terminal_only(monkeypatch):
    from tokenspace.cli import bars as module

    shown = []
    with module.Bars() as bars:
        monkeypatch.setattr(bars._bars, "update", lambda task, **fields: shown.append(fields))
        bars("neighbours", 3, 10)
        bars("opening", 0, 1)
    assert bars._bars.disable
    assert shown == [
        {"description": "neighbours", "completed": 3, "total": 10},
        {"description": "opening", "completed": 0, "total": None},
    ]


# frames


def test_train_keeps_as_many_frames_as_asked_for(command, story, tmp_path):
    arguments = ["-o", tmp_path / "run", "--tokenizer", "train:300", "-c", "d_model=8", "-c", "steps=9"]
    assert command("train", story, *arguments, "--frames", "3").status == 0
    assert Run.open(tmp_path / "run").projections().steps == [0, 1, 4, 9]


def test_24_frames_are_kept_by_default(trained):
    assert trained.config["training"]["frames"] == 24
    assert len(trained.projections().steps) == 1 + 24


def test_fewer_than_no_frames(refused, story, tmp_path):
    line = refused("train", story, "-o", tmp_path / "run", "--tokenizer", "train:300", "--frames", "-1")
    assert line.startswith("`frames` must be a whole number of at least 0, but is -1")


@pytest.mark.parametrize("number", ["0", "12"])
def test_frames_are_settled_where_a_run_goes_on(refused, trained, number):
    line = refused("train", "--resume", trained.path, "--frames", number)
    assert line.startswith("`--frames` must not be given with --resume")


def test_the_end_of_a_training_names_the_atlas(command, story, tmp_path):
    arguments = ["-o", tmp_path / "run", "--tokenizer", "train:300", "-c", "d_model=8", "-c", "steps=2"]
    assert f"tokenspace atlas {tmp_path / 'run'}" in command("train", story, *arguments).out


def test_the_demo_ends_with_an_atlas(command, tmp_path, monkeypatch):
    monkeypatch.setattr("tokenspace.prose.documents", lambda: [STORY])  # all of it takes a minute
    arguments = ["-o", tmp_path / "run", "-c", "d_model=16", "-c", "steps=3", "-c", "context_length=16"]
    result = command("demo", *arguments, "--tokenizer", "train:300")
    assert result.status == 0
    assert result.out.endswith(f"See the space: open {tmp_path / 'run' / 'atlas.html'} in a browser.\n")
    assert (tmp_path / "run" / "atlas.html").is_file()


# parquet


def test_parquet_says_how_to_open_it(command, trained, tmp_path):
    out = tmp_path / "tokens.parquet"
    result = command("export", trained.path, "-o", out, "--format", "parquet")
    assert result.status == 0 and result.out == ""
    assert result.err == (
        f"written to {out}; open it with `embedding-atlas {out} --text token --x x --y y --neighbors neighbors`\n"
    )
    table = pq.read_table(out)
    assert {"token", "x", "y", "neighbors"} <= set(table.column_names)
    assert np.isfinite(table["x"].to_numpy()).all()


def test_parquet_over_an_existing_file(refused, trained, tmp_path):
    (tmp_path / "tokens.parquet").touch()
    refused("export", trained.path, "-o", tmp_path / "tokens.parquet", "--format", "parquet")


def test_an_unknown_format(command, trained, tmp_path):
    result = command("export", trained.path, "-o", tmp_path / "x", "--format", "csv")
    assert result.status == 2 and "parquet" in result.error_line
