"""A training that was stopped or killed goes on as if nothing had happened, bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from tokenspace.checkpoint import Run
from tokenspace.corpus import build_corpus
from tokenspace.text import Piece
from tokenspace.tokenizer import Tokenizer
from tokenspace.training import StepRecord, Trainer, resume, train
from tokenspace.training.prepare import prepare_run_from_corpus

STEPS = 33
SETTINGS = {
    "d_model": 16, "num_layers": 1, "num_heads": 2, "context_length": 16, "batch_size": 4, "dropout": 0.2,
    "steps": STEPS, "checkpoint_every": 5, "evaluate_every": 7, "learning_rate": 0.01,
}  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    draw = random.Random(1)
    words = ["the", "cat", "and", "a", "dog", "sat", "on", "some", "mats", "because", "it", "was", "cold"]
    texts = [" ".join(draw.choice(words) for _ in range(50)) for _ in range(20)]
    out = tmp_path_factory.mktemp("resume") / "corpus"
    pieces = [Piece(text, True, "x", row) for row, text in enumerate(texts)]
    build_corpus(pieces, Tokenizer.train(texts, 300), out, validation_fraction=0.2)
    return out


def prepare(corpus, out, **settings):
    return prepare_run_from_corpus(corpus, out, {**SETTINGS, **settings}, lambda record: None)


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory):
    return prepare(corpus, tmp_path_factory.mktemp("resume") / "run")


@pytest.fixture
def run(prepared, tmp_path):
    """A run before its first step."""
    shutil.copytree(prepared.path, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    """What an uninterrupted training ends with."""
    path = tmp_path_factory.mktemp("resume") / "whole"
    shutil.copytree(prepared.path, path)
    return outcome(resume(path, device="cpu"))


def outcome(run):
    """Tables, optimiser, generators and ledger as bytes, the loader's state, all records but their times."""
    checkpoint = run.checkpoints / f"{run.step:08d}"
    state = json.loads((checkpoint / "state.json").read_text())
    return {
        "step": run.step,
        "model": (checkpoint / "model.safetensors").read_bytes(),
        "training": (checkpoint / "training.safetensors").read_bytes(),
        "ledger": run.ledger_path.read_bytes(),
        "loader": state["loader"],
        "groups": state["optimizer_groups"],
        "metrics": [{name: value for name, value in line.items() if name != "seconds"} for line in run.metrics],
    }


def train_until(run, step):
    """Train up to a step and stop there."""
    trainer = Trainer(run, "cpu")
    return list(trainer.records(stop=lambda: trainer.step >= step))


def wait_for_step(run, step, process):
    """Until the latest checkpoint is at least at this step."""
    deadline = time.monotonic() + 60
    while run.step < step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_the_training_crosses_two_ends_of_an_epoch(whole):
    assert whole["loader"]["epoch"] == 2


def test_the_same_start_gives_the_same_end(run, whole):
    assert outcome(resume(run, device="cpu")) == whole


@pytest.mark.parametrize("step", [0, 1, 5, 6, 14, 15, 16, 32, 33])
def test_stopped_between_two_steps(run, whole, step):
    train_until(run, step)
    assert run.step == step
    assert outcome(resume(run, device="cpu")) == whole


def test_stopped_after_every_step(run, whole):
    for step in range(1, STEPS + 1):
        train_until(run, step)
    assert outcome(run) == whole


def test_a_wish_to_stop_that_is_heard_only_once_is_heeded_and_saved(run):
    answers = iter([False, False, True])
    records = list(Trainer(run, "cpu").records(stop=lambda: next(answers)))
    assert [record.step for record in records if isinstance(record, StepRecord)] == [1, 2]
    assert run.step == 2


def test_a_memory_goes_on_too(corpus, tmp_path):
    """Stopped after every step, over two ends of an epoch, with what each layer remembers."""
    settings = {"positions": "transformer_xl", "memory_length": 24}
    run = prepare(corpus, tmp_path / "run", **settings)
    whole = outcome(resume(prepare(corpus, tmp_path / "whole", **settings), device="cpu"))
    assert whole["loader"]["epoch"] == 2
    for step in range(1, STEPS + 1):
        train_until(run, step)
    assert outcome(run) == whole


def test_a_memory_is_empty_at_the_start_of_every_epoch_and_only_there(corpus, tmp_path, monkeypatch):
    trainer = Trainer(prepare(corpus, tmp_path / "run", positions="alibi", memory_length=24), "cpu")
    starts = []
    loss = trainer._loss

    def watched(question, memory):
        if memory is trainer.memory:  # an evaluation has its own
            starts.append((trainer.loader.epoch, memory.length == 0))
        return loss(question, memory)

    monkeypatch.setattr(trainer, "_loss", watched)
    list(trainer.records())
    epochs = [epoch for epoch, _ in starts]
    assert len(starts) == STEPS and epochs[-1] == 2
    assert [empty for _, empty in starts] == [
        epoch != before for before, epoch in zip([None, *epochs[:-1]], epochs, strict=True)
    ]


def test_records_left_in_the_middle_by_the_consumer(run, whole):
    for record in Trainer(run, "cpu").records():
        if record.step == 13:
            break
    assert run.step == 10
    assert outcome(resume(run, device="cpu")) == whole


def test_a_failing_watcher(run, whole):
    def watch(record):
        if record.step == 8:
            raise RuntimeError("the window was closed")

    with pytest.raises(RuntimeError, match="the window was closed"):
        resume(run, device="cpu", watch=watch)
    assert outcome(resume(run, device="cpu")) == whole


def test_killed_between_a_checkpoint_and_its_being_named_latest(run, whole):
    train_until(run, 12)
    (run.checkpoints / "latest").write_text("00000010\n")
    for leftover in (".00000015.abc.part", ".latest.abc.part"):
        shutil.copytree(run.checkpoints / "00000012", run.checkpoints / leftover)
    assert outcome(resume(run, device="cpu")) == whole
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["00000030", "00000033", "latest"]


def test_what_was_recorded_after_the_checkpoint_is_cut_off(run, whole):
    train_until(run, 12)
    with run.metrics_path.open("ab") as metrics:
        metrics.write(b'{"kind": "step", "step": 13, "loss": 1.0}\n' * 500 + b'{"kind": "step", "st')
    assert outcome(resume(run, device="cpu")) == whole


def test_a_finished_training_is_returned_as_it_is(run):
    resume(run, device="cpu")
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert resume(run, device="cpu").step == STEPS
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_a_run_folder_that_was_moved_goes_on(run, whole, tmp_path):
    train_until(run, 12)
    run.path.rename(tmp_path / "elsewhere")
    assert outcome(resume(tmp_path / "elsewhere", device="cpu")) == whole


# what is only looked at


def test_what_a_caller_does_between_two_records_changes_nothing(run, whole):
    trainer = Trainer(run, "cpu")
    for number, _ in enumerate(trainer.records()):
        torch.manual_seed(number)
        torch.rand(7)
        list(trainer.model.generate([1, 2, 3], 3))
        with torch.no_grad():
            trainer.model(torch.tensor([[1, 2, 3]]))
        trainer.model.state_dict()
        trainer.loader.state_dict()
        _ = run.model(), run.metrics
    assert outcome(run) == whole


def test_how_often_is_evaluated_and_saved_changes_nothing(corpus, whole, tmp_path):
    run = resume(prepare(corpus, tmp_path / "run", evaluate_every=2, checkpoint_every=3), device="cpu")

    def steps(metrics):
        return [line for line in metrics if line["kind"] == "step"]

    found = outcome(run)
    assert steps(found["metrics"]) == steps(whole["metrics"])
    assert (found["model"], found["training"]) == (whole["model"], whole["training"])


def test_another_seed_changes_everything(corpus, whole, tmp_path):
    found = outcome(resume(prepare(corpus, tmp_path / "run", seed=7), device="cpu"))
    assert found["model"] != whole["model"]
    assert found["metrics"][0]["loss"] != whole["metrics"][0]["loss"]


def test_the_callers_generator_is_left_alone(corpus, tmp_path):
    before = torch.get_rng_state()
    run = train(corpus, out=tmp_path / "run", device="cpu", **{**SETTINGS, "steps": 3})
    resume(run, device="cpu")
    run.model()
    assert torch.equal(torch.get_rng_state(), before)


# Ctrl-C


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_returns(run, whole, number):
    handler = signal.getsignal(number)

    def press(record):
        if isinstance(record, StepRecord) and record.step == 8:
            signal.raise_signal(number)

    assert resume(run, device="cpu", watch=press).step == 8
    assert signal.getsignal(number) is handler
    assert outcome(resume(run, device="cpu")) == whole


@posix
def test_a_second_ctrl_c_ends_at_once(run, whole):
    handler = signal.getsignal(signal.SIGINT)

    def press_twice(record):
        if isinstance(record, StepRecord) and record.step == 8:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        resume(run, device="cpu", watch=press_twice)
    assert run.step == 5
    assert signal.getsignal(signal.SIGINT) is handler
    assert outcome(resume(run, device="cpu")) == whole


def test_a_training_outside_the_main_thread(run, whole):
    thread = threading.Thread(target=resume, args=(run,), kwargs={"device": "cpu"})
    thread.start()
    thread.join()
    assert outcome(run) == whole


@posix
def test_ctrl_c_on_the_command_line(corpus, tmp_path):
    settings = {"steps": 300, "checkpoint_every": 40, "evaluate_every": 100}
    path = tmp_path / "run"
    pairs = [part for name, value in {**SETTINGS, **settings}.items() for part in ("-c", f"{name}={value}")]
    command = [sys.executable, "-m", "tokenspace", "train", str(corpus), "-o", str(path), "--device", "cpu", *pairs]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**ENVIRONMENT, "COLUMNS": "1000"}
    )
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    run = Run.open(path)
    wait_for_step(run, 40, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == (
        f"stopped at step {run.step} of 300; all of it is saved. Go on with:\n  tokenspace train --resume {path}\n"
    )
    assert 40 <= run.step < 300
    uninterrupted = resume(prepare(corpus, tmp_path / "whole", **settings), device="cpu")
    assert outcome(resume(run, device="cpu")) == outcome(uninterrupted)


@posix
def test_ctrl_c_before_the_first_step_leaves_nothing(tmp_path):
    def press(record):
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            train(documents=["the cat sat on the mat " * 100], out=tmp_path / "run", tokenizer="train:270", watch=press)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not list(tmp_path.iterdir())


# SIGKILL


@posix
def test_killed_at_random_moments(corpus, tmp_path):
    settings = {"steps": 60, "checkpoint_every": 1, "evaluate_every": 7}
    run = prepare(corpus, tmp_path / "run", **settings)
    draw = random.Random(4)
    for step in (1, 24):
        command = [sys.executable, "-m", "tokenspace", "train", "--resume", str(run.path), "--device", "cpu"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
        wait_for_step(run, step, process)
        time.sleep(draw.uniform(0, 0.2))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert step <= run.step < 60
    uninterrupted = resume(prepare(corpus, tmp_path / "whole", **settings), device="cpu")
    assert outcome(resume(run, device="cpu")) == outcome(uninterrupted)


# Trains once, then in children of its own, each of which dies at its n-th operation on a file of the run. They are
# forked from a process that has one thread and has imported everything.
KILLED_AT_EVERY_FILE_OPERATION = """
import os, shutil, sys
from pathlib import Path
import torch
from tokenspace.training import resume

torch.set_num_threads(1)
prepared, folder, every = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "shutil.rmtree"}

def child(path, last):
    operations = 0
    def die(event, arguments):
        nonlocal operations
        if event in WATCHED and any("checkpoints" in str(a) or "metrics" in str(a) for a in arguments):
            operations += 1
            if operations > last:
                os._exit(9)
    sys.addaudithook(die)
    resume(path, device="cpu")
    os._exit(0)

shutil.copytree(prepared, folder / "whole")
resume(folder / "whole", device="cpu")
last = 0
while True:
    path = folder / f"{last:04d}"
    shutil.copytree(prepared, path)
    process = os.fork()
    if not process:
        child(path, last)
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0:
        shutil.rmtree(path)
        break
    last += every
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_killed_before_every_few_operations_on_a_file(corpus, tmp_path):
    settings = {"steps": 3, "checkpoint_every": 1, "evaluate_every": 3}
    prepared = prepare(corpus, tmp_path / "prepared", **settings)
    (tmp_path / "killed").mkdir()
    arguments = [str(prepared.path), str(tmp_path / "killed"), "3"]
    command = [sys.executable, "-c", KILLED_AT_EVERY_FILE_OPERATION, *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *killed, whole = [Run.open(path) for path in sorted(Path(tmp_path, "killed").iterdir())]
    assert len(killed) > 10
    assert {run.step for run in killed} >= {0, 1, 2}
    assert any(list(run.checkpoints.glob(".*.part")) for run in killed)
    expected = outcome(whole)
    assert expected["step"] == 3
    for run in killed:
        assert outcome(resume(run, device="cpu")) == expected, run
        assert not list(run.checkpoints.glob(".*"))


def test_a_row_wise_training_whose_rows_lag_is_resumed_bit_for_bit(corpus, tmp_path):
    settings = {"optimizer": "rowwise", "tie_head": False, "vocab_size": 4000}  # most rows have no gradient
    whole = resume(prepare(corpus, tmp_path / "whole", **settings), device="cpu")
    stopped = prepare(corpus, tmp_path / "stopped", **settings)
    for step in (7, 20):
        train_until(stopped, step)
    trainer = Trainer(stopped, "cpu")
    assert trainer.model.embedding.token.weight.tokenspace_link.rows.are_behind
    assert outcome(resume(stopped, device="cpu")) == outcome(whole)


def test_a_run_that_began_without_a_ledger_goes_on_without_one(run):
    trainer = Trainer(run, "cpu")
    trainer.ledger = None
    list(trainer.records(stop=lambda: trainer.step >= 4))
    resume(run, device="cpu")
    assert run.ledger is None
