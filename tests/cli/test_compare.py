"""`tokenspace compare`."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tokenspace.errors import SettingError
from tokenspace.study import StudyPlan

SIZES = ["-c", "d_model=16", "-c", "num_layers=1", "-c", "probe_steps=3", "-c", "tokenizer=train:300"]
ASKED = ["--positions", "none,rotary", "--context", "16", "--extend", "2", *SIZES]

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_study_from_text_to_table_and_on_with_more_seeds(command, story, tmp_path):
    done = command("compare", story, *ASKED, "--seeds", 1, "-c", "steps=4", "-o", tmp_path / "s")
    assert done.status == 0, done.err
    assert "One seed gives no interval" in done.out
    assert "2 runs (2 schemes, 1 seed), 0 done; each 4 steps of " in done.err
    more = command("compare", story, *ASKED, "--seeds", 2, "-c", "steps=4", "-o", tmp_path / "s")
    assert "4 runs (2 schemes, 2 seeds), 2 done" in more.err
    assert "rotary-1: training" not in more.err and "rotary-2: training" in more.err
    assert all(word in more.out for word in ("Loss, in nats per token", "original", "parameters added", "report.html"))
    results = json.loads((tmp_path / "s" / "results.json").read_text(encoding="utf-8"))
    assert results["seeds"] == [1, 2] and set(results["schemes"]) == {"none", "rotary"}


def test_an_estimate_trains_nothing(command, story, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command("compare", story, *ASKED, "--estimate", "--budget", "2h", "--seeds", 2)
    assert done.status == 0, done.err
    assert "minutes a run" in done.out and "4 runs of" in done.out
    assert "about 2 h 0 min" in done.out or "about 1 h 59 min" in done.out
    assert list(tmp_path.iterdir()) == [story]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--positions", "none,rotery"], "Did you mean 'rotary'?"),
        (
            ["--budget", "soon"],
            "`budget` must be a time such as 2h, 90m or 45s, but is 'soon'. Give a number and a unit.",
        ),
        (["--budget", "30m"], "`budget` must give each of 24 runs 5 minutes, 120 in all, but is '30.0 minutes'."),
        (["--objective", "masked", "-c", "causal=true"], "`causal` must be left out of a study, but is True."),
        (["-c", "seeds=5"], "`seeds` must be left out of --config, but is 5. Use --seeds."),
        (["-c", "schemes=['none']"], "`schemes` must be left out of --config, but is ['none']. Use --positions."),
        (["-c", "documents=['x']"], "`documents` must be left out of --config, but is ['x']. Use it in Python."),
        (["--context", "512"], "`text` must have 4097 tokens for validation, twice the 4 x 512 asked for, but is"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(flags, line, command, story, tmp_path):
    done = command("compare", story, *flags, "-o", tmp_path / "s")
    assert done.status == 2 and line in done.error_line
    assert not (tmp_path / "s").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_saves_and_says_how_to_go_on(workers, story, tmp_path):
    words = ["compare", str(story), *ASKED, "--seeds", "1", "-c", "steps=100000", "--workers", workers]
    command = [sys.executable, "-m", "tokenspace", *words]
    pipes = {"stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    started = subprocess.Popen(command, **pipes, start_new_session=True)
    for line in started.stderr:
        if "none-1: training" in line:
            break
    folder = tmp_path / "studies" / story.stem
    metrics = folder / "runs/none-1/metrics.jsonl"
    while not metrics.exists() or metrics.stat().st_size < 1000:
        assert started.poll() is None
    os.killpg(started.pid, 2)  # as a terminal does: all processes of the command
    told = started.communicate(timeout=60)[1]
    assert started.returncode == 130 and "stopped; all of it is saved" in told
    assert (folder / "runs/none-1/checkpoints/latest").read_text().strip() != "00000000"
    again = shlex.split(told.splitlines()[-1])
    assert again == ["tokenspace", *words, "--out", str(Path("studies") / story.stem)]


def test_the_table_has_the_schemes_studied_before_and_is_written_first(command, story, tmp_path, monkeypatch):
    asked = ["compare", story, "--context", "16", "--extend", "2", *SIZES, "--seeds", 1, "-c", "steps=3"]
    asked += ["-o", tmp_path / "s"]
    command(*asked, "--positions", "none")
    monkeypatch.setattr("tokenspace.cli.compare.print_rows", unprintable)
    assert command(*asked, "--positions", "rotary").status == 2
    results = json.loads((tmp_path / "s" / "results.json").read_text(encoding="utf-8"))
    assert set(results["schemes"]) == {"none", "rotary"}
    monkeypatch.undo()
    done = command(*asked, "--positions", "rotary")
    assert "\nnone " in done.out and "\nrotary " in done.out


def unprintable(*table):
    raise SettingError("terminal", "take a table", "closed", "Look into the folder")


def test_extend_and_objective_may_stand_in_the_config(command, story, tmp_path):
    config = tmp_path / "study.toml"
    config.write_text("extend = 2\nobjective = 'masked'\nsteps = 2\n")
    asked = ["compare", story, "--context", "16", *SIZES, "--seeds", 1, "-c", config, "-o", tmp_path / "s"]
    assert command(*asked, "--positions", "none").status == 0
    plan = StudyPlan.open(tmp_path / "s")
    assert (plan.settings.extend, plan.settings.objective) == (2, "masked")
    assert command(*asked, "--positions", "none", "--extend", 3).error_line.startswith("`extend of the study")


def test_an_estimate_of_a_study_that_is_there_is_of_what_is_left(command, story, tmp_path):
    asked = ["compare", story, *ASKED[2:], "--seeds", 1, "-c", "steps=2", "-o", tmp_path / "s"]
    command(*asked, "--positions", "none")
    assert "All runs are done." in command(*asked, "--positions", "none", "--estimate").out
    assert "1 run of 2 steps, 1 at once" in command(*asked, "--positions", "none,alibi", "--estimate").out


@pytest.mark.parametrize("flags", [("compare", "--seeds", "1.5"), ("generate", "--top-k", "2.5")])
def test_a_whole_number_is_not_rounded(flags, command, story):
    verb, *others = flags
    done = command(verb, story, *others)
    assert done.status == 2 and done.error_line.startswith(
        f'Invalid value for {others[0]}: unable to convert "{others[1]}"'
    )
