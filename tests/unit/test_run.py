"""Run folders as a reader sees them, and what their damage says."""

import json
import re
import shutil
import tomllib

import pytest
import torch
from safetensors.torch import load_file

from tokenspace.checkpoint import Run
from tokenspace.embedding import InputEmbedding
from tokenspace.errors import CheckpointError, CorpusError, SettingError, TokenizerError
from tokenspace.model import LanguageModel
from tokenspace.tokenizer import Tokenizer
from tokenspace.training import Trainer, resume, train

SETTINGS = {
    "d_model": 8, "num_layers": 1, "num_heads": 2, "context_length": 8, "batch_size": 4, "steps": 6,
    "checkpoint_every": 2, "evaluate_every": 3, "device": "cpu",
}  # fmt: skip
DOCUMENTS = [f"the cat of number {n} sat on mat number {n * n} and saw {n + 7} dogs" for n in range(40)]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return train(documents=DOCUMENTS, out=tmp_path_factory.mktemp("run") / "run", tokenizer="train:280", **SETTINGS)


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    return Run.open(tmp_path / "run")


def refused(work, error=CheckpointError):
    with pytest.raises(error) as caught:
        work()
    return str(caught.value)


def test_what_lies_in_a_run_folder(finished):
    assert {path.name for path in finished.path.iterdir()} == {
        "checkpoints", "config.toml", "corpus", "frames", "ledger.safetensors", "metrics.jsonl", "tokenizer.json",
    }  # fmt: skip


def test_the_config_holds_every_setting_as_resolved(finished):
    config = tomllib.loads((finished.path / "config.toml").read_text(encoding="utf-8"))
    assert config == finished.config
    assert list(config) == ["run", "tokenizer", "corpus", "model", "init", "training"]
    assert config["model"].items() >= {"d_model": 8, "num_heads": 2, "positions": "learned", "dropout": 0.2}.items()
    assert config["training"].items() >= {"steps": 6, "batch_size": 4, "seed": 1234, "stride": 8}.items()
    assert config["init"] == {"token_std": 0.02, "position_std": 0.01}


def test_the_tokenizer_is_the_one_that_was_learned(finished):
    expected = Tokenizer.train(DOCUMENTS, 280)
    assert finished.tokenizer.identity == finished.config["tokenizer"]["identity"] == expected.identity
    assert finished.tokenizer.encode(DOCUMENTS[3]) == expected.encode(DOCUMENTS[3])


def test_the_model_is_that_of_the_latest_checkpoint(finished):
    model = finished.model()
    assert isinstance(model, LanguageModel)
    assert not model.training
    for name, tensor in load_file(finished.checkpoints / "00000006" / "model.safetensors").items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert model.head.weight is model.embedding.token.weight


def test_the_embedding_is_the_models(finished):
    embedding = finished.embedding()
    assert isinstance(embedding, InputEmbedding)
    assert torch.equal(embedding.token.weight, finished.model().embedding.token.weight)
    ids = torch.tensor([finished.tokenizer.encode("the cat")])
    assert embedding(ids).shape == (1, ids.shape[1], 8)


def test_the_tied_table_is_stored_once(finished):
    names = load_file(finished.checkpoints / "00000006" / "model.safetensors").keys()
    assert "embedding.token.weight" in names
    assert "head.weight" not in names


def test_an_untied_head_is_stored_beside_the_table(tmp_path):
    settings = {**SETTINGS, "steps": 1, "tie_head": False}
    run = train(documents=DOCUMENTS, out=tmp_path / "run", tokenizer="train:280", **settings)
    model = run.model()
    assert "head.weight" in load_file(run.checkpoints / "00000001" / "model.safetensors")
    assert not torch.equal(model.head.weight, model.embedding.token.weight)


def test_the_first_frame_is_the_seeded_first_draw(finished):
    assert finished.frames[0] == 0
    torch.manual_seed(finished.config["training"]["seed"])
    expected = LanguageModel(finished.model_config).embedding.state_dict()
    frame = finished.frame(0)
    assert frame.keys() == expected.keys()
    assert all(torch.equal(frame[name], expected[name]) for name in expected)


def test_training_moved_the_tables_away_from_the_first_frame(finished):
    assert not torch.equal(finished.frame(0)["token.weight"], finished.embedding().token.weight)


def test_a_frame_that_was_not_kept(finished):
    assert refused(lambda: finished.frame(5), SettingError) == (
        "`step` must be one of [0, 2, 3, 4, 6], but is 5. Take one of these."
    )


def test_other_files_among_the_frames_are_none(run):
    (run.path / "frames" / "notes.safetensors").touch()
    (run.path / "frames" / "readme.txt").touch()
    assert run.frames == [0, 2, 3, 4, 6]


def test_the_metrics_are_all_records_in_order(finished):
    found = [(record["kind"], record["step"]) for record in finished.metrics]
    assert found == [
        ("evaluation", 0), ("step", 1), ("step", 2), ("step", 3), ("evaluation", 3),
        ("step", 4), ("step", 5), ("step", 6), ("evaluation", 6),
    ]  # fmt: skip
    assert all(record["tokens"] > 0 and record["loss"] > 0 for record in finished.metrics)


def test_a_half_line_at_the_end_of_the_metrics_is_left_out(run):
    before = run.metrics
    with run.metrics_path.open("ab") as file:
        file.write(b'{"kind": "st')
    assert run.metrics == before


def test_the_step_is_that_of_the_latest_checkpoint(run):
    assert run.step == 6
    (run.checkpoints / "latest").write_text("00000004\n")
    assert run.step == 4


def test_a_run_shows_itself(finished):
    assert repr(finished) == f"Run({str(finished.path)!r}, step=6)"
    html = finished._repr_html_()
    assert html.startswith("<table>")
    assert "<tr><th>d_model</th><td>8</td></tr>" in html


def test_a_damaged_run_shows_itself_all_the_same(run):
    (run.checkpoints / "latest").unlink()
    assert repr(run) == f"Run({str(run.path)!r}, step=None)"


def test_a_path_as_text_opens_too(finished):
    assert Run.open(str(finished.path)).config == finished.config


# damage


@pytest.mark.parametrize("what", ["absent", "empty", "file"])
def test_what_is_no_run_folder(tmp_path, what):
    path = tmp_path / "run"
    if what == "empty":
        path.mkdir()
    elif what == "file":
        path.touch()
    assert refused(lambda: Run.from_folder(path)) == (
        f"`run` must be a folder with a config.toml, but is '{path}'. "
        "Give the folder that `tokenspace train` named at its end."
    )


@pytest.mark.parametrize("data", [b"[run", b"\xff", b"a = \n", b"training = 3\n"])
def test_a_config_that_is_no_toml_of_tables(run, data):
    path = run.path / "config.toml"
    path.write_bytes(data)
    message = refused(lambda: Run.open(run.path))
    assert message.startswith(f"`{path}` must ")
    assert message.endswith(". Restore the file.")


@pytest.mark.parametrize("table", ["run", "tokenizer", "corpus", "model", "training"])
def test_a_config_without_a_table(run, table):
    path = run.path / "config.toml"
    path.write_text(path.read_text().replace(f"[{table}]", f"[was_{table}]"))
    message = refused(lambda: Run.open(run.path))
    assert re.fullmatch(
        rf"`{re.escape(str(path))}` must have \[{table}\] \w+, but is 'without'\. Restore the file\.", message
    )


@pytest.mark.parametrize("name", ["identity", "path", "vocab_size", "steps"])
def test_a_config_without_what_is_needed(run, name):
    path = run.path / "config.toml"
    path.write_text(re.sub(rf"^{name} = ", f"was_{name} = ", path.read_text(), flags=re.MULTILINE))
    assert f"] {name}, but is 'without'. Restore the file." in refused(lambda: Run.open(run.path))


@pytest.mark.parametrize(
    ("table", "old", "new"),
    [("model", "d_model = 8", "d_modell = 8"), ("training", "batch_size = 4", "batchsize = 4")],
)
def test_a_config_with_a_setting_that_nothing_has(run, table, old, new):
    path = run.path / "config.toml"
    path.write_text(path.read_text().replace(old, new))
    message = refused(lambda: resume(run.path, device="cpu"))
    assert message.startswith(f"`[{table}] of config.toml` must hold ")
    assert message.endswith(". Restore it.")


def test_a_config_of_another_model(run):
    path = run.path / "config.toml"
    path.write_text(path.read_text().replace("d_model = 8", "d_model = 10"))
    message = refused(Run.open(run.path).model)
    assert "must be " in message
    assert message.endswith(". Open it with its own config.")


def test_a_damaged_frame(run):
    path = run.path / "frames" / "00000000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    message = refused(lambda: run.frame(0))
    assert message.startswith(f"`{path}` must be whole, but is ")
    assert message.endswith(". Restore it.")


def test_the_first_frame_removed(run):
    path = run.path / "frames" / "00000000.safetensors"
    path.unlink()
    assert refused(lambda: run.frame(0)) == f"`{path}` must stay in the run folder, but is 'missing'. Restore it."


@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
def test_a_damaged_checkpoint(run, name):
    path = run.checkpoints / "00000006" / name
    path.write_bytes(path.read_bytes()[:-9])
    for work in (run.model, run.embedding, lambda: resume(run, device="cpu")):
        assert re.match(rf"`.*{name}` must be ", refused(work))


def test_another_tokenizer(run):
    path = run.path / "tokenizer.json"
    path.unlink()
    Tokenizer.train(["other words in another text " * 20], 280).save(path)
    message = f"`{path}` must be the run's tokenizer, but is 'another one'. Restore the run's own tokenizer.json."
    assert refused(lambda: run.tokenizer) == message
    assert refused(lambda: resume(run, device="cpu")) == message


@pytest.mark.parametrize("data", [None, b"", b"{}", b"{\xff"])
def test_a_damaged_tokenizer(run, data):
    path = run.path / "tokenizer.json"
    path.unlink() if data is None else path.write_bytes(data)
    assert re.match(r"`.*tokenizer\.json` must be ", refused(lambda: run.tokenizer, TokenizerError))


def test_a_damaged_corpus(run):
    path = run.path / "corpus" / "train-00000.bin"
    path.write_bytes(path.read_bytes()[:-2])
    assert refused(lambda: resume(run, device="cpu"), CorpusError).startswith(f"`{path}` must have ")


def test_another_corpus(run, tmp_path):
    other = train(documents=DOCUMENTS[1:], out=tmp_path / "other", tokenizer=run.path / "tokenizer.json", **SETTINGS)
    shutil.rmtree(run.path / "corpus")
    shutil.copytree(other.path / "corpus", run.path / "corpus")
    assert refused(lambda: resume(run, device="cpu"), CorpusError) == (
        f"`{run.path / 'corpus'}` must be the corpus that the run began with, but is 'another one'. "
        "Restore it, or train anew."
    )


def test_metrics_that_are_no_json(run):
    run.metrics_path.write_bytes(b'{"kind": "step"}\nnonsense\n')
    message = refused(lambda: run.metrics)
    assert message.startswith(f"`{run.metrics_path}` must hold one JSON record a line, but is ")
    assert message.endswith(". Restore it.")


def test_no_metrics_file_is_no_record(run):
    run.metrics_path.unlink()
    assert run.metrics == []


def first_record(run):
    return next(Trainer(run, "cpu").records(), None)


def counted(run):
    return json.loads((run.checkpoints / "00000006" / "state.json").read_text())["metrics_bytes"]


def test_metrics_shorter_than_the_checkpoint_counted(run):
    data = run.metrics_path.read_bytes()
    run.metrics_path.write_bytes(data[:-1])
    assert refused(lambda: first_record(run)) == (
        f"`{run.metrics_path}` must hold the {counted(run)} bytes of records that the checkpoint counted, "
        "but is 'shorter'. Restore the file."
    )
    assert run.metrics_path.read_bytes() == data[:-1]


def test_metrics_whose_lines_do_not_end_where_the_checkpoint_counted(run):
    data = b" " + run.metrics_path.read_bytes()
    run.metrics_path.write_bytes(data)
    assert refused(lambda: first_record(run)) == (
        f"`{run.metrics_path}` must hold the {counted(run)} bytes of records that the checkpoint counted, "
        "but is 'altered'. Restore the file."
    )
    assert run.metrics_path.read_bytes() == data


def test_a_missing_metrics_file_when_going_on(run):
    run.metrics_path.unlink()
    assert refused(lambda: first_record(run)) == (
        f"`{run.metrics_path}` must be a file that can be written, but is 'No such file or directory'. "
        "Restore the file."
    )
