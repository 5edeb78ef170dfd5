"""Files and folders that appear whole or not at all, and JSON that notices a change."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from tokenspace import files
from tokenspace.errors import CheckpointError, CorpusError, DiskError, SettingError
from tokenspace.files import (
    check_absent,
    file_sha256,
    new_folder,
    read_sealed_json,
    room_on_disk,
    sealed_json,
    write_file,
)


def failing(error):
    def fail(*arguments, **options):
        raise error

    return fail


def full_disk():
    return OSError(errno.ENOSPC, "No space left on device")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_file_writes(tmp_path):
    write_file(tmp_path / "a", b"\x00\r\n\xff")
    assert (tmp_path / "a").read_bytes() == b"\x00\r\n\xff"
    assert names(tmp_path) == ["a"]


def test_write_file_replaces(tmp_path):
    (tmp_path / "a").write_bytes(b"old and longer")
    write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.skipif(os.name == "nt", reason="no such permissions")
def test_write_file_makes_a_file_that_others_may_read(tmp_path):
    write_file(tmp_path / "a", b"")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("broken", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch, broken, error):
    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(*(files.os, "fsync") if broken == "fsync" else (Path, "replace"), failing(error))
    with pytest.raises(type(error)):
        write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_full_disk_keeps_the_old_file_and_says_how_much_was_needed(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(files.os, "fsync", failing(full_disk()))
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: _Usage(7))
    with pytest.raises(DiskError) as caught:
        write_file(path, b"x" * 12_345)
    assert str(caught.value) == (
        f"`disk of {path}` must have 12,345 bytes of room, but is 'full (7 bytes free)'. "
        "Free some space, or write to another disk."
    )
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


class _Usage:
    def __init__(self, free):
        self.free = free


def test_other_errors_of_the_disk_are_not_called_full(tmp_path):
    with pytest.raises(PermissionError), room_on_disk(tmp_path / "a", 1):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_an_unknown_need_is_not_given_as_a_number(tmp_path):
    with (
        pytest.raises(DiskError, match="must have room for all that is written there"),
        room_on_disk(tmp_path / "a", 0),
    ):
        raise full_disk()


def test_a_new_folder_appears_when_the_block_ends(tmp_path):
    with new_folder(tmp_path / "deep" / "run") as part:
        (part / "inner").mkdir()
        (part / "inner" / "file").write_bytes(b"1")
        assert not (tmp_path / "deep" / "run").exists()
    assert (tmp_path / "deep" / "run" / "inner" / "file").read_bytes() == b"1"
    assert names(tmp_path / "deep") == ["run"]


@pytest.mark.skipif(os.name == "nt", reason="no such permissions")
def test_a_new_folder_may_be_read_by_others(tmp_path):
    with new_folder(tmp_path / "run"):
        pass
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(os.name == "nt", reason="folders are not synced there")
def test_all_of_a_new_folder_is_on_the_disk_before_it_appears(tmp_path, monkeypatch):
    synced, appeared = [], tmp_path / "run"
    monkeypatch.setattr(files.os, "fsync", lambda number: synced.append((os.fstat(number).st_ino, appeared.exists())))
    with new_folder(appeared) as part:
        (part / "inner").mkdir()
        (part / "inner" / "file").write_bytes(b"1")
    inside = {path.stat().st_ino for path in (appeared, appeared / "inner", appeared / "inner" / "file")}
    assert inside == {inode for inode, was_visible in synced if not was_visible}
    assert synced[-1] == (tmp_path.stat().st_ino, True)  # the rename itself


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_a_block_that_raises_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)), new_folder(tmp_path / "run") as part:
        (part / "file").write_bytes(b"half")
        raise error
    assert names(tmp_path) == []


def test_a_disk_that_fills_within_the_block_leaves_nothing(tmp_path):
    with pytest.raises(DiskError), new_folder(tmp_path / "run") as part:
        (part / "file").write_bytes(b"half")
        raise full_disk()
    assert names(tmp_path) == []


def test_a_failed_rename_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "rename", failing(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"), new_folder(tmp_path / "run") as part:
        (part / "file").write_bytes(b"all")
    assert names(tmp_path) == []


def test_an_existing_folder_is_not_touched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run", "mine").write_bytes(b"1")
    with pytest.raises(SettingError) as caught, new_folder(Path("run")):
        pytest.fail("the block must not run")
    assert str(caught.value) == "`out` must not exist yet, but is 'run'. Give another path, or remove that one."
    assert names(Path("run")) == ["mine"]


def test_a_folder_made_by_another_meanwhile_is_not_touched(tmp_path):
    with pytest.raises(SettingError, match="must not exist yet"), new_folder(tmp_path / "run") as part:
        (part / "file").write_bytes(b"all")
        (tmp_path / "run").mkdir()
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == []


@pytest.mark.skipif(os.name == "nt", reason="links need a permission there")
def test_a_link_to_nowhere_counts_as_existing(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SettingError, match="`where` must not exist yet"):
        check_absent(tmp_path / "link", name="where")


FIELDS = {"tokens": 3, "name": "बिल्ली", "list": [1.5, None, {"a": True}]}


def test_sealed_fields_come_back(tmp_path):
    (tmp_path / "a.json").write_bytes(sealed_json(FIELDS))
    assert read_sealed_json(tmp_path / "a.json") == FIELDS


def test_each_row_of_numbers_has_a_line_and_text_keeps_its_brackets():
    lines = sealed_json({"runs": [(0, 1, 2), (3, 4, 5)], "texts": [["], ["], [1, 2]]}).decode().splitlines()
    assert lines[1:9] == [
        ' "runs": [',
        "  [0, 1, 2],",
        "  [3, 4, 5]",
        " ],",
        ' "texts": [',
        '  ["], ["],',
        "  [1, 2]",
        " ],",
    ]


def test_sealed_json_is_plain_json_and_always_the_same():
    assert json.loads(sealed_json(FIELDS)).items() >= FIELDS.items()
    assert sealed_json(FIELDS) == sealed_json(dict(FIELDS))


def test_the_seal_survives_another_indentation(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(json.loads(sealed_json(FIELDS))))
    assert read_sealed_json(tmp_path / "a.json") == FIELDS


def test_the_seal_survives_another_order_of_fields(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(dict(reversed(json.loads(sealed_json(FIELDS)).items()))))
    assert read_sealed_json(tmp_path / "a.json") == FIELDS


@pytest.mark.parametrize("change", [{"tokens": 4}, {"more": 1}, {"sha256": "0" * 64}])
def test_an_altered_field_is_noticed(tmp_path, change):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**json.loads(sealed_json(FIELDS)), **change}))
    with pytest.raises(CheckpointError) as caught:
        read_sealed_json(path)
    assert str(caught.value) == (
        f"`a.json` must be as it was written, but is 'altered'. Make {path} again, or undo the change."
    )


@pytest.mark.parametrize("data", [b"", sealed_json(FIELDS)[:-5], b"[1]", b"3", b"null", b'{"tokens": 3}', b"\xff\xfe"])
def test_damaged_json_is_one_clear_line(tmp_path, data):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(CorpusError) as caught:
        read_sealed_json(path, CorpusError)
    message = str(caught.value)
    assert message.startswith("`a.json` must be whole JSON with a checksum, but is ")
    assert message.endswith(f"Make {path} again.")
    assert "\n" not in message


def test_a_missing_file_is_named_with_its_path(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        read_sealed_json(tmp_path / "a.json")
    assert str(caught.value).startswith(f"`{tmp_path / 'a.json'}` must be a file that can be read, but is ")


def test_file_sha256_is_that_of_the_bytes(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(data)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("number", [28, 112, 122])  # full on POSIX, full on Windows, over quota
def test_the_disk_full_of_safetensors_is_one_too(tmp_path, number):
    with pytest.raises(DiskError, match="must have room for all"), new_folder(tmp_path / "out"):
        raise SafetensorError(f"Error while serializing: I/O error: No space left on device (os error {number})")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_safetensors_are_not_called_full(tmp_path):
    with pytest.raises(SafetensorError, match="os error 281"), new_folder(tmp_path / "out"):
        raise SafetensorError("Error while serializing: I/O error: Something else (os error 281)")


def test_a_new_file_appears_when_the_block_ends(tmp_path):
    with files.new_file(tmp_path / "a") as part:
        part.write_bytes(b"whole")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"whole" and len(list(tmp_path.iterdir())) == 1
    assert os.name == "nt" or (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_a_new_file_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.new_file(tmp_path / "a") as part:
        part.write_bytes(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_replaces_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(SettingError, match="must not exist yet"), files.new_file(tmp_path / "a"):
        raise AssertionError
    assert (tmp_path / "a").read_bytes() == b"mine"
    with pytest.raises(SettingError, match="must not exist yet"), files.new_file(tmp_path / "b"):
        (tmp_path / "b").write_bytes(b"of another meanwhile")
    assert (tmp_path / "b").read_bytes() == b"of another meanwhile" and len(list(tmp_path.iterdir())) == 2
