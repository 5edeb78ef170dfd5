"""Plan, tasks, commit records, publishing: what each step leaves, and that it does not matter who takes it."""

import itertools
import json
import os
import random
import subprocess
import sys
import uuid

import numpy as np
import pytest

from corpus_cases import SETTINGS, WORDS, digests, planned, sentences, write_text, write_tokenizer
from tokenspace.corpus import (
    BuildSettings,
    Corpus,
    Job,
    Plan,
    build_corpus,
    engines,
    plan_corpus,
    publish_job,
    run_job,
    task,
)
from tokenspace.corpus.origins import read_origins
from tokenspace.errors import CorpusError, SettingError, TextError
from tokenspace.store import LocalStore, Store
from tokenspace.text import read_documents, read_strings
from tokenspace.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("sources") / "text")


@pytest.fixture(scope="module")
def undisturbed(text, tokenizer, tmp_path_factory):
    """The files of a build by one process in one go."""
    out = tmp_path_factory.mktemp("undisturbed") / "corpus"
    run_job(planned(text, tokenizer, out), workers=1)
    return out


def decoded(corpus):
    """Every document's text, those that go over shards joined."""
    documents = []
    tokenizer = corpus.tokenizer()
    for shard in corpus.manifest.splits[corpus.split].shards:
        ids = np.fromfile(corpus.path / f"{shard.name}.bin", corpus.dtype)
        bounds = task_bounds(corpus, shard)
        parts = [ids[start:stop].tolist() for start, stop in itertools.pairwise(bounds)]
        if shard.continues:
            documents[-1] += parts.pop(0)
        documents += parts
    return [tokenizer.decode(ids).removesuffix("<|endoftext|>") for ids in documents]


def task_bounds(corpus, shard):
    from tokenspace.corpus.format import document_bounds

    return document_bounds((corpus.path / f"{shard.name}.idx").read_bytes(), shard.name).tolist()


def test_the_corpus_holds_every_document_of_the_sources(text, undisturbed):
    expected, held = [], []
    for piece in read_documents([text]):
        held.append(piece.text)
        if piece.ends_document:
            expected.append("".join(held))
            held = []
    train = Corpus.open(undisturbed)
    found = decoded(train) + decoded(Corpus.open(undisturbed, "validation"))
    assert sorted(found) == sorted(expected)
    assert sum(split.num_documents for split in train.manifest.splits.values()) == len(expected)
    assert train.manifest.num_sources == 4


def test_a_document_in_several_tasks_goes_on_from_shard_to_shard(undisturbed):
    shards = Corpus.open(undisturbed).manifest.splits["train"].shards
    assert sum(shard.continues for shard in shards) >= 3
    assert not shards[0].continues


def test_the_plan_says_which_task_made_each_shard(undisturbed):
    job = Job.open(LocalStore(undisturbed))
    manifest = Corpus.open(undisturbed).manifest
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    assert {shard.task for shard in shards} == set(range(len(job.plan.tasks)))
    assert all(f"-{shard.task:05d}" in shard.name for shard in shards)
    assert manifest.plan_crc32 == job.plan.crc32


def test_nothing_of_the_scaffolding_is_left(undisturbed):
    suffixes = {name.partition(".")[2] for name in digests(undisturbed)}
    assert suffixes == {"json", "bin", "idx", "origins"}
    assert [path.name for path in undisturbed.iterdir() if path.is_dir()] == []


def test_each_document_is_traced_to_its_source_row_and_id(text, undisturbed):
    found = []
    for split in ("train", "validation"):
        corpus = Corpus.open(undisturbed, split)
        for shard in corpus.manifest.splits[split].shards:
            rows = read_origins((undisturbed / f"{shard.name}.origins").read_bytes()).tolist()
            assert len(rows) == shard.num_documents
            found += rows[1:] if shard.continues else rows
    expected = [(str(text / "long.txt"), 0, None), (str(text / "short.md"), 0, None)]
    expected += [(str(text / f"part{part}.jsonl"), row, f"{part}-{row}") for part in range(2) for row in range(300)]
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_blocks_and_indices_check(undisturbed):
    for split in ("train", "validation"):
        Corpus.open(undisturbed, split).verify()


@pytest.mark.parametrize("workers", [2, 3])
def test_more_processes_make_the_same_bytes(text, tokenizer, undisturbed, tmp_path, workers):
    run_job(planned(text, tokenizer, tmp_path / "c"), workers=workers)
    assert digests(tmp_path / "c") == digests(undisturbed)


def run_task(corpus, index):
    command = [sys.executable, "-m", "tokenspace", "corpus", "task", corpus, "--index", str(index)]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def test_tasks_in_any_order_some_twice_from_processes_of_their_own(text, tokenizer, undisturbed, tmp_path):
    job = planned(text, tokenizer, tmp_path / "c", task_bytes=60_000)
    run_job(planned(text, tokenizer, tmp_path / "once", task_bytes=60_000), workers=1)
    order = [*range(len(job.plan.tasks)), 0, 2]
    random.Random(3).shuffle(order)
    for pair in zip(order[::2], order[1::2], strict=False):
        for process in [run_task(tmp_path / "c", index) for index in pair]:
            assert process.communicate() and process.returncode == 0
    for index in range(len(job.plan.tasks)):
        job.run(index)
    done = subprocess.run([sys.executable, "-m", "tokenspace", "corpus", "commit", tmp_path / "c"], check=False)
    assert done.returncode == 0
    assert digests(tmp_path / "c") == digests(tmp_path / "once")


def test_the_same_task_twice_at_once_in_two_threads_of_control(text, tokenizer, undisturbed, tmp_path):
    """The second attempt loses at the commit, and leaves nothing."""
    job = planned(text, tokenizer, tmp_path / "c")
    late = job.attempt(0, "late-1-00000000", lambda *counts: None)
    job.run(0)
    assert not job.store.create("tasks/00000.json", late.to_bytes())
    task.sweep(job.store, all_attempts=True)
    for index in range(len(job.plan.tasks)):
        job.run(index)
    publish_job(job)
    assert digests(tmp_path / "c") == digests(undisturbed)


def test_an_attempt_that_died_between_commit_and_renaming_is_finished_by_others(
    text, tokenizer, undisturbed, tmp_path, monkeypatch
):
    job = planned(text, tokenizer, tmp_path / "c")

    def die(store, record):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(task, "_settle", die)
        with pytest.raises(KeyboardInterrupt):
            job.run(0)
    assert "tasks/00000.json" in job.store.names() and "train-00000.bin" not in job.store.names()
    run_job(job, workers=1)
    assert digests(tmp_path / "c") == digests(undisturbed)


def test_a_committed_task_whose_files_are_lost_runs_again(text, tokenizer, undisturbed, tmp_path):
    job = planned(text, tokenizer, tmp_path / "c")
    for index in range(3):
        job.run(index)
    (tmp_path / "c" / "train-00001.idx").unlink()
    (tmp_path / "c" / "tasks" / "00002.json").write_bytes(b"{}")
    run_job(job, workers=1)
    assert digests(tmp_path / "c") == digests(undisturbed)


def test_a_task_that_comes_after_publishing_changes_nothing(text, tokenizer, undisturbed, tmp_path, monkeypatch):
    job = planned(text, tokenizer, tmp_path / "c")
    written = job.attempt

    def slow(self, index, attempt, advance):
        record = written(index, attempt, advance)
        monkeypatch.undo()
        run_job(job, workers=1)  # another process is quicker
        return record

    monkeypatch.setattr(Job, "attempt", slow)
    job.run(1)
    assert digests(tmp_path / "c") == digests(undisturbed)


def test_publishing_names_the_tasks_that_are_missing(text, tokenizer, tmp_path):
    job = planned(text, tokenizer, tmp_path / "c")
    number = len(job.plan.tasks)
    for index in range(number):
        if index not in (1, 4):
            job.run(index)
    with pytest.raises(CorpusError) as error:
        publish_job(job)
    assert str(error.value) == (
        f"`tasks` must all be committed, but is '2 of {number} not: 1, 4'. "
        f"Run `tokenspace corpus task {tmp_path / 'c'} --index 1`, and so on."
    )
    assert "manifest.json" not in job.store.names()


def test_publishing_twice_is_publishing_once(text, tokenizer, undisturbed, tmp_path):
    job = planned(text, tokenizer, tmp_path / "c")
    manifest = run_job(job, workers=1)
    assert publish_job(job) == run_job(job) == manifest
    assert digests(tmp_path / "c") == digests(undisturbed)


def test_the_same_plan_goes_on_and_another_is_refused(text, tokenizer, tmp_path):
    job = planned(text, tokenizer, tmp_path / "c")
    job.run(0)
    assert planned(text, tokenizer, tmp_path / "c").plan == job.plan
    with pytest.raises(SettingError) as error:
        planned(text, tokenizer, tmp_path / "c", settings=BuildSettings(validation_fraction=0.2))
    assert str(error.value) == (
        f"`out` must hold no other plan, but is '{tmp_path / 'c'} with another plan'. "
        "Go on with the same sources and settings, or remove it, or give another path."
    )
    assert job.record(0) is not None


def test_a_vocabulary_is_not_learned_twice(text, tmp_path, monkeypatch):
    first = plan_corpus([text], "train:300", tmp_path / "c", SETTINGS, task_bytes=20_000)
    monkeypatch.setattr(Tokenizer, "train", None)
    again = plan_corpus([text], "train:300", tmp_path / "c", SETTINGS, task_bytes=20_000)
    assert again.plan == first.plan and again.plan.tokenizer.name == "train:300"


@pytest.mark.parametrize("kind", ["folder", "file", "corpus"])
def test_what_stands_there_is_refused_and_untouched(text, tokenizer, tmp_path, kind):
    out = tmp_path / "c"
    if kind == "corpus":
        build_corpus(read_strings(["a cat"]), Tokenizer.from_file(tokenizer), out, validation_fraction=0)
    elif kind == "folder":
        out.mkdir()
        (out / "mine").write_text("x")
    else:
        out.write_text("x")
    before = digests(tmp_path)
    with pytest.raises(SettingError, match="`out` must not exist yet"):
        planned(text, tokenizer, out)
    assert digests(tmp_path) == before


def test_a_source_that_changed_after_the_plan_is_named(tokenizer, tmp_path):
    text = write_text(tmp_path / "text")
    job = planned(text, tokenizer, tmp_path / "c")
    (text / "part0.jsonl").write_text('{"text": "other"}\n')
    with pytest.raises(TextError, match=r"part0\.jsonl"):
        run_job(job, workers=1)
    with pytest.raises(TextError, match=r"part0\.jsonl"):
        run_job(job, workers=2)
    assert "manifest.json" not in job.store.names()


def test_a_plan_is_read_as_it_was_made(text, tokenizer, tmp_path):
    job = planned(text, tokenizer, tmp_path / "c")
    assert Plan.from_bytes(job.plan.content, "plan.json") == job.plan
    assert Job.open(job.store).plan == job.plan


def test_tasks_hold_every_span_once_in_order_and_are_of_bounded_size(text, tokenizer, tmp_path):
    plan = planned(text, tokenizer, tmp_path / "c").plan
    small = planned(text, tokenizer, tmp_path / "small", task_bytes=1 << 30).plan
    assert len(small.tasks) == 1
    assert sum(plan.task_bytes(index) for index in range(len(plan.tasks))) == pytest.approx(plan.num_bytes, abs=20)
    assert [source.path for source in plan.sources] == sorted(source.path for source in plan.sources)


@pytest.mark.parametrize("index", [-1, 10_000])
def test_a_task_the_plan_does_not_have(text, tokenizer, tmp_path, index):
    with pytest.raises(SettingError, match="`index` must be from 0 to"):
        planned(text, tokenizer, tmp_path / "c").run(index)


def test_a_folder_without_a_plan_is_no_job(tmp_path):
    with pytest.raises(CorpusError, match=r"`corpus` must hold plan\.json, but is"):
        Job.open(LocalStore(tmp_path))


def test_a_plan_with_another_tokenizer_beside_it_is_refused(text, tokenizer, tmp_path):
    planned(text, tokenizer, tmp_path / "c")
    Tokenizer.train([sentences(9, 500)], 280).save(tmp_path / "c" / "tokenizer.json")
    with pytest.raises(CorpusError, match="which the plan names, but is 'another tokenizer'"):
        Job.open(LocalStore(tmp_path / "c")).run(0)


def test_a_corpus_is_built_in_an_object_store(text, tokenizer, undisturbed):
    store = Store.of(f"memory://{uuid.uuid4()}/corpus")
    job = planned(text, tokenizer, store.place)
    run_job(job, workers=4)  # of which only this process sees the store
    assert {name: store.read(name) for name in store.names()} == {
        path.name: path.read_bytes() for path in undisturbed.iterdir()
    }


def test_a_corpus_is_built_at_a_file_address(text, tokenizer, undisturbed, tmp_path):
    run_job(planned(text, tokenizer, f"file://{tmp_path / 'c'}"), workers=2)
    assert digests(tmp_path / "c") == digests(undisturbed)


# validation


def long_text(tmp_path):
    (tmp_path / "text").mkdir()
    for number in range(3):
        (tmp_path / "text" / f"{number}.txt").write_text(sentences(number, 9000), encoding="utf-8")
    return tmp_path / "text"


@pytest.mark.parametrize("fraction", [0.001, 0.05, 0.4])
def test_where_no_document_is_drawn_the_end_of_a_shard_validates(tokenizer, tmp_path, monkeypatch, fraction):
    monkeypatch.setattr("tokenspace.corpus.tail._CHUNK_TOKENS", 700)
    text = long_text(tmp_path)
    whole = planned(text, tokenizer, tmp_path / "whole", settings=BuildSettings(validation_fraction=0))
    cut = planned(text, tokenizer, tmp_path / "cut", settings=BuildSettings(validation_fraction=fraction, seed=1))
    monkeypatch.setattr("tokenspace.corpus.split._by_hash", lambda batch, fraction: np.zeros(len(batch.ends), bool))
    run_job(whole, workers=1)
    run_job(cut, workers=1)
    every = Corpus.open(tmp_path / "whole")
    train, validation = Corpus.open(tmp_path / "cut"), Corpus.open(tmp_path / "cut", "validation")
    assert train.num_tokens + validation.num_tokens == every.num_tokens
    (shard,) = validation.manifest.splits["validation"].shards
    wanted = round(fraction * every.num_tokens)
    largest = max(shard.num_tokens for shard in every.manifest.splits["train"].shards)
    assert validation.num_tokens == min(wanted, largest - 1)
    ids = every.tokens(0, every.num_tokens).tolist()
    at = sum(part.num_tokens for part in train.manifest.splits["train"].shards if part.task <= shard.task)
    assert train.tokens(0, at).tolist() == ids[:at]
    assert validation.tokens(0, validation.num_tokens).tolist() == ids[at : at + validation.num_tokens]
    assert train.tokens(at, train.num_tokens).tolist() == ids[at + validation.num_tokens :]
    head = next(part for part in train.manifest.splits["train"].shards if part.name.endswith("-head"))
    assert not any(name.startswith(f"{head.name.removesuffix('-head')}.") for name in digests(train.path))
    for corpus in (train, validation):
        corpus.verify()


def test_documents_around_a_cut_keep_their_origins(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("tokenspace.corpus.split._by_hash", lambda batch, fraction: np.zeros(len(batch.ends), bool))
    text = write_text(tmp_path / "text")
    (text / "long.txt").unlink()
    run_job(planned(text, tokenizer, tmp_path / "c", settings=BuildSettings(0.03, id_field="meta.id")), workers=1)
    found = {}
    for split in ("train", "validation"):
        corpus = Corpus.open(tmp_path / "c", split)
        rows = [
            row
            for shard in corpus.manifest.splits[split].shards
            for row in read_origins((corpus.path / f"{shard.name}.origins").read_bytes()).tolist()
        ]
        assert len(rows) == len(decoded(corpus))
        found[split] = dict(zip([(row[0], row[1]) for row in rows], decoded(corpus), strict=True))
    assert 0 < len(found["validation"]) < 60
    whole = {
        key: found["train"].get(key, "") + found["validation"].get(key, "")
        for key in {**found["train"], **found["validation"]}
    }
    expected = {(piece.source, piece.row): piece.text for piece in read_documents([text])}
    assert whole == expected


def test_a_text_of_empty_documents_is_an_error(tokenizer, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n' * 30)
    from tokenspace.corpus import build_planned

    with pytest.raises(CorpusError, match="`text` must hold at least one token"):
        build_planned([tmp_path / "a.jsonl"], str(tokenizer), tmp_path / "c", BuildSettings())
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_words_of_the_test_text_cover_two_scripts():
    assert any(ord(word[0]) > 0x900 for word in WORDS)


def test_an_engine_that_does_not_exist(text, tokenizer, tmp_path):
    with pytest.raises(SettingError, match="`engine` must be one of local, ray, but is 'spark'"):
        run_job(planned(text, tokenizer, tmp_path / "c"), engine="spark")


def test_no_worker_outlives_its_driver(text, tokenizer, tmp_path):
    planned(text, tokenizer, tmp_path / "c")
    process = subprocess.Popen(
        [sys.executable, "-m", "tokenspace.corpus.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdin.write(json.dumps([str(tmp_path / "c"), 0]).encode() + b"\n")
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    assert b'{"done": 0}' in process.stdout.read()
    process.stdout.close()


def test_a_worker_tells_how_much_it_did_and_raises_what_failed(text, tokenizer, undisturbed, tmp_path):
    job = planned(text, tokenizer, tmp_path / "c")
    worker = engines._Worker(threads=1)
    told = []
    try:
        for index in range(len(job.plan.tasks)):
            worker.run(job.store.place, index, lambda *counts: told.append(counts))
        with pytest.raises(SettingError, match="`index` must be from 0 to"):
            worker.run(job.store.place, 999, lambda *counts: None)
    finally:
        worker.end()
    num_bytes, num_tokens = (sum(counts) for counts in zip(*told, strict=True))
    manifest = publish_job(job)
    assert num_bytes == job.plan.num_bytes
    assert num_tokens == manifest.statistics.tokens
    assert digests(tmp_path / "c") == digests(undisturbed)


def test_what_was_done_before_counts_in_the_bar(text, tokenizer, tmp_path):
    job = planned(text, tokenizer, tmp_path / "c")
    job.run(0)
    told = []
    run_job(job, workers=2, watch=lambda *counts: told.append(counts))
    tasks, done, totals, tokens = zip(*told, strict=True)
    assert set(tasks) == {"encoding"} and set(totals) == {job.plan.num_bytes}
    assert done[0] >= job.plan.task_bytes(0) and done[-1] == job.plan.num_bytes
    assert list(done) == sorted(done) and list(tokens) == sorted(tokens)


def test_a_worker_that_is_killed_is_an_error_that_says_how_to_go_on(
    text, tokenizer, undisturbed, tmp_path, monkeypatch
):
    job = planned(text, tokenizer, tmp_path / "c")
    monkeypatch.setattr(
        "tokenspace.corpus.engines.sys.executable", "/bin/false" if os.name == "posix" else sys.executable
    )
    monkeypatch.setattr(Job, "run", lambda self, index, advance: job.record(index))  # this process does nothing
    with pytest.raises(CorpusError, match="`worker process` must run until its tasks are done, but is 'ended at task"):
        run_job(job, workers=2)
    monkeypatch.undo()
    run_job(job, workers=2)
    assert digests(tmp_path / "c") == digests(undisturbed)
