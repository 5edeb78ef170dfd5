"""Every export round trips, refuses what it cannot hold by name, and appears whole or not at all."""

import errno
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import tokenspace
from tokenspace import InputEmbedding, Run, export, inspection, open_tables, vocabulary
from tokenspace.checkpoint.exporting import losses
from tokenspace.checkpoint.models import in_parquet
from tokenspace.checkpoint.models.words import label_bytes
from tokenspace.errors import DiskError, SettingError, TokenspaceError

IDS = torch.tensor([[3, 1, 4, 1, 5]])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Small runs by scheme, made when asked for."""
    made = {}

    def of(positions):
        if positions not in made:
            out = tmp_path_factory.mktemp("runs") / positions
            sizes = {"d_model": 8, "context_length": 8, "num_layers": 1, "num_heads": 2, "steps": 3}
            text = ["the cat sat on the mat\tand\nslept. घर " * 40]
            made[positions] = tokenspace.train(
                documents=text, out=out, tokenizer="train:280", positions=positions, **sizes
            )
        return made[positions]

    return of


def refusal(call):
    with pytest.raises(TokenspaceError) as caught:
        call()
    return str(caught.value)


def same_output(one, other):
    with torch.no_grad():
        return torch.equal(one(IDS), other(IDS))


# one safetensors file


@pytest.mark.parametrize("positions", ["learned", "rotary", "sinusoidal", "t5", "fire", "none"])
def test_a_run_in_one_file_loses_nothing(runs, tmp_path, positions):
    run = runs(positions)
    export(run, tmp_path / "a.safetensors", format="safetensors")
    tables = open_tables(tmp_path / "a.safetensors")
    assert same_output(tables.embedding(), run.embedding())
    own, read = run.embedding().state_dict(), tables.embedding().state_dict()
    assert own.keys() == read.keys() and all(torch.equal(own[key], read[key]) for key in own)
    assert tables.tokenizer.identity == run.tokenizer.identity
    assert (tables.tied, tables.scheme, tables.shape) == (True, run.tables.scheme, run.tables.shape)


def test_an_exported_file_is_exported_again_byte_for_byte(runs, tmp_path):
    export(runs("learned"), tmp_path / "a.safetensors", format="safetensors")
    export(tmp_path / "a.safetensors", tmp_path / "b.safetensors", format="safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_other_tools_read_the_file(runs, tmp_path):
    from safetensors.torch import load_file

    run = runs("learned")
    export(run, tmp_path / "a.safetensors", format="safetensors")
    tensors = load_file(tmp_path / "a.safetensors")
    assert set(tensors) == {"token", "position.weight"}
    assert torch.equal(tensors["token"], run.embedding().token.weight)


# Parquet


@pytest.mark.parametrize("positions", ["learned", "rotary", "t5", "fire", "none"])
def test_a_run_in_a_parquet_file_for_viewers_loses_nothing(runs, tmp_path, positions):
    run = runs(positions)
    export(run, tmp_path / "a.parquet", format="parquet")
    tables = open_tables(tmp_path / "a.parquet")
    own, read = run.embedding().state_dict(), tables.embedding().state_dict()
    assert own.keys() == read.keys() and all(torch.equal(own[key], read[key]) for key in own)
    assert tables.tokenizer.identity == run.tokenizer.identity
    assert (tables.tied, tables.scheme, tables.shape) == (True, run.tables.scheme, run.tables.shape)
    export(tmp_path / "a.parquet", tmp_path / "a.safetensors", format="safetensors")
    export(run, tmp_path / "b.safetensors", format="safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_parquet_file_of_which_rows_were_taken_out_is_one_of_vectors(runs, tmp_path):
    export(runs("learned"), tmp_path / "a.parquet", format="parquet")
    table, metadata = pq.read_table(tmp_path / "a.parquet"), pq.read_metadata(tmp_path / "a.parquet").metadata
    pq.write_table(table.slice(5).replace_schema_metadata(metadata), tmp_path / "b.parquet")
    tables = open_tables(tmp_path / "b.parquet")
    assert tables.family == "parquet" and tables.words == tuple(table["token"].to_pylist()[5:])


def test_what_is_too_large_for_the_metadata_is_named_or_left_out(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(in_parquet, "_MOST", 1000)
    message = refusal(lambda: export(runs("learned"), tmp_path / "a.parquet", format="parquet"))
    assert message.startswith("`format` must have room for a tokenizer of this size, but is 'parquet'. Use --format ")
    assert not (tmp_path / "a.parquet").exists()
    export(runs("learned"), tmp_path / "a.parquet", format="parquet", lossy=True)
    assert open_tables(tmp_path / "a.parquet").family == "parquet"


# folders


def test_learned_positions_make_a_gpt_2(runs, tmp_path):
    run = runs("learned")
    export(run, tmp_path / "hf")
    opened = Run.open(tmp_path / "hf")
    assert opened.tables.family == "gpt2" and same_output(opened.embedding(), run.embedding())
    assert same_output(opened.model(), run.model())


@pytest.mark.parametrize("positions", ["rotary", "t5", "fire", "none"])
def test_other_positions_make_a_folder_of_its_own_layout(runs, tmp_path, positions):
    run = runs(positions)
    export(run, tmp_path / "own", format="hf")
    opened = Run.open(tmp_path / "own")
    assert same_output(opened.model(), run.model()) and same_output(opened.embedding(), run.embedding())
    assert opened.tokenizer.identity == run.tokenizer.identity
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    assert (config["model_type"], config["model"]["positions"]) == ("tokenspace", positions)


def test_a_folder_of_its_own_layout_is_exported_again(runs, tmp_path):
    export(runs("rotary"), tmp_path / "a")
    export(tmp_path / "a", tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_a_damaged_folder_of_its_own_layout(runs, tmp_path):
    export(runs("rotary"), tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    config["model"]["d_model"] = 16
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    assert "must be [" in refusal(lambda: Run.open(tmp_path / "a").model())
    config["model"] = {"odd": 1}
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    assert "must hold a model's settings" in refusal(lambda: Run.open(tmp_path / "a"))


def test_a_foreign_folder_is_not_made_a_folder_again(runs, tmp_path):
    export(runs("learned"), tmp_path / "hf")
    assert "must be a run of this package for --format hf" in refusal(lambda: export(tmp_path / "hf", tmp_path / "b"))


# word2vec text


def test_text_holds_every_number_and_every_token(runs, tmp_path):
    run = runs("learned")
    export(run, tmp_path / "a.txt", format="word2vec", lossy=True)
    tables = open_tables(tmp_path / "a.txt")
    tokenizer = run.tokenizer
    assert torch.equal(tables.token.tensor(), run.embedding().token.weight)
    assert list(tables.words) == [tokenizer.label(i) for i in range(tokenizer.vocab_size)]
    for token_id, word in enumerate(tables.words):
        assert label_bytes(word) == tokenizer.token_bytes(token_id)
    assert tables.texts[tokenizer.encode(" cat")[0]] == " cat"


def test_text_is_exported_again_byte_for_byte(runs, tmp_path):
    export(runs("learned"), tmp_path / "a.txt", format="word2vec", lossy=True)
    export(tmp_path / "a.txt", tmp_path / "b.txt", format="word2vec")
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()


def test_every_line_is_one_word_and_its_numbers(runs, tmp_path):
    export(runs("learned"), tmp_path / "a.txt", format="word2vec", lossy=True)
    first, *lines = (tmp_path / "a.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert first == f"{len(lines)} 8"
    assert all(len(line.split(" ")) == len(line.split()) == 9 for line in lines)


@pytest.mark.parametrize("values", [[1e-45, 3.4e38], [0.1, -0.0], [1 / 3, 16777217.0], [float("inf"), 1e-8]])
def test_text_keeps_numbers_to_the_last_bit(tmp_path, values):
    np.save(tmp_path / "a.npy", np.array([values], "f4"))
    export(tmp_path / "a.npy", tmp_path / "a.txt", format="word2vec")
    assert open_tables(tmp_path / "a.txt").token.tensor().numpy().tobytes() == np.array([values], "f4").tobytes()


def test_words_with_spaces_become_labels(tmp_path):
    (tmp_path / "a.txt").write_text("3 1\na b 1\nc\\d 2\ne\u00a0f 3\n", encoding="utf-8")
    export(tmp_path / "a.txt", tmp_path / "b.txt", format="word2vec")
    assert (tmp_path / "b.txt").read_text(encoding="utf-8") == "3 1\na␣b 1\nc\\d 2\ne\\u00a0f 3\n"
    assert open_tables(tmp_path / "b.txt").texts == open_tables(tmp_path / "a.txt").texts


def test_padded_rows_have_a_label(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(2, dtype="f4"))
    export(tmp_path / "a.npy", tmp_path / "a.txt", format="word2vec")
    assert open_tables(tmp_path / "a.txt").words == (r"\id{0}", r"\id{1}")


# .npy


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.bfloat16])
def test_npy_holds_the_table(tmp_path, dtype):
    from safetensors.torch import save_file

    table = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    save_file({"t": table}, tmp_path / "t.safetensors")
    export(tmp_path / "t.safetensors", tmp_path / "a.npy", format="npy")
    read = np.load(tmp_path / "a.npy")
    assert torch.equal(torch.from_numpy(read).to(dtype), table)
    assert read.dtype == {torch.float16: "f2", torch.float64: "f8"}.get(dtype, "f4")
    assert torch.equal(open_tables(tmp_path / "a.npy").token.tensor().to(dtype), table)


# what a form cannot hold


def test_what_is_lost_is_named(runs, tmp_path):
    message = refusal(lambda: export(runs("learned"), tmp_path / "a.txt", format="word2vec"))
    assert message == (
        "`format` must have room for learned positions, the tie of the head, the tokenizer, but is 'word2vec'. "
        "Use --format safetensors, which loses nothing; or --lossy (lossy=True) to leave them out."
    )
    assert not (tmp_path / "a.txt").exists()


def test_the_tie_of_the_head_is_named_too(runs):
    assert losses(runs("none").tables, "npy") == ["the tie of the head", "the tokenizer"]


def test_nothing_is_lost_in_a_file_of_safetensors(runs):
    assert losses(runs("fire").tables, "safetensors") == []


def test_vectors_and_words_need_no_leave(tmp_path):
    (tmp_path / "a.vec").write_text("2 1\na 1\nb 2\n")
    export(tmp_path / "a.vec", tmp_path / "b.txt", format="word2vec")
    assert "must have room for the words" in refusal(
        lambda: export(tmp_path / "a.vec", tmp_path / "a.npy", format="npy")
    )
    np.save(tmp_path / "d.npy", np.eye(2))
    message = refusal(lambda: export(tmp_path / "d.npy", tmp_path / "d.txt", format="word2vec"))
    assert "must have room for numbers of 64 bits" in message


@pytest.mark.parametrize("format", ["hf", "safetensors", "word2vec", "npy", "parquet"])
def test_what_stands_there_is_not_overwritten(runs, tmp_path, format):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SettingError, match="must not exist yet"):
        export(runs("learned"), tmp_path / "out", format=format, lossy=True)
    assert (tmp_path / "out").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("format", ["safetensors", "word2vec", "npy"])
def test_a_full_disk_leaves_nothing(runs, tmp_path, monkeypatch, format):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tokenspace.checkpoint.exporting.row_slices", full)
    monkeypatch.setattr("tokenspace.checkpoint.models.exported.save_file", full)
    run = runs("learned")
    with pytest.raises(DiskError):
        export(run, tmp_path / "out", format=format, lossy=True)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_form(runs, tmp_path):
    message = refusal(lambda: export(runs("learned"), tmp_path / "a", format="onnx"))
    assert "`format` must be one of hf, safetensors, word2vec, npy, parquet, but is 'onnx'" in message


# the embedding


def test_an_embedding_from_a_run(runs):
    run = runs("learned")
    assert same_output(InputEmbedding.from_pretrained(run.path), run.embedding())


def test_a_run_with_scaled_tokens_keeps_its_scale_on_the_way_out(runs, tmp_path):
    run = runs("sinusoidal")
    export(run.path, tmp_path / "hf", format="hf")
    wanted = run.model().embedding(IDS)
    assert torch.equal(InputEmbedding.from_pretrained(run.path)(IDS), wanted)
    assert torch.equal(InputEmbedding.from_pretrained(tmp_path / "hf")(IDS), wanted)
    assert "a scale" in losses(open_tables(run.path), "npy")


# arguments of other kinds

ODD = [3, 3.7, b"x", None, object(), ["x"], {"a": 1}, int, "a\0b", "\ud800", "x" * 5000]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:20])
def test_what_is_no_path_is_refused_by_name(runs, odd, tmp_path):
    change = vocabulary.Add(["<a>"])
    for call in (
        lambda: InputEmbedding.from_pretrained(odd),
        lambda: Run.open(odd),
        lambda: Run.from_folder(odd),
        lambda: open_tables(odd),
        lambda: inspection.verify(odd),
        lambda: export(odd, tmp_path / "a"),
        *(lambda form=form: export(runs("learned"), odd, format=form, lossy=True) for form in ("hf", "npy", "parquet")),
        lambda: vocabulary.edit_model(odd, tmp_path / "a", change),
        lambda: vocabulary.edit_model(runs("learned").path, odd, change),
        lambda: vocabulary.Receipt.load(odd),
    ):
        message = refusal(call)
        assert message.split("`")[1] in ("model", "run", "out", "receipt") and "\n" not in message


@pytest.mark.parametrize("odd", [3, b"x", ["x"], torch.zeros(2, 2)], ids=lambda odd: " ".join(repr(odd).split()))
def test_other_arguments_are_refused_by_name(runs, odd, tmp_path):
    run = runs("learned")
    assert refusal(lambda: open_tables(run.path, table=odd)).startswith("`table` must be text, but is ")
    assert refusal(lambda: export(run, tmp_path / "a", format=odd)).startswith("`format` must be one of hf, ")
    assert refusal(lambda: export(run, tmp_path / "a", lossy=odd)).startswith("`lossy` must be true or false, but ")
    change = vocabulary.Add(["<a>"])
    edit = vocabulary.edit_model
    assert refusal(lambda: edit(run.path, tmp_path / "a", change, text=odd)).startswith("`text` must be text, but is ")
    assert refusal(lambda: edit(run.path, tmp_path / "a", odd)).startswith("`change` must be an Add, Remove, Trim, ")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("ids", [[-1], [280], [0.5], "x", [[1]], 3, [None], [True]])
def test_rows_of_a_table_are_asked_for_by_ids(runs, ids):
    assert refusal(lambda: runs("learned").tables.token.rows(ids)).startswith("`ids` must ")
