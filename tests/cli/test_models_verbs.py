"""`verify`, `inspect`, `export` and `generate` on models of other tools, and by their names in the hub's cache."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import tokenspace
from tokenspace import Run, open_tables

VECTORS = "4 2\nking 1 0.1\nqueen 0.9 0.2\ncat -1 0\n␣dog -0.9 0.1\n"


@pytest.fixture
def vectors(tmp_path):
    """word2vec text."""
    path = tmp_path / "a.vec"
    path.write_text(VECTORS, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def gpt2(trained, tmp_path_factory):
    """A small model as transformers has it."""
    from tokenspace import export

    out = tmp_path_factory.mktemp("hf") / "hf"
    export(trained, out)
    return out


@pytest.fixture
def llama(tmp_path):
    """Tables alone: what is looked at needs no layers."""
    folder = tmp_path / "llama"
    folder.mkdir()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4, "num_attention_heads": 2}
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 8}))
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(6, 4, generator=generator) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    save_file(tensors, folder / "model.safetensors")
    return folder


# verify


def test_verify_says_that_nothing_is_wrong(command, gpt2):
    outcome = command("verify", gpt2)
    assert outcome.status == 0 and "nothing wrong was found" in outcome.err
    assert outcome.out.startswith(f"{gpt2}: gpt2, ")
    assert "note: unreachable-tokens, tokenizer.json" in outcome.out


def test_verify_says_what_is_wrong_where_and_what_to_do(command, llama):
    outcome = command("verify", llama)
    assert outcome.status == 1 and "nothing wrong" not in outcome.err
    assert outcome.out.splitlines()[2:] == [
        "warning: no-tokenizer, tokenizer.json",
        "  there is none, so tokens were not checked",
        "  Save it there: AutoTokenizer.from_pretrained(…).save_pretrained(…).",
    ]


def test_verify_for_machines(command, llama):
    outcome = command("verify", llama, "--json")
    fields = json.loads(outcome.out)
    assert outcome.status == 1
    assert (fields["family"], fields["num_rows"], fields["vocab_size"], fields["sound"]) == ("llama", 6, None, False)
    assert fields["findings"][0]["level"] == "warning" and fields["findings"][0]["ids"] == []


def test_verify_of_what_is_no_model(command, tmp_path):
    outcome = command("verify", tmp_path / "none")
    assert outcome.status == 2 and "must be a folder, a file of vectors, or a model of the local" in outcome.error_line


def test_verify_takes_a_table_by_name(command, tmp_path):
    save_file({"a": torch.eye(3), "b": torch.zeros(2, 3)}, tmp_path / "m.safetensors")
    assert command("verify", tmp_path / "m.safetensors").status == 2
    assert command("verify", tmp_path / "m.safetensors", "--table", "a").status == 0
    assert command("verify", tmp_path / "m.safetensors", "--table", "b").status == 1


# inspect


def test_inspect_shows_the_tables_of_a_model(command, llama):
    out = command("inspect", llama).out
    assert out.startswith(f"{llama}, llama: 6 rows of float32, no tokenizer, head of its own, 'rotary' positions")
    assert "token table" in out and "head  " in out and "'rotary' positions add nothing to the input embedding." in out


def test_inspect_for_machines(command, llama, gpt2, trained):
    fields = json.loads(command("inspect", llama, "--json").out)
    assert [table["name"] for table in fields["tables"]] == ["token table", "head"]
    assert (fields["family"], fields["step"], fields["tied"], fields["vocab_size"]) == ("llama", None, False, None)
    own, written = (json.loads(command("inspect", path, "--json").out)["tables"] for path in (trained.path, gpt2))
    assert own == written and [table["name"] for table in own] == ["token table", "learned positions"]


def test_inspect_finds_the_neighbours_of_a_word(command, vectors):
    fields = json.loads(command("inspect", vectors, "--token", "king", "--neighbours", "1", "--json").out)
    assert [(n["id"], n["label"]) for n in fields["neighbours"]["nearest"]] == [(1, "queen")]
    fields = json.loads(command("inspect", vectors, "--token", " dog", "--neighbours", "1", "--json").out)
    assert fields["neighbours"]["label"] == "␣dog" and fields["neighbours"]["nearest"][0]["label"] == "cat"


def test_inspect_without_a_tokenizer_takes_ids(command, llama):
    fields = json.loads(command("inspect", llama, "--token", "3", "--json").out)
    assert fields["neighbours"]["label"] == r"\id{3}" and len(fields["neighbours"]["nearest"]) == 5
    assert "must be an id, as the model has no tokenizer" in command("inspect", llama, "--token", "a").error_line


def test_inspect_of_untrained_tokens_needs_no_ledger(command, gpt2):
    fields = json.loads(command("inspect", gpt2, "--untrained", "--json").out)
    assert len(fields["indicators"]["tokens"]) == 20


def test_inspect_tokens_and_order_take_any_model(command, gpt2):
    assert command("inspect", "tokens", "the cat", gpt2).status == 0
    assert command("inspect", "order", "the cat", "cat the", gpt2).status == 0


def test_inspect_leaves_out_a_spectrum_that_would_take_minutes(command, llama, monkeypatch):
    monkeypatch.setattr("tokenspace.cli.inspect._AFFORDABLE", 10)
    outcome = command("inspect", llama)
    assert "effective rank" not in outcome.out and "is left out" in outcome.err


def test_a_name_in_the_hubs_cache(command, gpt2, tmp_path, monkeypatch):
    home = tmp_path / "hub" / "models--me--mine"
    (home / "snapshots").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    (home / "snapshots" / "abc").mkdir()
    for file in gpt2.iterdir():
        (home / "snapshots" / "abc" / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert "me--mine" in command("inspect", "me/mine").out
    assert command("verify", "me/mine").status == 0
    assert command("generate", "me/mine", "--tokens", "3", "--seed", "1").status == 0
    assert "`hf download me/other`" in command("inspect", "me/other").error_line


# generate, export


def test_generate_goes_on_with_a_gpt_2(command, gpt2, trained):
    arguments = ("--prompt", "The cat", "--tokens", "5", "--temperature", "0", "--json")
    assert command("generate", gpt2, *arguments).out == command("generate", trained.path, *arguments).out


def test_generate_refuses_other_families_by_name(command, llama):
    error = command("generate", llama).error_line
    assert "llama" in error or "tokenizer" in error


@pytest.mark.parametrize("format", ["safetensors", "word2vec", "npy"])
def test_export_of_any_model(command, llama, tmp_path, format):
    out = tmp_path / f"out.{'vec' if format == 'word2vec' else format}"
    outcome = command("export", llama, "-o", out, "--format", format, "--lossy")
    assert outcome.status == 0 and str(out) in outcome.err
    assert torch.equal(open_tables(out).token.tensor(), open_tables(llama).token.tensor())


def test_export_refuses_what_would_be_lost(command, llama, tmp_path):
    error = command("export", llama, "-o", tmp_path / "a.npy", "--format", "npy").error_line
    assert "must have room for rotary positions, a head of its own, but is 'npy'" in error
    assert not (tmp_path / "a.npy").exists()


def test_export_of_a_run_of_other_positions(command, tmp_path):
    sizes = {"d_model": 8, "context_length": 8, "num_layers": 1, "num_heads": 2, "steps": 2}
    run = tokenspace.train(documents=["a b " * 99], out=tmp_path / "r", tokenizer="train:270", positions="t5", **sizes)
    outcome = command("export", run.path, "-o", tmp_path / "out")
    assert "tokenspace.Run.open(" in outcome.err
    assert Run.open(tmp_path / "out").tables.scheme[0] == "t5"


def test_export_of_a_named_table(command, tmp_path):
    save_file({"a": torch.eye(3), "b": torch.zeros(2, 3)}, tmp_path / "m.safetensors")
    command("export", tmp_path / "m.safetensors", "-o", tmp_path / "a.npy", "--format", "npy", "--table", "a")
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.eye(3))
