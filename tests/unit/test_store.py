"""Folders and object stores alike: what several builders need of them."""

import errno
import os
import threading
import uuid

import pytest

from tokenspace.errors import CorpusError, DiskError, SettingError
from tokenspace.store import LocalStore, RemoteStore, Store


@pytest.fixture(params=["folder", "file", "memory"])
def store(request, tmp_path):
    places = {
        "folder": tmp_path / "store",
        "file": f"file://{tmp_path / 'store'}",
        "memory": f"memory://store-{uuid.uuid4()}",
    }
    return Store.of(places[request.param])


def write(store, name, data):
    with store.writer(name) as file:
        file.write(data)


def test_what_was_written_is_read(store):
    write(store, "tasks/a.bin", b"0123456789")
    assert store.read("tasks/a.bin") == b"0123456789"
    assert store.read_range("tasks/a.bin", 3, 6) == b"345"
    assert store.read_range("tasks/a.bin", 8, 20) == b"89"
    assert store.size("tasks/a.bin") == 10
    assert store.names() == ["tasks/a.bin"]


def test_what_is_not_there_has_no_size_and_cannot_be_read(store):
    assert store.size("a") is None and store.names() == []
    with pytest.raises(CorpusError, match="/a` must be a file that can be read, but is"):
        store.read("a")
    with pytest.raises(CorpusError):
        store.read_range("a", 0, 1)
    store.remove("a")


def test_only_the_first_creates(store):
    assert store.create("tasks/1.json", b"first")
    assert not store.create("tasks/1.json", b"second")
    assert store.read("tasks/1.json") == b"first"
    assert store.names() == ["tasks/1.json"]


def test_of_many_at_once_one_creates(store):
    outcomes, barrier = [], threading.Barrier(8)

    def create(number):
        barrier.wait()
        outcomes.append((store.create("record", b"%d" % number), number))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number for won, number in outcomes if won]
    if isinstance(store, LocalStore):  # memory:// looks before it writes; real stores do both in one request
        assert len(winners) == 1
        assert store.read("record") == b"%d" % winners[0]
    assert store.names() == ["record"]


def test_a_file_is_renamed_over_another(store):
    write(store, ".a.part", b"new")
    write(store, "a", b"old")
    store.rename(".a.part", "a")
    store.sync()
    assert store.read("a") == b"new" and store.names() == ["a"]
    with pytest.raises(FileNotFoundError):
        store.rename(".a.part", "a")


def test_a_writer_that_fails_leaves_nothing(store):
    with pytest.raises(KeyError), store.writer("a") as file:
        file.write(b"half")
        raise KeyError
    assert store.names() == []


def test_pruning_leaves_files_and_takes_empty_folders(store):
    write(store, "tasks/a", b"")
    write(store, "b", b"")
    store.remove("tasks/a")
    store.prune()
    assert store.names() == ["b"]
    if isinstance(store, LocalStore):
        assert [path.name for path in store.folder.iterdir()] == ["b"]


def test_copies_go_from_any_store_to_any(store, tmp_path):
    write(store, "a", b"x" * 5_000_000)
    for other in (LocalStore(tmp_path / "other"), Store.of(f"memory://{uuid.uuid4()}")):
        other.copy_from(store, "a", "b")
        assert other.read("b") == store.read("a")


def test_a_copy_between_folders_is_a_link(tmp_path):
    one, other = LocalStore(tmp_path / "one"), LocalStore(tmp_path / "other")
    write(one, "a", b"x")
    other.copy_from(one, "a", "b")
    assert (tmp_path / "one" / "a").samefile(tmp_path / "other" / "b")


def test_where_links_are_refused_files_are_copied_and_created_all_the_same(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    one, other = LocalStore(tmp_path / "one"), LocalStore(tmp_path / "other")
    assert one.create("a", b"x") and not one.create("a", b"y")
    other.copy_from(one, "a", "b")
    assert other.read("b") == b"x" and one.names() == ["a"]


def test_a_full_disk_is_an_error_of_its_own(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match="must have 4 bytes of room"):
        LocalStore(tmp_path / "store").create("a", b"1234")
    assert LocalStore(tmp_path / "store").names() == []


def test_an_address_that_nothing_opens():
    with pytest.raises(SettingError, match="`address` must be one that fsspec opens"):
        Store.of("nosuch://bucket/corpus")


def test_stores_say_whether_other_processes_see_them(tmp_path):
    assert Store.of(tmp_path).is_shared and Store.of(f"file://{tmp_path}").is_shared
    assert not Store.of("memory://a").is_shared


def test_an_s3_like_store_is_asked_to_create_not_to_overwrite():
    calls = []

    class Bucket:
        protocol = ("s3", "s3a")

        def pipe_file(self, path, data, mode="overwrite"):
            calls.append((path, mode))
            if len(calls) > 1:
                raise FileExistsError(path)

    store = RemoteStore("s3://bucket/corpus", Bucket(), "bucket/corpus")
    assert store.create("tasks/00000.json", b"x") and not store.create("tasks/00000.json", b"y")
    assert calls == [("bucket/corpus/tasks/00000.json", "create")] * 2
