"""What a checkpoint holds, and that a new one appears whole or not at all."""

import errno
import json
import os
import shutil
import subprocess

import pytest
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from tokenspace.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, state
from tokenspace.errors import CheckpointError, DiskError, SettingError
from tokenspace.files import read_sealed_json


class Tied(nn.Module):
    """A table that two names share, a buffer, and a parameter that is a view."""

    def __init__(self, rows=5):
        super().__init__()
        self.table = nn.Embedding(rows, 3)
        self.head = nn.Linear(3, rows, bias=False)
        self.head.weight = self.table.weight
        self.norm = nn.LayerNorm(3)
        self.register_buffer("steps", torch.zeros(2, dtype=torch.int64))

    def forward(self, ids):
        return self.head(self.norm(self.table(ids)))


def make(rows=5, seed=0):
    torch.manual_seed(seed)
    model = Tied(rows)
    groups = [{"params": [model.table.weight], "weight_decay": 0.0}, {"params": model.norm.parameters()}]
    return model, torch.optim.AdamW(groups, lr=0.1, betas=(0.8, 0.9), fused=True)


def move(model, optimizer, steps=1):
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.tensor([0, 1, 2])).square().sum().backward()
        optimizer.step()


def at(step, **fields):
    generators = {"cpu": torch.arange(5, dtype=torch.uint8)}
    return Checkpoint(**{"step": step, "loader": {"epoch": 1}, "metrics_bytes": 77, "generators": generators, **fields})


@pytest.fixture
def trained():
    model, optimizer = make()
    move(model, optimizer, 3)
    return model, optimizer


@pytest.fixture
def folder(tmp_path, trained):
    save_checkpoint(tmp_path / "checkpoints", at(3), *trained)
    return tmp_path / "checkpoints"


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_checkpoint_gives_back_what_was_saved(folder):
    restored = load_checkpoint(folder, *make(seed=1))
    assert (restored.step, restored.loader, restored.metrics_bytes) == (3, {"epoch": 1}, 77)
    assert list(restored.generators) == ["cpu"]
    assert torch.equal(restored.generators["cpu"], torch.arange(5, dtype=torch.uint8))


def test_a_restored_model_and_optimizer_go_on_bit_for_bit(folder, trained):
    again = make(seed=1)
    load_checkpoint(folder, *again)
    move(*trained, 4)
    move(*again, 4)
    for name, tensor in trained[0].state_dict().items():
        assert torch.equal(tensor, again[0].state_dict()[name]), name


def test_the_optimizers_groups_are_restored(folder):
    model, optimizer = make(seed=1)
    for group in optimizer.param_groups:
        group.update(lr=9.0, weight_decay=9.0)
    load_checkpoint(folder, model, optimizer)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.1, 0.0), (0.1, 0.01)]


def test_a_tied_table_is_stored_once_and_stays_tied(folder):
    with safe_open(folder / "00000003" / "model.safetensors", "pt") as tensors:
        assert sorted(tensors.keys()) == ["norm.bias", "norm.weight", "steps", "table.weight"]
    model, optimizer = make(seed=1)
    load_checkpoint(folder, model, optimizer)
    assert model.head.weight is model.table.weight


def test_an_optimizer_that_has_not_stepped_yet(tmp_path):
    save_checkpoint(tmp_path / "checkpoints", at(0), *make())
    model, optimizer = make(seed=1)
    assert load_checkpoint(tmp_path / "checkpoints", model, optimizer).step == 0
    assert not optimizer.state_dict()["state"]


def test_a_checkpoint_is_the_same_bytes_each_time(folder, trained, tmp_path):
    save_checkpoint(tmp_path / "again", at(3), *trained)
    assert files(folder) == files(tmp_path / "again")


def test_nothing_in_a_checkpoint_is_pickled(folder):
    assert {path.name for path in (folder / "00000003").iterdir()} == {
        "model.safetensors", "training.safetensors", "state.json",
    }  # fmt: skip


def test_saving_changes_neither_model_nor_optimizer(folder, trained, tmp_path):
    again = make()
    move(*again, 3)
    save_checkpoint(tmp_path / "once more", at(4), *trained)
    move(*trained)
    move(*again)
    assert torch.equal(trained[0].table.weight, again[0].table.weight)


def test_the_newest_two_checkpoints_stay(folder, trained):
    for step in (5, 8, 13):
        save_checkpoint(folder, at(step), *trained)
    assert sorted(path.name for path in folder.iterdir()) == ["00000008", "00000013", "latest"]
    assert (folder / "latest").read_text() == "00000013\n"


def test_as_many_checkpoints_stay_as_asked_for(folder, trained):
    for step in (5, 8, 13):
        save_checkpoint(folder, at(step), *trained, keep=3)
    assert sorted(path.name for path in folder.iterdir()) == ["00000005", "00000008", "00000013", "latest"]


def test_a_checkpoint_is_never_written_over(folder, trained):
    before = files(folder)
    with pytest.raises(SettingError, match=r"^`out` must not exist yet, but is "):
        save_checkpoint(folder, at(3), *trained)
    assert files(folder) == before


def test_leftovers_of_a_killed_training_are_removed_when_it_goes_on(folder):
    shutil.copytree(folder / "00000003", folder / "00000009")
    shutil.copytree(folder / "00000003", folder / ".00000009.x.part")
    (folder / ".latest.x.part").write_text("00000009\n")
    assert load_checkpoint(folder, *make()).step == 3
    assert sorted(path.name for path in folder.iterdir()) == ["00000003", "latest"]


def test_an_older_checkpoint_may_be_made_the_latest(folder, trained):
    move(*trained)
    save_checkpoint(folder, at(4), *trained)
    (folder / "latest").write_text("00000003\n")
    assert load_checkpoint(folder, *make()).step == 3


# a full disk


def full(*arguments, **keywords):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_in_rust(tensors, path, **keywords):
    path.write_bytes(b"half of it")
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("failing", [full, full_in_rust])
@pytest.mark.parametrize("file", ["model.safetensors", "training.safetensors"])
def test_a_disk_that_fills_up_under_a_tensor_file(folder, trained, monkeypatch, failing, file):
    save = state.save_file
    monkeypatch.setattr(state, "save_file", lambda t, p, **k: (failing if p.name == file else save)(t, p, **k))
    before = files(folder)
    with pytest.raises(DiskError) as error:
        save_checkpoint(folder, at(4), *trained)
    assert str(error.value).startswith(
        f"`disk of {folder / '00000004'}` must have room for all that is written there, but is 'full ("
    )
    assert str(error.value).endswith(" bytes free)'. Free some space, or write to another disk.")
    assert files(folder) == before
    monkeypatch.undo()
    assert load_checkpoint(folder, *make()).step == 3


def test_a_disk_that_fills_up_under_the_name_of_the_latest(folder, trained, monkeypatch):
    def write_file(path, data):
        raise DiskError(f"disk of {path}", "have room", "full", "Free some space")

    monkeypatch.setattr(state, "write_file", write_file)
    with pytest.raises(DiskError):
        save_checkpoint(folder, at(4), *trained)
    assert load_checkpoint(folder, *make()).step == 3


def test_another_failure_of_safetensors_is_no_full_disk(folder, trained, monkeypatch):
    def fail(*arguments, **keywords):
        raise SafetensorError("I/O error: Input/output error (os error 5)")

    monkeypatch.setattr(state, "save_file", fail)
    before = files(folder)
    with pytest.raises(SafetensorError, match="os error 5"):
        save_checkpoint(folder, at(4), *trained)
    assert files(folder) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk")
def test_a_small_disk_that_is_really_full(tmp_path, trained):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no tmpfs may be mounted here")
    try:
        save_checkpoint(disk / "checkpoints", at(3), *trained)
        before = files(disk)
        with pytest.raises(DiskError, match=r"have room for all that is written there, but is 'full \("):
            save_checkpoint(disk / "checkpoints", at(4), *make(rows=50_000))
        assert files(disk) == before
        assert load_checkpoint(disk / "checkpoints", *make()).step == 3
    finally:
        subprocess.run(["umount", disk], check=True)


# damage


def refused(folder, model=None):
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(folder, *(model or make(seed=1)))
    return str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "one bit", "longer", "empty"])
def test_a_damaged_tensor_file(folder, name, damage):
    path = folder / "00000003" / name
    data = bytearray(path.read_bytes())
    if damage == "one bit":
        data[-3] ^= 1
    path.write_bytes({"cut": data[:-1], "one bit": data, "longer": data + b"x", "empty": b""}[damage])
    assert refused(folder) == f"`{path}` must be as it was written, but is 'altered or cut'. Use another checkpoint."


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors"])
def test_a_missing_tensor_file(folder, name):
    path = folder / "00000003" / name
    path.unlink()
    message = refused(folder)
    assert message.startswith(f"`{path}` must be a whole safetensors file, but is ")
    assert message.endswith(". Use another checkpoint.")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"step": 3}', "\x00"])
def test_a_state_that_is_no_sealed_json(folder, text):
    path = folder / "00000003" / "state.json"
    path.write_text(text)
    message = refused(folder)
    assert message.startswith("`state.json` must be whole JSON with a checksum, but is ")
    assert "damaged (" in message
    assert message.endswith(f"Make {path} again.")


def test_an_altered_state(folder):
    path = folder / "00000003" / "state.json"
    path.write_text(path.read_text().replace('"step": 3', '"step": 4'))
    assert refused(folder) == (
        f"`state.json` must be as it was written, but is 'altered'. Make {path} again, or undo the change."
    )


def test_a_missing_state(folder):
    path = folder / "00000003" / "state.json"
    path.unlink()
    assert refused(folder) == (
        f"`{path}` must be a file that can be read, but is 'No such file or directory'. Check the path."
    )


@pytest.mark.parametrize("data", [b"", b"three", b"../00000003", b"00000004", b"00000003\n00000003"])
def test_a_name_of_the_latest_that_is_no_checkpoint(folder, data):
    (folder / "latest").write_bytes(data)
    message = refused(folder)
    assert message.startswith(f"`{folder / 'latest'}` must name a checkpoint folder, but is ")
    assert message.endswith(". Write a step's name into it.")


@pytest.mark.parametrize("data", [None, b"\xff\xfe"])
def test_no_name_of_the_latest(folder, data):
    (folder / "latest").unlink() if data is None else (folder / "latest").write_bytes(data)
    message = f"`{folder / 'latest'}` must name the latest checkpoint, but is 'missing'. Train again."
    assert refused(folder) == message


def test_a_damaged_checkpoint_leaves_the_leftovers_of_a_newer_one(folder, trained):
    """They may be what the user wants to go on with."""
    save_checkpoint(folder, at(4), *trained)
    (folder / "latest").write_text("00000003\n")
    (folder / "00000003" / "state.json").write_text("{")
    refused(folder)
    assert (folder / "00000004" / "state.json").exists()


def test_a_checkpoint_of_a_model_of_another_shape(folder):
    path = folder / "00000003" / "model.safetensors"
    assert refused(folder, make(rows=6)) == (
        f"`table.weight in {path}` must be [6, 3], but is [5, 3]. Open it with its own config."
    )


def test_a_checkpoint_of_another_model(folder):
    model = nn.Linear(2, 2)
    message = refused(folder, (model, torch.optim.AdamW(model.parameters())))
    assert message.startswith("`bias in ")
    assert "must be [2], but is 'absent'" in message


def test_a_checkpoint_of_another_optimizer(folder):
    model, _ = make()
    message = refused(folder, (model, torch.optim.AdamW(model.parameters())))
    assert message.startswith("`optimizer state` must fit the model, but is ")
    assert message.endswith("Resume with the run's own config.")


def test_the_state_tells_what_the_files_are(folder):
    fields = read_sealed_json(folder / "00000003" / "state.json")
    assert fields["step"] == 3
    assert set(fields["files"]) == {"model.safetensors", "training.safetensors"}
    assert json.dumps(fields["optimizer_groups"])
