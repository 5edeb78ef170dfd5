"""Names of the hub are found in the local cache, by the hub's own layout, and never downloaded."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from tokenspace import InputEmbedding, Run
from tokenspace.checkpoint import open_tables
from tokenspace.checkpoint.models.cache import cache_folder
from tokenspace.errors import CheckpointError

CONFIG = {"model_type": "gpt2", "n_embd": 4, "n_positions": 8, "n_head": 1, "n_layer": 1, "vocab_size": 6}
NAMES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")


@pytest.fixture(autouse=True)
def no_cache_of_its_own(monkeypatch, tmp_path):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


def cached(hub, name="gpt2", revision="0123abc", links=True):
    """A model as the hub's tools keep it: blobs, links to them by name, and what main is."""
    home = hub / f"models--{name.replace('/', '--')}"
    snapshot = home / "snapshots" / revision
    for folder in (home / "blobs", home / "refs", snapshot):
        folder.mkdir(parents=True)
    (home / "refs" / "main").write_text(revision)
    stored = snapshot if not links else home / "blobs"
    (stored / "config.json").write_text(json.dumps(CONFIG))
    save_file({"wte.weight": torch.ones(6, 4), "wpe.weight": torch.ones(8, 4)}, stored / "model.safetensors")
    for file in list(stored.iterdir()) if links else ():
        (snapshot / file.name).symlink_to(os.path.relpath(file, snapshot))
    return snapshot


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("name", ["gpt2", "openai-community/gpt2"])
def test_a_name_opens_from_the_cache(tmp_path, name):
    snapshot = cached(tmp_path / "hub", name)
    assert open_tables(name).path == snapshot
    assert Run.open(name).tables.num_rows == 6
    assert InputEmbedding.from_pretrained(name)(torch.tensor([[1]])).tolist() == [[[2.0] * 4]]


def test_a_cache_without_links_opens_too(tmp_path):
    cached(tmp_path / "hub", links=False)
    assert open_tables("gpt2").num_rows == 6


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_from_one_model_of_the_cache_to_another_is_not_followed(tmp_path):
    snapshot, other = cached(tmp_path / "hub"), cached(tmp_path / "hub", "other")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(other / "model.safetensors")
    with pytest.raises(CheckpointError, match="must lie in its folder"):
        open_tables("gpt2")


@pytest.mark.parametrize("name", ["gpt2", "meta-llama/Llama-3.2-1B"])
def test_the_error_names_the_command_that_downloads_it(name):
    with pytest.raises(CheckpointError) as caught:
        open_tables(name)
    assert str(caught.value) == (
        "`model` must be a folder, a file of vectors, or a model of the local Hugging Face cache, "
        f"but is {name!r}. Check the path, or download the model with `hf download {name}`."
    )


@pytest.mark.parametrize("name", ["a/b/c", "../gpt2", "/gpt2", "gpt2/", "a b", "", "--gpt2", "gpt2\n"])
def test_what_is_no_name_gets_no_command(name):
    with pytest.raises(CheckpointError) as caught:
        open_tables(name)
    assert "hf download" not in str(caught.value)


def test_a_folder_here_goes_before_a_name(tmp_path):
    cached(tmp_path / "hub", links=False)
    own = cached(tmp_path / "elsewhere", links=False)
    own.rename(tmp_path / "gpt2")
    assert str(open_tables("gpt2").path) == "gpt2"


def test_a_snapshot_that_is_gone_is_named(tmp_path):
    cached(tmp_path / "hub", links=False).rename(tmp_path / "gone")
    with pytest.raises(CheckpointError, match="Repeat `hf download gpt2`"):
        open_tables("gpt2")


@pytest.mark.parametrize("revision", ["../../../elsewhere", "", "a/b"])
def test_a_revision_that_leads_elsewhere_is_refused(tmp_path, revision):
    cached(tmp_path / "hub", links=False)
    (tmp_path / "hub" / "models--gpt2" / "refs" / "main").write_text(revision)
    with pytest.raises(CheckpointError, match="must be complete in the local Hugging Face cache"):
        open_tables("gpt2")


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "hub"
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / "hub"
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "huggingface" / "hub"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert str(cache_folder()).endswith(os.path.join(".cache", "huggingface", "hub"))  # noqa: PTH118


def test_the_hubs_own_library_finds_what_we_find(tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    snapshot = cached(tmp_path / "hub", "a/b", links=False)
    found = huggingface_hub.try_to_load_from_cache("a/b", "config.json", cache_dir=tmp_path / "hub")
    assert found == str(snapshot / "config.json") == str(open_tables("a/b").path / "config.json")
