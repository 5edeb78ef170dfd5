"""``tokenspace corpus`` and its verbs."""

import json
import subprocess
import sys

import pytest

from corpus_cases import digests, planned, sentences, write_text, write_tokenizer
from tokenspace import Corpus
from tokenspace.corpus import run_job


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path / "text")


@pytest.fixture
def tokenizer(tmp_path):
    return write_tokenizer(tmp_path / "tokenizer.json")


def test_plan_tasks_and_commit_make_what_build_makes(command, text, tokenizer, tmp_path):
    settings = ("--tokenizer", tokenizer, "--id-field", "meta.id", "--validation", "0.1")
    step, whole = tmp_path / "step", tmp_path / "whole"
    planned = command("corpus", "plan", text, "-o", step, *settings, "--json")
    assert json.loads(planned.out) == {
        "corpus": str(step),
        "tasks": 1,
        "sources": 4,
        "bytes": sum(path.stat().st_size for path in text.iterdir()),
    }
    early = command("corpus", "commit", step)
    assert early.status == 2 and "1 of 1 not: 0" in early.error_line
    done = command("corpus", "task", step, "--index", 0)
    assert done.status == 0 and done.out == "" and "task 0 of 1 is committed" in done.err
    committed = command("corpus", "commit", step, "--json")
    built = command("corpus", "build", text, "-o", whole, *settings, "--json")
    assert json.loads(committed.out)["splits"] == json.loads(built.out)["splits"]
    assert digests(step) == digests(whole)


def test_build_without_sources_goes_on_with_the_plan(command, text, tokenizer, tmp_path):
    job = planned(text, tokenizer, tmp_path / "c")
    job.run(1)
    assert command("corpus", "build", "-o", tmp_path / "c", "--workers", 2).status == 0
    run_job(planned(text, tokenizer, tmp_path / "other"), workers=1)
    assert digests(tmp_path / "c") == digests(tmp_path / "other")
    nothing = command("corpus", "build", "-o", tmp_path / "nothing")
    assert nothing.status == 2 and "`corpus` must hold plan.json" in nothing.error_line


def test_shard_size_is_read_with_its_unit(command, text, tokenizer, tmp_path):
    arguments = ("corpus", "plan", text, "--tokenizer", tokenizer, "-o", tmp_path / "c", "--shard-size")
    assert command(*arguments, "10kB").status == 0
    assert command("corpus", "build", "-o", tmp_path / "c").status == 0
    assert len(Corpus.open(tmp_path / "c").manifest.splits["train"].shards) > 3
    for size in ("much", "1.5GB", "-3", "GiB", "²"):
        assert command(*arguments, size).error_line.startswith("`shard_size` must be a size such as 256MiB or 2GB")


def test_estimate_says_tokens_bytes_and_time_and_writes_nothing(command, text, tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    found = json.loads(command("corpus", "plan", text, "--estimate", "--tokenizer", tokenizer, "--json").out)
    assert found["tokens"] > 10_000 and found["corpus_bytes"] == 2 * found["tokens"] and found["seconds"] > 0
    shown = command("corpus", "plan", text, "--estimate", "--tokenizer", tokenizer)
    assert "tokens" in shown.out and "reckoned from" in shown.err
    assert sorted(tmp_path.iterdir()) == before
    untrained = command("corpus", "plan", text, "--estimate", "--tokenizer", "train:300")
    assert untrained.error_line.startswith("`tokenizer` must exist already for an estimate")
    assert command("corpus", "plan", text).error_line.startswith("`out` must be given, or --estimate")


def test_concat(command, tokenizer, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(sentences(1, 50), encoding="utf-8")
        arguments = ("-o", tmp_path / name, "--tokenizer", tokenizer, "--validation", 0)
        assert command("corpus", "build", tmp_path / f"{name}.txt", *arguments).status == 0
    joined = command("corpus", "concat", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "c", "--json")
    assert json.loads(joined.out)["splits"]["train"]["documents"] == 2
    assert command("corpus", "verify", tmp_path / "c").status == 0


def test_verify_lists_all_that_is_wrong_and_the_task_that_mends_it(command, text, tokenizer, tmp_path):
    corpus = tmp_path / "c"
    run_job(planned(text, tokenizer, corpus), workers=1)
    before = digests(corpus)
    for name in ("train-00001.bin", "train-00002.idx"):
        data = bytearray((corpus / name).read_bytes())
        data[40] ^= 1
        (corpus / name).write_bytes(data)
    found = command("corpus", "verify", corpus)
    assert found.status == 2
    assert "train-00001.bin, bytes 0 to" in found.out and "train-00002.idx" in found.out
    assert "(and 1 more)" in found.error_line
    assert f"Run `tokenspace corpus task {corpus} --index 1`, and with 2: it makes the files anew" in found.error_line
    faults = json.loads(command("corpus", "verify", corpus, "--json").out)["faults"]
    assert [fault["task"] for fault in faults] == [1, 2]
    for index in (1, 2):
        assert command("corpus", "task", corpus, "--index", index).status == 0
    assert command("corpus", "verify", corpus).status == 0
    assert digests(corpus) == before


def test_standard_input_and_several_workers_in_processes(text, tokenizer, tmp_path):
    lines = (text / "part0.jsonl").read_bytes()
    arguments = [sys.executable, "-m", "tokenspace", "corpus", "build", "-", "-o", "c", "--tokenizer", tokenizer]
    done = subprocess.run(arguments, input=lines, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Corpus.open(tmp_path / "c").manifest.num_sources == 1


def test_no_workers_at_all(command, text, tokenizer, tmp_path):
    refused = command("corpus", "build", text, "-o", tmp_path / "c", "--tokenizer", tokenizer, "--workers", 0)
    assert refused.error_line.startswith("`workers` must be a whole number of at least 1, but is 0")
    assert not (tmp_path / "c").exists()
