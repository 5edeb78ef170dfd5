"""What training does to a model and to the disk, from its sources to its last record."""

import errno
import itertools
import json
import math
import os
import random
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tokenspace.checkpoint import Run, state
from tokenspace.corpus import Corpus, build_corpus
from tokenspace.errors import CorpusError, DiskError, SettingError, TextError
from tokenspace.ledger import STATES
from tokenspace.model import LanguageModel
from tokenspace.store import LocalStore, Store
from tokenspace.text import Piece
from tokenspace.tokenizer import Tokenizer
from tokenspace.training import (
    CheckpointRecord,
    EvaluationRecord,
    Plan,
    Progress,
    StepRecord,
    Trainer,
    free_path,
    prepare,
    resume,
    train,
)
from tokenspace.training.parts import make_loader, make_optimizer, training_config

SETTINGS = {
    "d_model": 16, "num_layers": 1, "num_heads": 2, "context_length": 16, "batch_size": 4, "steps": 8,
    "checkpoint_every": 4, "evaluate_every": 4, "device": "cpu",
}  # fmt: skip
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "some", "dogs", "in", "snow"]
NEXT = {word: random.Random(number).sample(WORDS, 2) for number, word in enumerate(WORDS)}


def learnable(num_documents=20, words=60):
    """Text in which the next word is one of two: worth ln 2 nats a word, and counting gives ln 12."""
    draw, texts = random.Random(0), []
    for _ in range(num_documents):
        text = ["the"]
        while len(text) < words:
            text.append(draw.choice(NEXT[text[-1]]))
        texts.append(" ".join(text))
    return texts


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("loop") / "corpus"
    texts = learnable()
    pieces = [Piece(text, True, "x", row) for row, text in enumerate(texts)]
    build_corpus(pieces, Tokenizer.train(texts, 300), out, validation_fraction=0.2)
    return out


@pytest.fixture(scope="module")
def watched(corpus, tmp_path_factory):
    """A run and everything it told."""
    records = []
    run = train(corpus, out=tmp_path_factory.mktemp("loop") / "run", watch=records.append, **SETTINGS)
    return run, records


def files(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def losses(run):
    return [record["loss"] for record in run.metrics if record["kind"] == "step"]


# corpora at a URL


def test_a_corpus_by_its_file_url_is_that_folder(corpus, watched, tmp_path):
    run = train(corpus.as_uri(), out=tmp_path / "run", **SETTINGS)
    assert losses(run) == losses(watched[0])
    assert run.config["corpus"]["path"] == corpus.resolve().as_posix()


def test_a_corpus_in_an_object_store_has_to_be_copied_first(corpus, tmp_path):
    store = Store.of("memory://to-be-trained-on")
    for name in LocalStore(corpus).names():
        store.copy_from(LocalStore(corpus), name, name)
    with pytest.raises(CorpusError) as caught:
        train(store.place, out=tmp_path / "run", **SETTINGS)
    assert str(caught.value) == (
        "`corpus memory://to-be-trained-on` must lie on a file system, to be trained on, but is 'in an object store'. "
        "Copy it to a disk first (with aws s3 sync, gsutil rsync or rclone copy), then check the copy."
    )
    assert not (tmp_path / "run").exists()


# learning


@pytest.fixture(scope="module")
def learned(corpus, tmp_path_factory):
    settings = {**SETTINGS, "steps": 250, "d_model": 32, "learning_rate": 0.01, "evaluate_every": 250}
    return train(corpus, out=tmp_path_factory.mktemp("loop") / "learned", **{**settings, "checkpoint_every": 250})


def test_training_beats_counting_and_not_training(learned):
    untrained, trained = (record for record in learned.metrics if record["kind"] == "evaluation")
    assert trained["loss"] < trained["unigram_loss"] - 0.5
    assert trained["unigram_loss"] < untrained["loss"]


def test_an_untrained_model_knows_about_nothing(learned):
    vocab_size = learned.config["model"]["vocab_size"]
    assert learned.metrics[0]["loss"] == pytest.approx(math.log(vocab_size), abs=0.2)


def test_the_last_loss_is_that_of_the_saved_model_on_the_validation_part(learned):
    validation = Corpus.open(learned.config["corpus"]["path"], "validation")
    ids = validation.tokens(0, validation.num_tokens).astype(np.int64)
    model, total, count = learned.model(), 0.0, 0
    with torch.no_grad():
        for start in range(0, len(ids) - 16, 16):
            window = torch.from_numpy(ids[start : start + 17])
            total += F.cross_entropy(model(window[None, :-1])[0], window[1:], reduction="sum").item()
            count += 16
    last = learned.metrics[-1]
    assert last["tokens"] == count
    assert last["loss"] == pytest.approx(total / count, rel=1e-5)


def test_the_baseline_is_of_the_same_tokens(learned):
    path = learned.config["corpus"]["path"]
    seen = Corpus.open(path, "train")
    counts = np.bincount(seen.tokens(0, seen.num_tokens), minlength=seen.vocab_size)
    validation = Corpus.open(path, "validation")
    targets = validation.tokens(1, learned.metrics[-1]["tokens"] + 1)
    found = []
    for smoothing in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0):
        p = (counts + smoothing) / (counts.sum() + smoothing * seen.vocab_size)
        found.append(-sum(math.log(p[target]) for target in targets) / len(targets))
    assert learned.metrics[-1]["unigram_loss"] == pytest.approx(min(found), rel=1e-9)


def test_the_first_loss_is_that_of_the_first_batch_before_any_step(watched):
    run, _ = watched
    trainer = Trainer(run, "cpu")
    inputs, targets = next(iter(make_loader(trainer.train_corpus, run.model_config, trainer.config)))
    torch.manual_seed(trainer.config.seed)
    model = LanguageModel(run.model_config)  # dropout goes on with the generator where the first draw left it
    expected = F.cross_entropy(model.train()(inputs).flatten(0, 1), targets.flatten()).item()
    assert losses(run)[0] == pytest.approx(expected, rel=1e-6)


def test_the_learning_rate_of_each_step_is_the_schedules(watched):
    run, records = watched
    config = training_config(run)
    rates = [record.learning_rate for record in records if isinstance(record, StepRecord)]
    assert rates == [config.learning_rate_at(step) for step in range(8)]


# records


def test_records_come_in_order(watched):
    _, records = watched
    kinds = [(type(record), getattr(record, "step", None)) for record in records]
    steps = [(StepRecord, step) for step in range(1, 9)]
    assert kinds == [
        (Plan, 0), (EvaluationRecord, 0),
        *steps[:4], (EvaluationRecord, 4), (CheckpointRecord, 4),
        *steps[4:], (EvaluationRecord, 8), (CheckpointRecord, 8),
    ]  # fmt: skip


def test_the_file_of_metrics_holds_what_was_told(watched):
    run, records = watched
    assert run.metrics == [record.fields() for record in records if isinstance(record, StepRecord | EvaluationRecord)]


def test_the_plan_tells_sizes_and_what_was_chosen(watched):
    run, records = watched
    plan = records[0]
    assert plan.config == run.config
    assert plan.num_parameters == run.model().num_parameters()
    assert plan.num_tokens == Corpus.open(run.config["corpus"]["path"]).num_tokens
    assert {"learning_rate", "dropout", "seed", "positions"} <= set(plan.chosen)
    assert not {"steps", "d_model", "batch_size"} & set(plan.chosen)


def test_work_before_the_first_step_is_told_in_bytes(tmp_path):
    records, texts = [], learnable()
    train(
        documents=texts, out=tmp_path / "run", tokenizer="train:300", watch=records.append, **{**SETTINGS, "steps": 1}
    )
    told = [record for record in records if isinstance(record, Progress)]
    assert {record.task for record in told} == {"learning the vocabulary", "encoding"}
    assert all(0 <= record.done <= record.total == sum(map(len, texts)) for record in told)


def test_resuming_tells_where_it_begins(watched, tmp_path):
    shutil.copytree(watched[0].path, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "latest").write_text("00000004\n")
    records = []
    resume(tmp_path / "run", device="cpu", watch=records.append)
    assert (records[0].step, records[1].step) == (4, 5)


def test_parts_of_the_validation_tokens_are_spread_evenly(corpus, tmp_path):
    settings = {**SETTINGS, "steps": 2, "evaluation_tokens": 40, "evaluate_every": 1}
    run = train(corpus, out=tmp_path / "run", **settings)
    tokens = [record["tokens"] for record in run.metrics if record["kind"] == "evaluation"]
    assert tokens[:2] == [32, 32]
    assert tokens[2] > 100


# the optimiser


def test_weight_decay_leaves_tables_and_vectors_alone():
    model = LanguageModel(vocab_size=20, d_model=8, num_layers=2, num_heads=2, context_length=4, tie_head=False)
    config = training_config(Run(Path(), {"training": {
        "steps": 1, "batch_size": 1, "stride": 1, "learning_rate": 0.1, "final_learning_rate": 0.0, "warmup_steps": 0,
        "evaluate_every": 1, "checkpoint_every": 1, "weight_decay": 0.3,
    }}))  # fmt: skip
    decay = {
        id(p): group["weight_decay"] for group in make_optimizer(model, config).param_groups for p in group["params"]
    }
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() == 2 and not name.startswith("embedding.")
        assert decay.pop(id(parameter)) == (0.3 if is_matrix else 0.0), name
    assert not decay


def test_a_tied_head_is_a_table():
    model = LanguageModel(vocab_size=20, d_model=8, num_layers=1, num_heads=2, context_length=4)
    config = training_config(Run(Path(), {"training": {
        "steps": 1, "batch_size": 1, "stride": 1, "learning_rate": 0.1, "final_learning_rate": 0.0, "warmup_steps": 0,
        "evaluate_every": 1, "checkpoint_every": 1,
    }}))  # fmt: skip
    decayed = {id(parameter) for parameter in make_optimizer(model, config).param_groups[0]["params"]}
    assert id(model.head.weight) not in decayed


def test_rows_that_training_never_sees_stay_as_they_were_drawn(corpus, tmp_path):
    run = train(corpus, out=tmp_path / "run", tie_head=False, weight_decay=0.5, **SETTINGS)
    unseen = torch.from_numpy(Corpus.open(corpus).counts() == 0)
    before, after = run.frame(0)["token.weight"], run.embedding().token.weight
    assert unseen.sum() > 50
    assert torch.equal(before[unseen], after[unseen])
    assert (before[~unseen] != after[~unseen]).any(dim=1).float().mean() > 0.9


def test_gradients_are_clipped_to_their_norm(corpus, tmp_path, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def measured(self):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(torch.stack([gradient.norm() for gradient in gradients]).norm().item())
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", measured)
    run = train(corpus, out=tmp_path / "run", gradient_clip=0.01, **SETTINGS)
    assert norms == pytest.approx([0.01] * 8, rel=1e-3)
    assert all(record["gradient_norm"] > 0.01 for record in run.metrics if record["kind"] == "step")


def test_a_loss_that_is_not_finite_ends_the_training_and_keeps_the_checkpoint(corpus, tmp_path):
    settings = {**SETTINGS, "learning_rate": 1e30, "warmup_steps": 3, "checkpoint_every": 1}
    with pytest.raises(SettingError) as error:
        train(corpus, out=tmp_path / "run", **settings)
    message = str(error.value)
    assert message.startswith("`loss at step 2` must be finite, but is nan.")
    assert message.endswith("Lower learning_rate; the last checkpoint is untouched.")
    run = Run.open(tmp_path / "run")
    assert run.step == 1
    before = files(run.checkpoints)
    with pytest.raises(SettingError, match="loss at step 2"):
        resume(run, device="cpu")
    assert files(run.checkpoints) == before


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("optimizer", ["adamw", "rowwise"])
def test_a_gradient_that_is_not_finite_is_named_where_the_loss_is_finite(corpus, tmp_path, monkeypatch, optimizer, bad):
    def spoil(parameters, loss, processes):
        steps.append(list(parameters))
        if len(steps) == 3:
            steps[-1][-1].grad[0] = bad

    steps = []
    monkeypatch.setattr("tokenspace.training.loop.average_gradients", spoil)
    settings = {**SETTINGS, "optimizer": optimizer, "tie_head": False, "checkpoint_every": 1}
    with pytest.raises(SettingError, match=r"^`gradient of (.+) at step 3` must be finite, but is") as error:
        train(corpus, out=tmp_path / "run", **settings)
    run = Run.open(tmp_path / "run")
    assert run.step == 2
    *_, last = dict(run.model().named_parameters())
    assert f"`gradient of {last} at" in str(error.value)
    assert str(error.value).endswith("the last checkpoint is untouched.")


# device, numbers


def test_a_device_that_is_not_there_is_refused_before_any_work(corpus, tmp_path):
    with pytest.raises(SettingError, match=r"^`device` must be"):
        train(corpus, out=tmp_path / "run", **{**SETTINGS, "device": "nonsense"})
    assert not list(tmp_path.iterdir())


def test_bfloat16_follows_float32_closely_but_not_exactly(corpus, watched, tmp_path):
    run = train(corpus, out=tmp_path / "run", dtype="bfloat16", **SETTINGS)
    assert losses(run) != losses(watched[0])
    assert losses(run) == pytest.approx(losses(watched[0]), rel=0.02)
    assert run.model().embedding.token.weight.dtype == torch.float32


@pytest.mark.parametrize("chunks", ["torch's", "checkpoint"])
def test_logits_in_chunks_follow_those_at_once(corpus, tmp_path, monkeypatch, chunks):
    if chunks == "checkpoint":
        monkeypatch.delattr(F, "linear_cross_entropy", raising=False)
    settings = {**SETTINGS, "steps": 3, "batch_size": 16, "context_length": 64, "stride": 8, "vocab_size": 300}
    runs = [train(corpus, out=tmp_path / str(mib), logits_mib=mib, **settings) for mib in (1, 100)]
    assert 16 * 64 * 300 * 4 > 1 << 20
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-5)


# sources


def small(texts_or_path, out, **settings):
    return train(texts_or_path, out=out, tokenizer="train:300", **{**SETTINGS, "steps": 2, **settings})


def test_documents_in_memory_a_folder_and_json_lines_give_the_same_run(tmp_path):
    texts = learnable()
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:02d}.txt").write_text(text)
    lines = tmp_path / "texts.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    runs = [
        train(documents=texts, out=tmp_path / "1", tokenizer="train:300", **{**SETTINGS, "steps": 2}),
        small(folder, tmp_path / "2"),
        small([lines], tmp_path / "3"),
    ]
    assert losses(runs[0]) == losses(runs[1]) == losses(runs[2])
    assert len({run.tokenizer.identity for run in runs}) == 1


def test_standard_input_is_read_twice_where_the_vocabulary_is_learned_from_it(tmp_path, monkeypatch):
    data = "\n".join(learnable()).encode()
    (tmp_path / "text.txt").write_bytes(data)
    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": BytesIO(data)}))
    assert losses(small("-", tmp_path / "1")) == losses(small(tmp_path / "text.txt", tmp_path / "2"))


def test_standard_input_on_the_command_line(tmp_path):
    pairs = [
        part
        for name, value in {**SETTINGS, "steps": 2}.items()
        if name != "device"
        for part in ("-c", f"{name}={value}")
    ]
    command = [sys.executable, "-m", "tokenspace", "train", "-", "-o", "run", "--tokenizer", "train:300", *pairs]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        input="\n".join(learnable()),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "smoothed unigram model" in done.stdout
    assert Run.open(tmp_path / "run").step == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("documents", [None, ["text"]])
def test_sources_and_documents_are_one_or_the_other(tmp_path, documents):
    sources = () if documents is None else tmp_path
    with pytest.raises(SettingError) as error:
        train(sources, documents=documents, out=tmp_path / "run")
    assert str(error.value) == (
        "`sources` must be given, or documents instead, but is 'neither or both'. Give one of the two."
    )


def test_the_default_folder_is_named_after_the_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("story.txt").write_text(" ".join(learnable()))
    assert [small("story.txt", None, steps=1).path for _ in range(2)] == [Path("runs/story"), Path("runs/story-2")]


def test_the_first_free_path(tmp_path):
    found = []
    for _ in range(3):
        path = free_path(tmp_path, "run")
        path.mkdir()
        found.append(path.name)
    assert found == ["run", "run-2", "run-3"]


def test_a_corpus_is_referred_to_and_not_copied(corpus, watched):
    run, _ = watched
    assert Path(run.config["corpus"]["path"]) == corpus.resolve()
    assert not (run.path / "corpus").exists()


def test_a_corpus_given_by_a_relative_path_is_found_from_elsewhere(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(corpus.parent)
    run = train(corpus.name, out=tmp_path / "run", **{**SETTINGS, "steps": 1})
    monkeypatch.chdir("/")
    assert resume(run, device="cpu").step == 1


def test_a_corpus_that_is_gone_when_going_on(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "corpus")
    run = train(tmp_path / "corpus", out=tmp_path / "run", **{**SETTINGS, "steps": 1})
    shutil.rmtree(tmp_path / "corpus")
    with pytest.raises(CorpusError) as error:
        resume(run, device="cpu")
    assert str(error.value) == (
        f"`corpus` must be a folder that exists, but is '{tmp_path / 'corpus'}'. Check the path, or build it first."
    )


def test_a_corpus_with_altered_ids_is_refused_before_training(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "corpus")
    path = tmp_path / "corpus" / "train-00000.bin"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorpusError, match="must have the checksum"):
        train(tmp_path / "corpus", out=tmp_path / "run", **SETTINGS)
    assert not (tmp_path / "run").exists()


# nothing half-made


def test_a_folder_that_exists_is_refused_and_left_alone(corpus, watched):
    run, _ = watched
    before = files(run.path)
    with pytest.raises(SettingError) as error:
        train(corpus, out=run.path, **SETTINGS)
    assert str(error.value) == (
        f"`out` must not exist yet, but is '{run.path}'. Give another path, or remove that one."
    )
    assert files(run.path) == before


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"stepps": 3}, SettingError, r"Did you mean 'steps'\?$"),
        (
            {"batch_size": 10_000},
            SettingError,
            r"^`batch_size` must be at most the \d+ windows of the text, but is 10000",
        ),
        ({"context_length": 10_000}, SettingError, r"^`text` must have more than 10000 tokens in each part"),
        ({"d_model": 15}, SettingError, r"^`d_model` must be divisible by num_heads = 2"),
        ({"positions": "nowhere"}, SettingError, r"^`positions` must be one of "),
        ({"dropout": 1.0}, SettingError, r"^`dropout` must lie in \[0, 1\)"),
        ({"beta1": 1.0}, SettingError, r"^`beta1` must lie in \[0, 1\)"),
        ({"vocab_size": 20}, SettingError, r"^`vocab_size` must be at least the tokenizer's \d+, but is 20"),
        ({"seed": 2**64}, SettingError, r"^`seed` must be at most "),
    ],
)
def test_a_setting_that_breaks_a_rule_leaves_nothing(corpus, tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        train(corpus, out=tmp_path / "run", **{**SETTINGS, **settings})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("documents", [[], [""], ["hi"]])
def test_hardly_any_text_leaves_nothing(tmp_path, documents):
    with pytest.raises((SettingError, TextError, CorpusError)):
        train(documents=documents, out=tmp_path / "run", **SETTINGS)
    assert not list(tmp_path.iterdir())


def test_text_that_cannot_be_read_leaves_nothing(tmp_path):
    (tmp_path / "text.txt").write_bytes(b"caf\xe9 and more of it\n" * 100)
    with pytest.raises(TextError):
        small(tmp_path / "text.txt", tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("step", ["build_from_source", "create_run", "save_checkpoint", "make_optimizer"])
def test_a_failure_in_the_middle_of_preparing_leaves_nothing(tmp_path, monkeypatch, step, error):
    def fail(*arguments, **keywords):
        raise error("the lamp fell over")

    monkeypatch.setattr(prepare, step, fail)
    with pytest.raises(error, match="the lamp fell over"):
        train(documents=learnable(), out=tmp_path / "run", tokenizer="train:300", **SETTINGS)
    assert not list(tmp_path.iterdir())


# a full disk


def test_a_disk_that_fills_up_while_preparing_leaves_nothing(corpus, tmp_path, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(DiskError):
        train(corpus, out=tmp_path / "run", **SETTINGS)
    assert not list(tmp_path.iterdir())


class Full:
    """A file on a disk that has no room: what is written is taken, and fails when it is to reach the disk."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        self.room -= len(data)
        return self.file.write(data)

    def flush(self):
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.file.flush()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()
        self.flush()  # as a buffered file tries once more


def test_a_disk_that_fills_up_under_the_metrics_keeps_the_checkpoint(corpus, tmp_path, monkeypatch):
    open_metrics = Trainer._open_metrics
    with monkeypatch.context() as patch, pytest.raises(DiskError, match="have room for all that is written there"):
        patch.setattr(Trainer, "_open_metrics", lambda self: Full(open_metrics(self), room=1000))
        train(corpus, out=tmp_path / "run", **SETTINGS)
    run = Run.open(tmp_path / "run")
    assert run.step == 4
    whole = train(corpus, out=tmp_path / "whole", **SETTINGS)
    assert losses(resume(run, device="cpu")) == losses(whole)


def test_a_disk_that_fills_up_under_a_checkpoint_keeps_the_one_before(corpus, tmp_path, monkeypatch):
    save = state.save_file

    def full_at_the_second(tensors, path, **keywords):
        if "00000008" in path.parent.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(tensors, path, **keywords)

    with monkeypatch.context() as patch, pytest.raises(DiskError):
        patch.setattr(state, "save_file", full_at_the_second)
        train(corpus, out=tmp_path / "run", **SETTINGS)
    run = Run.open(tmp_path / "run")
    assert run.step == 4
    assert resume(run, device="cpu").step == 8


def trained_with(tmp_path, name, **settings):
    return train(documents=learnable(), out=tmp_path / name, tokenizer="train:300", **SETTINGS, **settings)


def test_the_row_wise_optimizer_trains_like_adamw(tmp_path):
    runs = [
        trained_with(tmp_path, name, tie_head=False, vocab_size=4000, optimizer=name) for name in ("adamw", "rowwise")
    ]
    losses = [[line["loss"] for line in run.metrics] for run in runs]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    tables = [run.embedding().token.weight for run in runs]
    torch.testing.assert_close(tables[1], tables[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("tie_head", "chosen"), [(True, "adamw"), (False, "rowwise")])
def test_an_untied_head_is_trained_row_wise(tmp_path, tie_head, chosen):
    run = trained_with(tmp_path, "run", tie_head=tie_head)
    assert run.config["training"]["optimizer"] == chosen


def test_a_tied_head_and_a_row_wise_optimizer_go_the_dense_way(tmp_path):
    run = trained_with(tmp_path, "run", optimizer="rowwise")
    other = trained_with(tmp_path, "other", optimizer="adamw")
    torch.testing.assert_close(run.embedding().token.weight, other.embedding().token.weight)


def test_an_unknown_optimizer_is_refused(tmp_path):
    with pytest.raises(SettingError, match="`optimizer` must be 'adamw' or 'rowwise', but is 'sgd'"):
        trained_with(tmp_path, "run", optimizer="sgd")
    assert not (tmp_path / "run").exists()


def test_betas_that_no_row_can_be_caught_up_with_are_refused_before_the_run(tmp_path):
    with pytest.raises(SettingError, match="`betas` must have the second at least as large as the first"):
        trained_with(tmp_path, "run", optimizer="rowwise", beta1=0.99)
    assert not (tmp_path / "run").exists()


def test_memory_wants_windows_that_follow_each_other(tmp_path):
    with pytest.raises(SettingError) as caught:
        trained_with(tmp_path, "run", positions="transformer_xl", memory_length=16, stride=8)
    assert str(caught.value) == (
        "`stride` must equal context_length = 16 where memory_length is set, but is 8. "
        "Leave stride out, or memory_length."
    )
    assert not (tmp_path / "run").exists()


# ledger


def counted(corpus, run):
    """How often each token is an input and a target in the windows that a training takes, by plain counting."""
    config = training_config(run)
    loader = make_loader(Corpus.open(corpus, split="train"), run.model_config, config)
    epochs = itertools.chain.from_iterable(iter(lambda: loader, None))
    inputs, targets = zip(*itertools.islice(epochs, config.steps), strict=True)
    return [torch.cat(some).flatten().bincount(minlength=run.model_config.vocab_size) for some in (inputs, targets)]


def test_the_ledger_of_a_run_has_counted_every_token_of_every_batch(watched, corpus):
    run, _ = watched
    inputs, targets = counted(corpus, run)
    assert run.ledger.step == SETTINGS["steps"]
    assert run.ledger.input_count.tolist() == inputs.tolist()
    assert run.ledger.target_count.tolist() == targets.tolist()


@pytest.mark.parametrize("tie_head", [True, False])
def test_the_ledger_of_a_run_measures_from_its_first_frame(tmp_path, tie_head):
    run = trained_with(tmp_path, "run", tie_head=tie_head)
    start, now = run.frame(0)["token.weight"].double(), run.embedding().token.weight.detach().double()
    np.testing.assert_allclose(run.ledger.displacement, (now - start).norm(dim=1), rtol=1e-5, atol=1e-7)


def test_with_a_tied_head_rows_move_that_were_never_seen_and_without_one_they_do_not(tmp_path):
    tied = trained_with(tmp_path, "tied", tie_head=True).ledger
    untied = trained_with(tmp_path, "untied", tie_head=False).ledger
    unseen = STATES.index("never seen, yet moved"), STATES.index("never moved")
    assert [np.count_nonzero(tied.states == state) > 0 for state in unseen] == [True, False]
    assert [np.count_nonzero(untied.states == state) > 0 for state in unseen] == [False, True]
