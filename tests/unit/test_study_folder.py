"""What lies in a study folder from before: figures of other studies, other texts, more schemes."""

import shutil

import pytest

from tokenspace import study
from tokenspace.errors import CheckpointError
from tokenspace.files import read_sealed_json, sealed_json

TEXT = "The cat sat on the mat. The dog sat by the door. The cat saw the dog, and the dog saw the cat. " * 60
TOY = {
    "tokenizer": "train:300",
    "d_model": 16,
    "num_layers": 1,
    "context_length": 16,
    "extend": 2,
    "probe_steps": 2,
}
SCHEMES = ("none", "rotary")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "whole"
    return study.compare(documents=[TEXT], schemes=SCHEMES, seeds=1, steps=3, out=folder, **TOY)


@pytest.fixture
def copied(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "study")
    return tmp_path / "study"


def test_figures_of_a_study_with_other_settings_are_refused(copied, tmp_path):
    study.compare(documents=[TEXT], schemes=("none",), seeds=1, steps=4, out=tmp_path / "other", **TOY)
    shutil.copy(tmp_path / "other/figures/none-1.json", copied / "figures/none-1.json")
    with pytest.raises(CheckpointError, match=r"none-1.json` must be of this study"):
        study.Study.open(copied).summary()


@pytest.mark.parametrize("name", ["rotary-1", "none-2"])
def test_figures_under_the_name_of_another_run_are_refused(name, copied):
    shutil.copy(copied / "figures/none-1.json", copied / f"figures/{name}.json")
    with pytest.raises(CheckpointError, match=rf"{name}.json` must be of this study"):
        study.Study.open(copied).summary()


def test_figures_from_before_they_named_their_plan_are_taken(copied):
    path = copied / "figures/none-1.json"
    figures = read_sealed_json(path)
    del figures["plan"]
    path.write_bytes(sealed_json(figures))
    assert study.Study.open(copied).summary().num_runs == 2
