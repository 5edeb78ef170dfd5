"""Whole studies at toy size: resuming, workers, callers' own models, outputs, and what is refused."""

import base64
import csv
import hashlib
import json
import re
import shutil
import subprocess
import time

import pytest
import torch
from torch import nn

from tokenspace import LanguageModel, Layout, Run, study
from tokenspace.errors import CheckpointError, SettingError, ShapeError
from tokenspace.study.conclusions import conclusions
from tokenspace.study.own_models import OwnModels

STORY = (
    "The cat sat on the mat. The dog sat by the door. The cat saw the dog, and the dog saw the cat. "
    "In the evening the cat slept on the mat, and the dog slept by the door. "
) * 40
TOY = {
    "documents": [STORY],
    "tokenizer": "train:300",
    "steps": 6,
    "d_model": 16,
    "num_layers": 1,
    "context_length": 16,
    "extend": 2,
    "probe_steps": 3,
}
SCHEMES = ("none", "rotary", "learned")

pytestmark = pytest.mark.usefixtures("one_thread")


class StoppedError(Exception):
    """Raised by a watcher, as a kill would end a study in the middle."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return study.compare(schemes=SCHEMES, seeds=2, out=tmp_path_factory.mktemp("study") / "whole", **TOY)


def timeless(figures):
    """Figures without what no two runs share."""
    return [{name: value for name, value in run.items() if name != "tokens_per_second"} for run in figures]


class Bag(nn.Module):
    """A caller's own model: sums what it has read; where it has positions it adds a vector for each."""

    def __init__(self, scheme, vocab_size=300):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, 12)
        self.head = nn.Linear(12, vocab_size)
        self.dropout = nn.Dropout(0.2)
        self.places = nn.Embedding(64, 12) if scheme == "with" else None

    def forward(self, token_ids, layout):
        x = self.tokens(token_ids)
        if self.places is not None:
            x = x + self.places(layout.query_positions)
        return self.head(self.dropout(x).cumsum(1))


def test_a_study_has_ordinary_runs_and_figures_of_each(whole):
    assert whole.is_done and len(whole.figures) == 6
    run = Run.open(whole.folder / "runs" / "rotary-2")
    assert run.step == 6 and run.model_config.positions == "rotary"
    last = [record for record in run.metrics if record["kind"] == "evaluation"][-1]
    figures = next(one for one in whole.figures if (one["scheme"], one["seed"]) == ("rotary", 2))
    assert figures["loss"] == pytest.approx(last["loss"], abs=1e-5)
    assert len(figures["loss_by_position"]) == 16 and len(figures["loss_at_lengths"]) == 2
    logits = 4 * 8 * 16 * whole.plan.model["vocab_size"]
    assert figures["step_bytes"] > 2 * logits  # them and their gradients, at least
    assert figures["tokens_per_second"] > 0


def test_schemes_of_one_seed_begin_with_the_same_table_and_see_the_same_batches(whole):
    begun = [Run.open(whole.folder / "runs" / f"{scheme}-1") for scheme in SCHEMES]
    tables = [run.frame(0)["token.weight"] for run in begun]
    assert torch.equal(tables[0], tables[1]) and torch.equal(tables[0], tables[2])
    states = [json.loads((run.path / "checkpoints/00000006/state.json").read_text())["loader"] for run in begun]
    assert states[0] == states[1] == states[2]
    other = Run.open(whole.folder / "runs" / "none-2").frame(0)["token.weight"]
    assert not torch.equal(tables[0], other)


@pytest.mark.parametrize(
    "when", [("none-1", "loss by position"), ("rotary-1", "training"), ("learned-2", "order probes")]
)
def test_a_study_that_was_cut_off_gives_the_same_table(whole, when, tmp_path):
    def watch(progress):
        if (progress.run, progress.task) == when and progress.done in (0, 3):
            raise StoppedError

    again = {"schemes": SCHEMES, "seeds": 2, "out": tmp_path / "study", **TOY}
    with pytest.raises(StoppedError):
        study.compare(watch=watch, **again)
    assert study.Study.open(tmp_path / "study").figures != whole.figures
    assert timeless(study.compare(**again).figures) == timeless(whole.figures)


def test_runs_in_other_processes_give_the_same_table(whole, tmp_path):
    other = study.compare(schemes=SCHEMES, seeds=1, out=tmp_path / "study", workers=2, **TOY)
    assert other.is_done
    assert timeless(other.figures) == timeless(run for run in whole.figures if run["seed"] == 1)


def test_schemes_and_seeds_may_be_added(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "study")
    more = study.compare(schemes=("none", "alibi"), seeds=[1, 3], out=tmp_path / "study", **TOY)
    assert len(more.figures) == 4
    assert study.Study.open(tmp_path / "study").schemes == ("alibi", "learned", "none", "rotary")


def test_what_is_left_out_means_the_default(whole):
    assert study.compare(schemes=SCHEMES, seeds=2, out=whole.folder, **TOY, objective="causal").is_done


def test_settings_of_a_scheme_are_its_own(tmp_path):
    settings = {"rotary": {"theta": 500.0}}
    made = study.compare(schemes=("none", "rotary"), seeds=1, out=tmp_path / "s", **TOY, position_settings=settings)
    found = {scheme: Run.open(made.folder / f"runs/{scheme}-1").model_config for scheme in made.schemes}
    assert found["rotary"].position_settings == {"theta": 500.0} and found["none"].position_settings == {}
    with pytest.raises(SettingError, match="setting of 'rotary' positions"):
        study.compare(
            schemes=("rotary",), seeds=1, out=tmp_path / "t", **TOY, position_settings={"rotary": {"thata": 5}}
        )
    assert not (tmp_path / "t").exists()


def test_a_masked_study_has_none_at_chance(tmp_path):
    made = study.compare(schemes=("none", "learned"), seeds=1, out=tmp_path / "s", **TOY, objective="masked")
    none, learned = made.figures
    assert (none["probes"]["original"]["accuracy"], none["probes"]["original"]["ties"]) == ([0.5], 1.0)
    assert learned["probes"]["original"]["ties"] < 1
    config = Run.open(tmp_path / "s/runs/none-1").config["model"]
    assert config["causal"] is False and config["vocab_size"] == made.plan.model["vocab_size"]


def test_the_callers_own_models_are_trained_measured_and_resumed(tmp_path):
    asked = {name: value for name, value in TOY.items() if name not in ("d_model", "num_layers")}
    asked |= {"schemes": ("with", "without"), "seeds": 2, "build": Bag}
    whole = study.compare(out=tmp_path / "whole", **asked)
    assert whole.is_done and len(whole.figures) == 4
    assert len({run["loss"] for run in whole.figures}) == 4

    def watch(progress):
        if progress.run == "without-1" and progress.done == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        study.compare(out=tmp_path / "again", watch=watch, **asked)
    assert timeless(study.compare(out=tmp_path / "again", **asked).figures) == timeless(whole.figures)


def test_a_study_leaves_torch_s_generator_alone(tmp_path):
    asked = {name: value for name, value in TOY.items() if name not in ("d_model", "num_layers")}
    torch.manual_seed(7)
    before = torch.get_rng_state()
    study.compare(schemes=("with",), seeds=1, build=Bag, out=tmp_path / "s", **asked)
    study.compare(schemes=("learned",), seeds=1, out=tmp_path / "t", **TOY)
    study.estimate(schemes=("rotary",), seeds=1, **TOY)
    assert torch.equal(torch.get_rng_state(), before)


def test_own_models_take_the_steps_of_ordinary_runs(tmp_path):
    """The same model, trained in both ways, has the same losses."""
    made = study.compare(schemes=("rotary",), seeds=1, out=tmp_path / "study", dropout=0.0, **TOY)
    models = OwnModels(
        made.plan, made.folder / "corpus", lambda scheme: LanguageModel(made.plan.model_config(scheme)), "cpu"
    )
    losses = []
    models.train(tmp_path / "run", "rotary", 1, lambda record: losses.append(record.loss))
    metrics = Run.open(made.folder / "runs/rotary-1").metrics
    assert losses == pytest.approx([record["loss"] for record in metrics if record["kind"] == "step"], abs=1e-5)
    assert len(set(losses)) == 6


def test_outputs_agree_with_each_other(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "study")
    made = study.Study.open(tmp_path / "study")
    names = {path.name for path in made.write()}
    assert {"report.html", "results.json", "runs.csv"} <= names
    results = json.loads((made.folder / "results.json").read_text(encoding="utf-8"))
    rows = list(csv.DictReader((made.folder / "runs.csv").read_text(encoding="utf-8").splitlines()))
    values = [float(row["value"]) for row in rows if (row["scheme"], row["measure"]) == ("rotary", "loss")]
    assert len(values) == 2
    assert results["schemes"]["rotary"]["loss"]["mean"] == pytest.approx(sum(values) / 2)
    page = (made.folder / "report.html").read_text(encoding="utf-8")
    assert f"{sum(values) / 2:.3f} ± " in page
    assert all(paragraph.replace("'", "&#x27;") in page for paragraph in conclusions(made.summary()))


def test_pngs_are_drawn_where_matplotlib_is(whole, tmp_path):
    pytest.importorskip("matplotlib")
    shutil.copytree(whole.folder, tmp_path / "study")
    written = [path for path in study.Study.open(tmp_path / "study").write() if path.suffix == ".png"]
    assert len(written) == 5 and all(path.read_bytes()[:4] == b"\x89PNG" for path in written)


def page_of(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "study")
    return next(path for path in study.Study.open(tmp_path / "study").write() if path.name == "report.html")


def test_the_report_runs_no_script_and_asks_for_nothing(whole, tmp_path):
    page = page_of(whole, tmp_path).read_text(encoding="utf-8")
    assert not re.search(r"<script|<link|<img|https?:|@import|url\(", page)
    style = re.search("<style>(.*?)</style>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in page


def console_of(page):
    """What a browser has to say about a page; skips where there is none."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    told = subprocess.run([browser, *flags, page.as_uri()], capture_output=True, timeout=120, check=True)
    assert b"Position schemes on" in told.stdout
    return [line for line in told.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]


def test_a_browser_finds_no_error_in_the_report(whole, tmp_path):
    page = page_of(whole, tmp_path)
    assert console_of(page) == []
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", "<script>1</script></body>"), encoding="utf-8")
    assert len(console_of(page)) == 1  # so it would have told


def test_names_in_the_report_are_data(tmp_path):
    asked = {name: value for name, value in TOY.items() if name not in ("d_model", "num_layers", "documents")}
    text = tmp_path / "<b>&.txt"
    text.write_text(STORY, encoding="utf-8")
    made = study.compare(text, schemes=("with",), seeds=1, build=Bag, out=tmp_path / "study", **asked)
    page = next(path for path in made.write() if path.name == "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;.txt" in page and "<b>" not in page


def test_one_seed_names_no_best(whole):
    one = study.Study(whole.folder, whole.plan, whole.schemes, (1,))
    assert all(measure.best() is None for measure in one.summary().measures)
    assert "One seed gives no interval" in conclusions(one.summary())[0]


def test_an_estimate_leaves_nothing_and_agrees_with_the_division_of_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {name: value for name, value in TOY.items() if name != "steps"}
    found = study.estimate(schemes=("none", "rotary"), seeds=2, budget=600, workers=2, **asked)
    assert found.steps > 10 and 0.9 * 600 < found.seconds <= 600
    assert list(tmp_path.iterdir()) == []
    given = study.estimate(schemes=("none",), seeds=1, **TOY)
    assert given.steps == 6


def test_steps_are_timed_with_the_threads_of_a_worker(monkeypatch):
    found = []
    monkeypatch.setattr("tokenspace.study.comparison.worker_threads", lambda workers: workers + 1)
    monkeypatch.setattr("tokenspace.study.estimating._cost", lambda *asked: found.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    study.estimate(schemes=("none",), seeds=2, workers=2, **TOY)
    assert found == [3] and torch.get_num_threads() == before


def test_an_estimate_refuses_the_budget_that_the_study_would():
    asked = {name: value for name, value in TOY.items() if name != "steps"}
    with pytest.raises(SettingError, match="`budget` must give each of 3 runs 5 minutes, 10 in all"):
        study.estimate(schemes=("none",), seeds=3, workers=2, budget=540.0, **asked)


def refused(out, **asked):
    with pytest.raises((SettingError, CheckpointError, ShapeError)) as caught:
        study.compare(out=out, **{**TOY, "schemes": ("none", "rotary"), "seeds": 1, **asked})
    assert not out.exists() or (out / "study.json").exists()
    return str(caught.value)


def test_an_unknown_scheme(tmp_path):
    assert refused(tmp_path / "s", schemes=("none", "rotery")).endswith("Did you mean 'rotary'?")


def test_a_text_that_is_too_short_for_the_lengths(tmp_path):
    assert refused(tmp_path / "s", documents=[STORY[:3000]], extend=8) == (
        "`text` must have 257 tokens for validation, twice the 8 x 16 asked for, but is 81. "
        "Give a text 3.2 times as long, or a smaller --context or --extend."
    )


def test_a_text_that_is_too_short_for_any_length(tmp_path):
    asked = {name: value for name, value in TOY.items() if name != "context_length"} | {"documents": ["two words"]}
    with pytest.raises(SettingError, match=r"`text` must have 33 tokens for validation, .* or a smaller --extend\.$"):
        study.compare(schemes=("none",), seeds=1, out=tmp_path / "s", **asked)


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_the_shortest_context_is_long_enough_for_all_measures(objective, tmp_path):
    asked = TOY | {"context_length": 8, "extend": 1, "objective": objective}
    assert study.compare(schemes=("none",), seeds=1, out=tmp_path / "s", **asked).is_done


def test_a_budget_of_minutes_is_refused_unless_forced(tmp_path):
    asked = {"steps": None, "budget": 60.0}
    told = refused(tmp_path / "s", **{**TOY, **asked} | {"steps": 3})
    assert told.startswith("`steps` must be left out with a budget")
    asked = {name: value for name, value in TOY.items() if name != "steps"}
    with pytest.raises(SettingError) as caught:
        study.compare(schemes=("none", "rotary"), seeds=3, budget=60.0, out=tmp_path / "s", **asked)
    assert str(caught.value) == (
        "`budget` must give each of 6 runs 5 minutes, 30 in all, but is '1.0 minutes'. "
        "Raise it, compare fewer schemes or seeds, or add --force (force=True)."
    )
    with pytest.raises(SettingError, match=r"`budget` must be at least .* seconds for one step of each run"):
        study.compare(schemes=("none",), seeds=3, budget=0.001, force=True, out=tmp_path / "s", **asked)
    assert not (tmp_path / "s").exists()


def test_another_study_s_folder(whole):
    assert refused(whole.folder, steps=7).startswith("`steps of the study in")
    assert refused(whole.folder, documents=[STORY + "More."]).startswith("`documents of the study in")


def test_a_folder_that_is_no_study(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "letter.txt").write_text("Dear")
    with pytest.raises(SettingError, match="`out` must be a study, or not exist yet"):
        study.compare(schemes=("none",), seeds=1, out=tmp_path / "s", **TOY)
    assert (tmp_path / "s" / "letter.txt").read_text() == "Dear"


def test_a_run_of_another_study(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "study")
    (tmp_path / "study/figures/rotary-1.json").unlink()
    shutil.rmtree(tmp_path / "study/runs/rotary-1")
    shutil.copytree(whole.folder / "runs/none-1", tmp_path / "study/runs/rotary-1")
    told = refused(tmp_path / "study")
    assert "rotary-1` must be a run of this study, with its [model], but is 'a run of another one'" in told


def test_figures_that_were_altered(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "study")
    path = tmp_path / "study/figures/rotary-1.json"
    path.write_text(path.read_text().replace('"loss": ', '"loss": 1'))
    with pytest.raises(CheckpointError, match="be as it was written"):
        study.Study.open(tmp_path / "study").summary()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"schemes": ()}, "`schemes` must name at least one"),
        ({"schemes": ("none", "none")}, "`schemes` must name each once"),
        ({"seeds": 0}, "`seeds` must be a whole number of at least 1"),
        ({"positions": "rotary"}, "`positions` must be left out of a study"),
        ({"seed": 3}, "`seed` must be left out of a study"),
        ({"causal": False}, "`causal` must be left out of a study"),
        ({"context_length": 7}, "`context_length` must be a whole number of at least 8, but is 7."),
        ({"extend": 0}, "`extend` must be a whole number of at least 1"),
        ({"objective": "both"}, "`objective` must be 'causal' or 'masked'"),
        ({"extent": 2}, "`setting` must be one of"),
        ({"workers": 2, "build": Bag}, "`workers` must be 1 with build"),
        ({"build": Bag}, "`d_model` must be left out where build makes the model"),
        ({"build": 3}, "`build` must be a function of a scheme's name"),
        ({"schemes": (1,), "build": Bag}, "`schemes` must be names, but is 1."),
        ({"seeds": 2.0}, "`seeds` must be a whole number of at least 1, but is 2.0."),
        ({"documents": STORY}, "`documents` must be a list of texts"),
        ({"tokenizer": 300}, "`tokenizer` must be 'gpt2', 'train:2048' or a path"),
        ({"device": "floppy"}, "`device` must be one that torch has here"),
        ({"batch_size": 99999}, "`batch_size` must be at most the"),
        ({"scored_tokens": 127}, "`scored_tokens` must be a whole number of at least 128"),
        ({"text": "x"}, "`setting` must be one of"),
    ],
)
def test_mistakes(asked, told, tmp_path):
    assert refused(tmp_path / "s", **asked).startswith(told)


def test_a_setting_that_nobody_knows_is_compared_with_those_of_the_study(tmp_path):
    assert refused(tmp_path / "s", prob_steps=3).endswith("Did you mean 'probe_steps'?")


def test_a_budget_without_end(tmp_path):
    asked = {name: value for name, value in TOY.items() if name != "steps"}
    with pytest.raises(SettingError, match="`budget` must end, but is inf"):
        study.compare(schemes=("none",), budget=float("inf"), out=tmp_path / "s", **asked)


def test_out_that_is_a_file(tmp_path):
    (tmp_path / "s").write_text("Dear")
    with pytest.raises(SettingError, match="`out` must be a study, or not exist yet"):
        study.compare(schemes=("none",), seeds=1, out=tmp_path / "s", **TOY)


def test_one_scheme_may_be_given_by_its_name_and_seeds_by_an_iterator(tmp_path):
    made = study.compare(schemes="alibi", seeds=iter([4]), out=tmp_path / "s", **TOY)
    assert made.runs == [("alibi", 4)] and made.is_done


def test_a_study_of_all_schemes_takes_less_than_a_minute(tmp_path):
    begun = time.process_time()  # of one thread
    made = study.compare(seeds=2, out=tmp_path / "s", **TOY)
    assert len(made.write()) >= 3 and len(made.figures) == 2 * len(study.SCHEMES) == 16
    assert time.process_time() - begun < 60
    tables = {(scheme, seed): Run.open(made.folder / f"runs/{scheme}-{seed}").frame(0) for scheme, seed in made.runs}
    for scheme, seed in made.runs:
        assert torch.equal(tables[scheme, seed]["token.weight"], tables["none", seed]["token.weight"])


def test_an_interrupted_measure_is_told_as_an_interrupted_training_is(tmp_path):
    def watch(progress):
        if progress.task == "order probes":
            raise KeyboardInterrupt

    made = study.compare(schemes=("none",), seeds=1, out=tmp_path / "s", watch=watch, **TOY)
    assert not made.is_done
    assert study.compare(schemes=("none",), seeds=1, out=tmp_path / "s", **TOY).is_done


def test_own_models_of_a_wrong_shape(tmp_path):
    asked = {name: value for name, value in TOY.items() if name not in ("d_model", "num_layers")}
    with pytest.raises(
        ShapeError, match=r"`logits of 'x'` must have shape \(1, 16, 2\d\d or more\), but is \(1, 16, 99\)"
    ):
        study.compare(schemes=("x",), seeds=1, build=lambda scheme: Bag(scheme, 99), out=tmp_path / "s", **asked)
    with pytest.raises(SettingError, match="`build` must return a torch module"):
        study.compare(schemes=("x",), seeds=1, build=lambda scheme: 3, out=tmp_path / "s", **asked)


def test_a_layout_is_what_own_models_get():
    assert Bag("with")(torch.zeros(1, 4, dtype=torch.long), Layout.contiguous(4)).shape == (1, 4, 300)
