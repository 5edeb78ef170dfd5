"""Two processes train as one does: the same losses and counts, and checkpoints that each can take up from the other."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from tokenspace.checkpoint import Run
from tokenspace.corpus import build_corpus
from tokenspace.errors import SettingError
from tokenspace.ledger.record import COUNTS
from tokenspace.text import Piece
from tokenspace.tokenizer import Tokenizer
from tokenspace.training import Trainer, resume
from tokenspace.training.prepare import prepare_run, prepare_run_from_corpus
from tokenspace.training.processes import Alone, Group, choose_device, processes, share_of

WORLD, STEPS, STOP = 2, 24, 9
SETTINGS = {
    "d_model": 16, "num_layers": 1, "num_heads": 2, "context_length": 16, "batch_size": 4, "dropout": 0.0,
    "steps": STEPS, "checkpoint_every": 5, "evaluate_every": 7, "learning_rate": 0.01,
}  # fmt: skip
CASES = {
    "tied": {},
    "rowwise": {"optimizer": "rowwise", "tie_head": False, "vocab_size": 4000},  # most rows have no gradient
    "memory": {"positions": "transformer_xl", "memory_length": 24},
    "dropout": {"dropout": 0.2, "positions": "transformer_xl", "memory_length": 24, "tie_head": False},
}
EXACT = ["tied", "rowwise", "memory"]  # what draws nothing at random once it has begun
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "1000"}

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not distributed.is_available() or sys.platform == "win32", reason="gloo and POSIX signals"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def corpus(folder):
    draw = random.Random(1)
    words = ["the", "cat", "and", "a", "dog", "sat", "on", "some", "mats", "because", "it", "was", "cold"]
    texts = [" ".join(draw.choice(words) for _ in range(50)) for _ in range(20)]
    pieces = [Piece(text, True, "x", row) for row, text in enumerate(texts)]
    build_corpus(pieces, Tokenizer.train(texts, 300), folder / "corpus", validation_fraction=0.2)
    return folder / "corpus"


def prepare(corpus, out, **settings):
    return prepare_run_from_corpus(corpus, out, {**SETTINGS, **settings}, lambda record: None)


def train_until(path, step, group=None):
    """Train up to a step; of several processes the last one wishes to stop there."""
    group = group or Alone()
    trainer = Trainer(Run.open(path), "cpu", group)
    list(trainer.records(stop=lambda: group.rank == group.world_size - 1 and trainer.step >= step))
    return trainer


def jobs():
    """What two processes do, one after another: the name of a run and the step to stop at."""
    whole = [(f"{case}-2", STEPS) for case in CASES]
    others = [(f"{case}-1-2", STEPS) for case in EXACT] + [(f"{case}-2-1", STOP) for case in EXACT]
    return whole + others + [(f"{case}-2-2", step) for case in CASES for step in (STOP, STEPS)]


def work(rank, ports, folder):
    """One of two processes, in a new group for each job, as torchrun would make it."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    os.environ |= {"MASTER_ADDR": "localhost", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for port, (name, step) in zip(ports, jobs(), strict=True):
        os.environ["MASTER_PORT"] = str(port)
        with processes() as group:
            trainer = train_until(Path(folder, name), step, group)
        torch.save(trainer.model.state_dict(), Path(folder, f"{name}.{rank}.pt"))


@pytest.fixture(scope="module")
def trained(corpus, folder):
    """A folder of runs, named ``CASE-1`` for one process, ``CASE-1-2`` for one that two took up, and so on."""
    for case, settings in CASES.items():
        run = prepare(corpus, folder / f"{case}-1", **settings)
        for way in ("2", "1-2", "2-1", "2-2"):
            shutil.copytree(run.path, folder / f"{case}-{way}")
        train_until(run.path, STEPS)
        train_until(folder / f"{case}-1-2", STOP)
    stores = [distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False) for _ in jobs()]
    torch.multiprocessing.spawn(work, ([store.port for store in stores], str(folder)), nprocs=WORLD)
    for case in EXACT:
        train_until(folder / f"{case}-2-1", STEPS)
    return folder


def told(run):
    """What the records say: whole numbers, and numbers with their rounding."""
    whole = [(record["kind"], record["step"], record["tokens"]) for record in run.metrics]
    numbers = [(record["loss"], record.get("gradient_norm", 0.0)) for record in run.metrics]
    return whole, torch.tensor(numbers, dtype=torch.float64)


@pytest.mark.parametrize("way", ["2", "1-2", "2-1"])
@pytest.mark.parametrize("case", EXACT)
def test_losses_are_those_of_one_process(trained, case, way):
    one, other = (Run.open(trained / f"{case}-{way}") for way in ("1", way))
    (records, expected), (others, found) = told(one), told(other)
    assert others == records
    torch.testing.assert_close(found[:, 0], expected[:, 0], rtol=1e-5, atol=0)
    torch.testing.assert_close(found[:, 1], expected[:, 1], rtol=1e-3, atol=0)
    assert one.metrics[-1]["unigram_loss"] == other.metrics[-1]["unigram_loss"]


@pytest.mark.parametrize("way", ["2", "1-2", "2-1"])
@pytest.mark.parametrize("case", EXACT)
def test_the_ledger_counts_what_all_processes_saw(trained, case, way):
    one, other = (Run.open(trained / f"{case}-{way}").ledger for way in ("1", way))
    for name in COUNTS:
        assert (getattr(other, name) == getattr(one, name)).all(), name
    torch.testing.assert_close(torch.tensor(other.path), torch.tensor(one.path), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("case", EXACT)
def test_tables_are_those_of_one_process(trained, case):
    one, other = (Run.open(trained / f"{case}-{way}").embedding().state_dict() for way in ("1", "2"))
    torch.testing.assert_close(other, one, rtol=0, atol=1e-3)


@pytest.mark.parametrize("case", EXACT)
def test_a_checkpoint_does_not_tell_how_many_made_it(trained, case):
    """Memory stands in the order of the batch's rows, counts are of all; generators alone are each process's."""
    last = f"checkpoints/{STEPS:08d}/training.safetensors"
    one, other = (load_file(trained / f"{case}-{way}" / last) for way in ("1", "2"))
    assert not torch.equal(other.pop("generator.process1.cpu"), other["generator.cpu"])
    assert ("memory.0" in one) == (case == "memory")
    torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_replicas_are_equal_bit_for_bit(trained, case):
    first, second = (torch.load(trained / f"{case}-2.{rank}.pt") for rank in range(WORLD))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_go_on_bit_for_bit(trained, case):
    whole, stopped = (Run.open(trained / f"{case}-{way}") for way in ("2", "2-2"))
    for name in ("model.safetensors", "training.safetensors"):
        last = f"checkpoints/{STEPS:08d}/{name}"
        assert (whole.path / last).read_bytes() == (stopped.path / last).read_bytes()
    untimed = [[{**record, "seconds": 0} for record in run.metrics] for run in (whole, stopped)]
    assert untimed[0] == untimed[1]


def test_one_process_goes_on_after_two_with_dropout(trained, tmp_path):
    shutil.copytree(trained / "dropout-2", tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "latest").write_text(f"{20:08d}\n")
    assert resume(tmp_path / "run", device="cpu").step == STEPS


# batches and devices


def test_a_batch_that_the_processes_cannot_share():
    with pytest.raises(SettingError) as error:
        share_of(4, world_size=3)
    assert str(error.value) == (
        "`batch_size` must be divisible by the 3 processes, but is 4. "
        "Use batch_size = 6, or another number of processes."
    )


def test_it_is_refused_before_any_work_and_leaves_nothing(tmp_path):
    with pytest.raises(SettingError, match="`batch_size` must be divisible by the 3 processes, but is 4"):
        prepare_run(None, tmp_path / "run", "gpt2", SETTINGS, lambda record: None, world_size=3)
    assert not list(tmp_path.iterdir())


def test_one_that_was_chosen_is_refused_too_and_leaves_nothing(corpus, tmp_path):
    chosen = {name: value for name, value in SETTINGS.items() if name != "batch_size"}
    with pytest.raises(SettingError, match="`batch_size` must be divisible by the 3 processes, but is 8"):
        prepare_run_from_corpus(corpus, tmp_path / "run", chosen, lambda record: None, world_size=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "nonsense", "meta", "hpu", "cuda:99"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(SettingError) as error:
        choose_device(name)
    assert str(error.value) == f"`device` must be one that torch has here, but is '{name}'. Use 'cpu' or 'auto'."


def test_auto_finds_a_device():
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["cuda:0", "mps", "meta"])
def test_several_processes_take_no_certain_device(name):
    with pytest.raises(SettingError) as error:
        Group.device(Group.__new__(Group), name)
    assert str(error.value) == (
        f"`device` must be 'auto', 'cpu' or 'cuda' where several processes train, but is '{name}'. "
        "Each process takes the GPU of its own number."
    )


@pytest.mark.parametrize("arguments", [["train"], ["train", "--no-such-flag"]])
def test_a_mistake_that_all_processes_find_is_told_by_the_first(command, monkeypatch, arguments):
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = []
    for rank in range(WORLD):
        monkeypatch.setenv("RANK", str(rank))
        told.append(command(*arguments))
    assert [outcome.status for outcome in told] == [2, 2]
    assert told[0].error_line and not told[1].err


# torchrun

BY_TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(WORLD)]

# The command line, whose second process comes to an end before its fourth step.
ENDS = """
import os, signal, sys
from tokenspace.cli import main
from tokenspace.errors import SettingError
from tokenspace.training import Trainer

how, *arguments = sys.argv[1:]
train_step = Trainer._train_step

def ends(trainer, batches):
    if trainer.step == 3 and (trainer.processes.rank == 1 or how == "both"):
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise SettingError("lamp", "stand", "fallen", "Pick it up")
    return train_step(trainer, batches)

Trainer._train_step = ends
main(arguments)
"""


@pytest.fixture
def ends(tmp_path):
    (tmp_path / "ends.py").write_text(ENDS)
    return tmp_path / "ends.py"


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("error", "error: `lamp in process 1` must stand, but is 'fallen'. Pick it up."),
        ("both", "error: `lamp` must stand, but is 'fallen'. Pick it up."),
        ("killed", "error: `the training's processes` must all go on, but is 'one that ended ("),
    ],
)
def test_one_that_ends_ends_all_with_one_line(corpus, tmp_path, ends, how, expected):
    run = prepare(corpus, tmp_path / "run", checkpoint_every=2)
    command = [*BY_TORCHRUN, str(ends), how, "train", "--resume", str(run.path), "--device", "cpu"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if how == "killed" and not lines:  # torchrun ended the other one before it could say so
        assert "SIGKILL" in done.stderr
    else:
        (line,) = lines
        assert line.startswith(expected)
    assert "tokenspace/training" not in done.stderr  # no traceback of ours
    assert run.step == 2


# What is left of a group at its end, after a step of an optimiser, which imports much of torch.
THREADS = """
import os, pathlib, torch
from tokenspace.training.processes import processes
with processes() as group:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    group.sum(weight.grad)
    optimizer.step()
for task in pathlib.Path("/proc/self/task").iterdir():
    assert "gloo" not in (task / "comm").read_text()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_thread_of_a_group_outlives_it(tmp_path):
    (tmp_path / "threads.py").write_text(THREADS)
    command = [*BY_TORCHRUN, str(tmp_path / "threads.py")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_torchrun_trains_and_says_everything_once(corpus, tmp_path):
    pairs = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
    command = [*BY_TORCHRUN, "-m", "tokenspace", "train", str(corpus), "-o", "run", "--device", "cpu", *pairs]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("smoothed unigram model") == 1
    assert done.stderr.count("untrained: validation loss") == 1
    alone = resume(prepare(corpus, tmp_path / "alone"), device="cpu")
    (records, expected), (others, found) = told(alone), told(Run.open(tmp_path / "run"))
    assert others == records
    torch.testing.assert_close(found[:, 0], expected[:, 0], rtol=1e-5, atol=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "run"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_all_processes_at_one_step(corpus, tmp_path, number):
    run = prepare(corpus, tmp_path / "run", steps=100_000, checkpoint_every=20)
    command = [*BY_TORCHRUN, "-m", "tokenspace", "train", "--resume", str(run.path), "--device", "cpu"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while run.step < 20:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=25)  # torchrun would kill after 30 seconds
    assert process.returncode, err
    assert f"stopped at step {run.step} of 100000; all of it is saved." in out
    assert json.loads(run.metrics_path.read_text().splitlines()[-1])["step"] == run.step
    assert train_until(run.path, run.step + 3).step == run.step
