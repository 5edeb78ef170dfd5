"""Frames: which steps are kept, how small they become, and that a killed training keeps the same ones."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file

from tokenspace.checkpoint import Run
from tokenspace.checkpoint import frames as checkpoint_frames
from tokenspace.corpus import build_corpus
from tokenspace.errors import CheckpointError, SettingError
from tokenspace.text import Piece
from tokenspace.tokenizer import Tokenizer
from tokenspace.training import Trainer, resume
from tokenspace.training.frames import steps_of_frames
from tokenspace.training.prepare import prepare_run_from_corpus

STEPS = 40
SETTINGS = {
    "d_model": 20, "num_layers": 1, "num_heads": 2, "context_length": 8, "batch_size": 4, "steps": STEPS,
    "checkpoint_every": 10, "evaluate_every": 20, "learning_rate": 0.01, "frames": 8,
}  # fmt: skip
DUE = [1, 3, 6, 10, 16, 23, 31, 40]
WHOLE = [0, 3, 10, 23, 40]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("frames") / "corpus"
    texts = [f"the cat of number {n} sat on mat number {n * n} and saw {n + 7} dogs" for n in range(40)]
    pieces = [Piece(text, True, "x", row) for row, text in enumerate(texts)]
    build_corpus(pieces, Tokenizer.train(texts, 280), out, validation_fraction=0.2)
    return out


def prepare(corpus, out, **settings):
    return prepare_run_from_corpus(corpus, out, {**SETTINGS, **settings}, lambda record: None)


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    return resume(prepare(corpus, tmp_path_factory.mktemp("frames") / "run"), device="cpu")


@pytest.fixture
def run(corpus, tmp_path):
    return prepare(corpus, tmp_path / "run")


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "copy")
    return Run.open(tmp_path / "copy")


def train_until(run, step):
    trainer = Trainer(run, "cpu")
    for _ in trainer.records(stop=lambda: trainer.step >= step):
        pass
    return trainer


def files(run):
    """The names and bytes of all frames."""
    return {path.name: path.read_bytes() for path in (run.path / "frames").iterdir()}


def refused(work, error=CheckpointError):
    with pytest.raises(error) as caught:
        work()
    return str(caught.value)


# which steps


@pytest.mark.parametrize("steps", [1, 2, 7, 23, 24, 25, 30, 300, 10**6])
@pytest.mark.parametrize("frames", [1, 2, 3, 24, 100])
def test_there_are_as_many_as_asked_for_and_the_last_step_is_one(steps, frames):
    due = steps_of_frames(steps, frames)
    assert due == sorted(set(due))
    assert due[0] >= 1 and due[-1] == steps
    assert len(due) == min(steps, frames)


def test_the_gaps_grow_where_there_are_steps_enough():
    due = [0, *steps_of_frames(24 * 24 * 10, 24)]
    gaps = [later - earlier for earlier, later in pairwise(due)]
    assert len(gaps) == 24
    assert gaps == sorted(gaps) and gaps[-1] > 20 * gaps[0]


def test_no_frames_is_no_step():
    assert steps_of_frames(100, 0) == []


# what is kept


def test_every_due_frame_is_whole_while_the_training_goes_on(run):
    train_until(run, 16)
    assert run.frames == [0, 1, 3, 6, 10, 16]
    assert not (run.path / "frames" / "projections.safetensors").exists()


def test_a_finished_run_keeps_five_whole_frames_and_all_projections(finished):
    assert finished.frames == WHOLE
    assert finished.projections().steps == [0, *DUE]


def test_a_frame_on_the_way_is_the_table_in_float16(run):
    trainer = train_until(run, 6)
    frame = run.frame(6)
    table = trainer.model.embedding.state_dict()["token.weight"]
    assert frame["token.weight"].dtype == torch.float16
    assert torch.equal(frame["token.weight"], table.half())
    assert frame.keys() == trainer.model.embedding.state_dict().keys()


def test_the_first_frame_keeps_its_precision(finished):
    assert finished.frame(0)["token.weight"].dtype == torch.float32


def test_projections_are_the_frames_on_the_axes_of_the_last_table(corpus, tmp_path):
    run, last = prepare(corpus, tmp_path / "run"), {}
    trainer = Trainer(run, "cpu")
    for _ in trainer.records():
        last = {step: run.frame(step) for step in run.frames}  # before the run has ended all are there
    found, now = run.projections(), run.embedding().token.weight.detach().double()
    assert list(last) == [0, *DUE]
    centred = now - now.mean(dim=0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:16]
    axes = axes * torch.sign(axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)))
    for place, step in enumerate(found.steps):
        expected = (last[step]["token.weight"].double() - now.mean(dim=0)) @ axes.t()
        torch.testing.assert_close(found.points[place].double(), expected, rtol=2e-3, atol=2e-4)
    assert found.points.dtype == torch.float16


def test_projections_of_a_run_that_was_stopped_end_with_its_latest_checkpoint(run):
    train_until(run, 12)
    found = run.projections()
    assert found.steps == [0, 1, 3, 6, 10, 12]
    now = run.embedding().token.weight.detach()
    torch.testing.assert_close(found.points[-1], found.basis.project(now).half())


def test_without_frames_there_is_the_beginning_and_now(corpus, tmp_path):
    run = resume(prepare(corpus, tmp_path / "run", frames=0), device="cpu")
    assert run.frames == [0]
    assert run.projections().steps == [0, STEPS]


def test_frames_change_nothing_that_follows(corpus, finished, tmp_path):
    without = resume(prepare(corpus, tmp_path / "run", frames=0), device="cpu")
    newest = f"checkpoints/{STEPS:08d}"
    for name in ("model.safetensors", "training.safetensors"):
        assert (without.path / newest / name).read_bytes() == (finished.path / newest / name).read_bytes()
    assert without.ledger_path.read_bytes() == finished.ledger_path.read_bytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"tie_head": True},
        {"tie_head": False},
        {"tie_head": False, "optimizer": "rowwise"},
        {"positions": "rotary"},
        {"positions": "transformer_xl"},
    ],
    ids=str,
)
def test_the_last_frame_is_the_trained_table(corpus, tmp_path, settings):
    run = resume(prepare(corpus, tmp_path / "run", steps=6, **settings), device="cpu")
    now = run.embedding().token.weight.detach()
    found = run.projections()
    assert torch.equal(run.frame(6)["token.weight"], now.half())  # rows that lag are caught up in both
    torch.testing.assert_close(found.points[-1], found.basis.project(now).half(), rtol=2e-3, atol=2e-4)


def test_frames_of_rowwise_are_those_of_adamw(corpus, tmp_path):
    tables = [
        resume(prepare(corpus, tmp_path / name, tie_head=False, optimizer=name), device="cpu").frame(23)["token.weight"]
        for name in ("adamw", "rowwise")
    ]
    torch.testing.assert_close(*tables, rtol=2e-3, atol=2e-4)


def test_frames_of_a_finished_run_are_small(corpus, tmp_path):
    run = prepare(corpus, tmp_path / "run", d_model=256, frames=24)
    trainer, largest = Trainer(run, "cpu"), 0
    for _ in trainer.records():
        largest = max(largest, sum(map(len, files(run).values())))
    table = 280 * 256
    small = sum(map(len, files(run).values()))
    assert small < table * (4 + 4 * 2 + 25 * 16 * 2 / 256) + 100_000  # one of float32, four of float16, projections
    assert small < largest / 2


# stopped, killed, gone on with


@pytest.mark.parametrize("stops", [[1], [2, 3], [9, 11, 39], [40]])
def test_a_stopped_training_keeps_the_same_frames(run, finished, stops):
    for step in stops:
        train_until(run, step)
    assert files(resume(run, device="cpu")) == files(finished)


def test_a_killed_training_keeps_the_same_frames(run, finished):
    """Killed between two checkpoints, when a frame lies there that is later than the checkpoint."""
    code = (
        "import sys, time\n"
        "from tokenspace import Run\n"
        "from tokenspace.training import Trainer\n"
        "trainer = Trainer(Run.open(sys.argv[1]), 'cpu')\n"
        "for _ in trainer.records():\n"
        "    if trainer.step == 17:\n"
        "        time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(run.path)], env=ENVIRONMENT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while 16 not in run.frames:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert run.step == 10
    trainer = Trainer(run, "cpu")
    records = trainer.records()
    next(records)
    assert run.frames == [0, 1, 3, 6, 10]  # the one that the checkpoint does not know of is gone
    records.close()
    assert files(resume(run, device="cpu")) == files(finished)


@pytest.mark.parametrize("point", ["before the projections", "after the projections", "between two removals"])
def test_killed_while_frames_are_made_small(run, finished, monkeypatch, point):
    class Killed(BaseException):
        pass

    calls = []

    def dies(path, *arguments, **settings):
        if "frames" in path.parts and path.exists():  # at the start there is nothing to remove
            calls.append(path)
            if len(calls) == (2 if point == "between two removals" else 1):
                raise Killed
        return unlink(path, *arguments, **settings)

    def refuses(path, data):
        if path.name == "projections.safetensors":
            raise Killed
        return write(path, data)

    trainer = Trainer(run, "cpu")
    with pytest.raises(Killed), monkeypatch.context() as patch:
        unlink, write = type(run.path).unlink, checkpoint_frames.write_file
        if point == "before the projections":
            patch.setattr(checkpoint_frames, "write_file", refuses)
        else:
            patch.setattr(type(run.path), "unlink", dies)
        list(trainer.records())
    assert len(run.frames) > len(WHOLE)
    assert run.projections().steps == [0, *DUE]
    assert files(resume(run, device="cpu")) == files(finished)


def test_what_a_kill_left_half_written_is_removed(run):
    (run.path / "frames" / ".00000001.safetensors.part").write_bytes(b"half")
    train_until(run, 1)
    assert sorted(files(run)) == ["00000000.safetensors", "00000001.safetensors"]


def test_ctrl_c_leaves_frames_that_the_next_training_goes_on_with(corpus, tmp_path):
    run = prepare(corpus, tmp_path / "run", steps=100_000, frames=4000, checkpoint_every=20)
    command = [sys.executable, "-m", "tokenspace", "train", "--resume", str(run.path), "--device", "cpu"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while run.step < 20:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    due = [step for step in steps_of_frames(100_000, 4000) if step <= run.step]
    assert run.frames == [0, *due]
    assert run.projections().steps[-1] == run.step


# damage


def test_damaged_projections(copy):
    path = copy.path / "frames" / "projections.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    message = refused(copy.projections)
    assert message.startswith(f"`{path}` must be whole, but is ")
    assert message.endswith(". Remove it.")


def test_without_the_damaged_projections_the_whole_frames_are_left(copy):
    (copy.path / "frames" / "projections.safetensors").unlink()
    assert copy.projections().steps == WHOLE


@pytest.mark.parametrize("steps", ["[0, 1]", "5", None], ids=str)
def test_projections_that_do_not_fit_their_steps(copy, steps):
    path = copy.path / "frames" / "projections.safetensors"
    save_file(load_file(path), path, None if steps is None else {"steps": steps})
    assert re.match(rf"`{re.escape(str(path))}` must be whole, but is ", refused(copy.projections))


def test_a_frame_without_a_token_table(copy):
    (copy.path / "frames" / "projections.safetensors").unlink()
    path = copy.path / "frames" / "00000010.safetensors"
    save_file({"other": torch.zeros(2)}, path)
    assert refused(copy.projections).startswith(f"`{path}` must hold a token.weight")


def test_a_damaged_frame_on_the_way_can_be_removed(copy):
    path = copy.path / "frames" / "00000010.safetensors"
    path.write_bytes(b"")
    message = refused(lambda: copy.frame(10))
    assert message.startswith(f"`{path}` must be whole, but is ") and message.endswith(". Remove it.")
    path.unlink()
    assert copy.frames == [0, 3, 23, 40]


def test_a_frame_that_is_small_now(copy):
    assert refused(lambda: copy.frame(16), SettingError) == (
        "`step` must be one of [0, 3, 10, 23, 40], but is 16. Take one of these."
    )


# many processes


def test_only_the_first_process_writes(run):
    from tokenspace.training.processes import Alone

    class Second(Alone):
        is_first = False

    trainer = Trainer(run, "cpu", Second())
    list(trainer.records())
    assert trainer.step == STEPS
    assert run.frames == [0]


def test_torchrun_keeps_the_frames_of_one_process(corpus, run, finished, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "tokenspace", "train"]
    done = subprocess.run(
        [*command, "--resume", str(run.path), "--device", "cpu"],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert files(run).keys() == files(finished).keys()
    ours, theirs = run.projections(), finished.projections()
    assert ours.steps == theirs.steps
    assert torch.equal(ours.points[0].isfinite(), theirs.points[0].isfinite())
    assert json.loads(run.metrics_path.read_text().splitlines()[-1])["step"] == STEPS
