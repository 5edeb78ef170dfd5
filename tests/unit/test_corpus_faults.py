"""What befalls a build: killed at any moment, two at once, a full disk, bits that flip. None goes unnoticed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corpus_cases import SETTINGS, digests, planned, write_text, write_tokenizer
from tokenspace.corpus import Corpus, Fault, Job, build_corpus, find_faults, plan_corpus, repair, run_job
from tokenspace.errors import CorpusError, DiskError, SettingError, TextError
from tokenspace.store import LocalStore
from tokenspace.text import read_strings
from tokenspace.tokenizer import Tokenizer

KILLS = int(os.environ.get("TOKENSPACE_KILLS", "10"))  # 50 take a minute
BUILD = """
import sys
sys.path.insert(0, sys.argv[4])
from pathlib import Path
from corpus_cases import planned
from tokenspace.corpus import run_job
print("begun", flush=True)
run_job(planned(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], task_bytes=8_000), workers=2)
"""
posix = pytest.mark.skipif(os.name == "nt", reason="kills by signal")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("sources") / "text", size=3)


@pytest.fixture(scope="module")
def undisturbed(text, tokenizer, tmp_path_factory):
    """The corpus, and how long a process of its own takes to make it."""
    out = tmp_path_factory.mktemp("undisturbed") / "corpus"
    process = start(text, tokenizer, out)
    begun = time.monotonic()
    process.communicate()
    assert process.returncode == 0
    return out, time.monotonic() - begun


def start(text, tokenizer, out):
    tests = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, text, tokenizer, out, tests], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"begun\n"
    return process


def resumed(text, tokenizer, out):
    run_job(planned(text, tokenizer, out, task_bytes=8_000), workers=1)
    return digests(out)


@posix
@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_a_random_moment_it_goes_on_and_comes_to_the_same_bytes(text, tokenizer, undisturbed, tmp_path, seed):
    expected, seconds = undisturbed
    process = start(text, tokenizer, tmp_path / "c")
    time.sleep(random.Random(seed).random() * seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if not is_finished(tmp_path / "c"):
        resumed(text, tokenizer, tmp_path / "c")  # while workers of the killed one may still be at their last task
    wait_for_orphans(tmp_path / "c")
    assert digests(tmp_path / "c") == digests(expected)


def is_finished(out):
    return (out / "manifest.json").exists() and not list(out.glob("tasks/*")) and not list(out.glob(".*"))


def test_killed_after_publishing_the_same_command_sweeps(text, tokenizer, undisturbed, tmp_path):
    out = shutil.copytree(undisturbed[0], tmp_path / "c")
    (out / "tasks").mkdir()
    (out / "tasks" / "00003.json").write_text("{}")
    (out / ".train-00001.host-1-00000000.bin.part").write_text("x")
    assert resumed(text, tokenizer, out) == digests(undisturbed[0])
    with pytest.raises(SettingError, match="not exist yet"):
        resumed(text, tokenizer, out)


def wait_for_orphans(out):
    """Workers end when their driver does, at the latest after the task at hand."""
    names = None
    while names != (names := sorted(path.name for path in out.rglob("*"))):
        time.sleep(0.1)


@posix
def test_killed_again_and_again_it_still_comes_to_the_same_bytes(text, tokenizer, undisturbed, tmp_path):
    expected, seconds = undisturbed
    draw = random.Random(1)
    for _ in range(4):
        if is_finished(tmp_path / "c"):
            break
        process = start(text, tokenizer, tmp_path / "c")
        time.sleep(draw.random() * seconds / 2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    if not is_finished(tmp_path / "c"):
        resumed(text, tokenizer, tmp_path / "c")
    wait_for_orphans(tmp_path / "c")
    assert digests(tmp_path / "c") == digests(expected)


@posix
def test_interrupted_it_keeps_what_was_committed_and_goes_on(text, tokenizer, undisturbed, tmp_path):
    expected, _ = undisturbed
    process = start(text, tokenizer, tmp_path / "c")
    while not list((tmp_path / "c").glob("tasks/*.json")):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, trace = process.communicate()
    if process.returncode:  # else it was done before
        assert b"KeyboardInterrupt" in trace
        assert not [name for name in digests(tmp_path / "c") if name.endswith(".part")]
        assert resumed(text, tokenizer, tmp_path / "c") == digests(expected)


@posix
def test_of_two_builds_at_once_none_harms_the_other(text, tokenizer, undisturbed, tmp_path):
    expected, _ = undisturbed
    for attempt in range(3):
        out = tmp_path / str(attempt)
        racers = [start(text, tokenizer, out) for _ in range(2)]
        outcomes = [racer.communicate()[1].decode() for racer in racers]
        assert 0 in [racer.returncode for racer in racers], outcomes
        for racer, trace in zip(racers, outcomes, strict=True):
            assert racer.returncode == 0 or "must not exist yet" in trace  # it came when all was done
        assert digests(out) == digests(expected)


# full disks


def test_a_full_disk_ends_the_build_and_with_room_it_goes_on(text, tokenizer, undisturbed, tmp_path, monkeypatch):
    expected, _ = undisturbed
    job = planned(text, tokenizer, tmp_path / "c", task_bytes=8_000)
    opened, room = LocalStore.writer, [60_000]

    class Limited:
        def __init__(self, file):
            self._file = file

        def write(self, data):
            size = memoryview(data).nbytes
            if size > room[0]:
                raise OSError(28, "No space left on device")
            room[0] -= size
            return self._file.write(data)

        def close(self):
            self._file.close()

    def writer(store, name):
        context = opened(store, name)

        class Wrapped:
            def __enter__(self):
                return Limited(context.__enter__())

            def __exit__(self, *error):
                return context.__exit__(*error)

        return Wrapped()

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "writer", writer)
        with pytest.raises(DiskError, match="bytes of room, but is 'full"):
            run_job(job, workers=1)
    left = digests(tmp_path / "c")
    assert any(name.startswith("tasks/") for name in left)
    assert not [name for name in left if name.endswith(".part")]
    assert resumed(text, tokenizer, tmp_path / "c") == digests(expected)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a file system")
def test_on_a_small_file_system(text, tokenizer, undisturbed, tmp_path):
    expected, _ = undisturbed
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192k", "none", mount], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(DiskError, match="full"):
            run_job(planned(text, tokenizer, mount / "c", task_bytes=8_000), workers=2)
        subprocess.run(["mount", "-o", "remount,size=8m", mount], check=True)
        assert resumed(text, tokenizer, mount / "c") == digests(expected)
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_mistake_before_anything_is_committed_leaves_nothing(tokenizer, tmp_path):
    from tokenspace.corpus import build_planned

    (tmp_path / "a.txt").write_bytes(b"good \xff bad")
    with pytest.raises(TextError):
        build_planned([tmp_path / "a.txt"], str(tokenizer), tmp_path / "c", SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_plan_that_was_there_before_outlives_a_mistake(tokenizer, tmp_path):
    from tokenspace.corpus import build_planned

    (tmp_path / "a.txt").write_bytes(b"good \xff bad")
    plan_corpus([tmp_path / "a.txt"], str(tokenizer), tmp_path / "c", SETTINGS)
    with pytest.raises(TextError):
        build_planned([tmp_path / "a.txt"], str(tokenizer), tmp_path / "c", SETTINGS)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["plan.json", "tokenizer.json"]


# damage


@pytest.fixture
def corpus(undisturbed, tmp_path):
    return LocalStore(shutil.copytree(undisturbed[0], tmp_path / "copy"))


def flip(path, draw):
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def test_a_whole_corpus_has_no_faults(corpus):
    seen = []
    assert find_faults(corpus, lambda *counts: seen.append(counts)) == []
    assert seen[-1][0] == seen[-1][1] == sum(len(corpus.read(name)) for name in corpus.names() if name.endswith(".bin"))


@pytest.mark.parametrize("seed", range(3))
def test_a_bit_that_flips_in_any_file_is_found_there(corpus, seed):
    draw = random.Random(seed)
    for name in corpus.names():
        before = corpus.read(name)
        flip(corpus.folder / name, draw)
        faults = find_faults(corpus)
        assert [fault.where.split(",")[0] for fault in faults] == [name]
        (corpus.folder / name).write_bytes(before)


def test_every_bit_of_the_manifest_counts(corpus):
    path = corpus.folder / "manifest.json"
    data = path.read_bytes()
    draw = random.Random(5)
    for _ in range(300):
        flip(path, draw)
        assert find_faults(corpus)
        path.write_bytes(data)


@pytest.mark.parametrize("suffix", [".bin", ".idx", ".origins"])
def test_missing_and_cut_files_are_found(corpus, suffix):
    (corpus.folder / f"train-00001{suffix}").unlink()
    path = corpus.folder / f"train-00002{suffix}"
    path.write_bytes(path.read_bytes()[:-1])
    faults = find_faults(corpus)
    assert Fault(f"train-00001{suffix}", "missing", 1) in faults
    assert {fault.task for fault in faults} == {1, 2}
    assert any("bytes instead of" in fault.found for fault in faults)


def test_all_that_is_wrong_is_listed_and_the_tasks_named_repair_it(corpus, undisturbed):
    validation = next(name for name in reversed(corpus.names()) if name.startswith("validation-"))
    last = int(validation[11:16])
    for name in ("train-00000.bin", "train-00003.idx", "train-00005.origins", validation):
        flip(corpus.folder / name, random.Random(2))
    (corpus.folder / "train-00004.bin").unlink()
    faults = find_faults(corpus)
    assert [fault.task for fault in faults] == [0, 3, 4, 5, last]
    for fault in faults:
        repair(corpus, fault.task)
    assert find_faults(corpus) == []
    assert digests(corpus.folder) == digests(undisturbed[0])


def test_a_shard_that_was_cut_is_repaired_too(text, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tokenspace.corpus.task.split_by_hash", lambda batches, _: ((batch, False) for batch in batches)
    )
    job = planned(text, tokenizer, tmp_path / "c", task_bytes=50_000)
    run_job(job, workers=1)
    before = digests(tmp_path / "c")
    (head,) = (tmp_path / "c").glob("*-head.bin")
    task = int(head.name[6:11])
    for path in (head, *(tmp_path / "c").glob("validation-*")):
        path.unlink()
    assert {fault.task for fault in find_faults(job.store)} == {task}
    repair(job.store, task)
    assert digests(tmp_path / "c") == before
    for index in range(len(job.plan.tasks)):
        repair(job.store, index)
    assert digests(tmp_path / "c") == before


def test_a_repair_that_comes_out_otherwise_changes_nothing(corpus, monkeypatch):
    flip(corpus.folder / "train-00001.bin", random.Random(0))
    before = digests(corpus.folder)
    monkeypatch.setattr("tokenspace.corpus.split._by_hash", lambda batch, fraction: batch.short)
    last = len(Job.open(corpus).plan.tasks) - 1
    rule = f"`files` must come out of task {last} as the manifest says, but is 'otherwise'"
    with pytest.raises(CorpusError, match=rule):
        repair(corpus, last)
    assert digests(corpus.folder) == before


def test_without_a_plan_nothing_is_repaired(tokenizer, tmp_path):
    build_corpus(read_strings(["a cat"]), Tokenizer.from_file(tokenizer), tmp_path / "c", validation_fraction=0)
    flip(tmp_path / "c" / "train-00000.bin", random.Random(0))
    store = LocalStore(tmp_path / "c")
    assert [fault.task for fault in find_faults(store)] == [None]
    with pytest.raises(CorpusError, match="`corpus` must have a plan, to run a task again"):
        repair(store, 0)


def test_a_task_that_a_published_corpus_does_not_have(corpus):
    with pytest.raises(SettingError, match="`index` must be from 0 to"):
        repair(corpus, 999)


def test_no_manifest_no_corpus(tmp_path):
    with pytest.raises(CorpusError, match=r"manifest\.json` must be a file that can be read"):
        find_faults(LocalStore(tmp_path))


def test_faults_of_the_first_version_are_found_as_before(undisturbed):
    assert Corpus.open(undisturbed[0]).manifest.plan_crc32 is not None
