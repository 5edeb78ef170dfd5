"""What lies in a study folder from before: figures of other studies, other texts, more schemes."""

import json
import shutil
import sys
import threading
import time

import pytest

from tokenspace import study
from tokenspace.corpus import TextSource, build_from_source
from tokenspace.errors import CheckpointError, SettingError
from tokenspace.files import read_sealed_json, sealed_json
from tokenspace.study.running import WAITING

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


def test_a_text_that_was_changed_at_its_path_is_refused(tmp_path):
    text = tmp_path / "story.txt"
    text.write_text(TEXT, encoding="utf-8")
    asked = {"sources": text, "schemes": ("none",), "steps": 2, "out": tmp_path / "s", **TOY}
    study.compare(seeds=1, **asked)
    text.write_text(TEXT.replace("mat", "rug"), encoding="utf-8")
    with pytest.raises(SettingError, match=r"`sources of the study in .* must hold what they held when it began"):
        study.compare(seeds=2, **asked)
    text.write_text(TEXT, encoding="utf-8")
    assert study.compare(seeds=2, **asked).is_done


def test_a_text_that_was_moved_is_the_same(tmp_path):
    (tmp_path / "story.txt").write_text(TEXT, encoding="utf-8")
    asked = {"schemes": ("none",), "steps": 2, "out": tmp_path / "s", **TOY}
    study.compare(tmp_path / "story.txt", seeds=1, **asked)
    moved = (tmp_path / "story.txt").rename(tmp_path / "tale.txt")
    assert study.compare(moved, seeds=2, **asked).is_done


def test_a_corpus_that_was_built_anew_at_its_path_is_refused(tmp_path):
    for words in (TEXT, TEXT.replace("mat", "rug")):
        shutil.rmtree(tmp_path / "corpus", ignore_errors=True)
        build_from_source(TextSource.documents([words]), "train:300", tmp_path / "corpus")
        asked = {name: value for name, value in TOY.items() if name != "tokenizer"} | {"out": tmp_path / "s"}
        if words == TEXT:
            study.compare(tmp_path / "corpus", schemes=("none",), seeds=1, steps=2, **asked)
    with pytest.raises(SettingError, match="hold what they held when it began"):
        study.compare(tmp_path / "corpus", schemes=("none",), seeds=2, steps=2, **asked)


def test_a_plan_from_before_it_kept_the_content_is_taken(copied):
    plan = study.StudyPlan.open(copied)
    del plan.asked["content"]
    plan.save(copied)
    assert study.compare(documents=[TEXT], schemes=SCHEMES, seeds=1, steps=3, out=copied, **TOY).is_done


def test_a_setting_that_differs_is_named_alone(copied):
    with pytest.raises(SettingError) as caught:
        study.compare(documents=[TEXT], schemes=SCHEMES, seeds=1, steps=4, out=copied, **TOY)
    assert str(caught.value).startswith(f"`steps of the study in {copied}` must be 3, but is 4.")


def test_reports_have_the_schemes_that_were_studied_before(copied):
    added = study.compare(documents=[TEXT], schemes=("alibi",), seeds=1, steps=3, out=copied, **TOY)
    added.write()
    results = json.loads((copied / "results.json").read_text(encoding="utf-8"))
    assert set(results["schemes"]) == {"none", "rotary", "alibi"} and len(results["runs"]) == 3


def test_other_files_beside_the_figures_are_no_runs(copied):
    (copied / "figures/README.json").write_text("{}")
    assert study.Study.open(copied).schemes == SCHEMES


def test_a_scheme_that_does_not_suit_is_refused_before_those_that_do(tmp_path):
    asked = {**TOY, "documents": [TEXT], "steps": 2, "d_model": 15, "num_heads": 5, "out": tmp_path / "s"}
    study.compare(schemes=("none",), seeds=1, **asked)
    with pytest.raises(SettingError, match="for rotary positions"):
        study.compare(schemes=("none", "alibi", "rotary"), seeds=1, **asked)
    assert [path.name for path in (tmp_path / "s/runs").iterdir()] == ["none-1"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_two_at_the_same_study_do_each_run_once(tmp_path):
    asked = {"documents": [TEXT], "schemes": SCHEMES, "seeds": 1, "steps": 3, "out": tmp_path / "s", **TOY}
    began, heard, other = threading.Event(), [], []

    def second():
        began.wait()
        other.append(study.compare(watch=lambda progress: heard.append((progress.run, progress.task)), **asked))

    def watch(progress):
        if progress.run == "none-1" and progress.task == "training" and progress.done == 1:
            began.set()
            while ("none-1", WAITING) not in heard:
                time.sleep(0.01)

    thread = threading.Thread(target=second)
    thread.start()
    first = study.compare(watch=watch, **asked)
    thread.join()
    assert ("none-1", "training") not in heard
    assert first.is_done and other[0].figures == first.figures
    assert (tmp_path / "s/runs/none-1/metrics.jsonl").read_text().count('"kind": "step"') == 3
