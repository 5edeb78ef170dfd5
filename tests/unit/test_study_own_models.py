"""A caller's own models in a study that cannot read beyond the trained length."""

import pytest
import torch
from torch import nn

from tokenspace import LanguageModel, Run, study
from tokenspace.checkpoint import open_tables
from tokenspace.errors import CheckpointError, SettingError, ShapeError
from tokenspace.study.lengths import can_read

TEXT = "The cat sat on the mat. The dog sat by the door. The cat saw the dog, and the dog saw the cat. " * 60
ASKED = {
    "documents": [TEXT],
    "tokenizer": "train:300",
    "context_length": 16,
    "extend": 2,
    "probe_steps": 2,
    "seeds": 1,
}

pytestmark = pytest.mark.usefixtures("one_thread")


class Short(nn.Module):
    """Has a table of 16 places; beyond it there is the table's own error, or one that says so."""

    def __init__(self, scheme):
        super().__init__()
        self.tokens, self.places = nn.Embedding(300, 8), nn.Embedding(16, 8)
        self.head = nn.Linear(8, 300)
        self.scheme = scheme

    def forward(self, token_ids, layout):
        if self.scheme == "says" and token_ids.shape[1] > 16:
            raise ShapeError("positions", "be at most 15", token_ids.shape[1], "Shorten")
        if self.scheme == "broken" and token_ids.shape[1] > 16:
            raise RuntimeError("a mask of another size")
        return self.head((self.tokens(token_ids) + self.places(layout.query_positions)).cumsum(1))


@pytest.mark.parametrize("scheme", ["says", "table"])
def test_one_that_cannot_read_beyond_is_measured_up_to_there(scheme, tmp_path):
    made = study.compare(schemes=(scheme,), build=Short, out=tmp_path / "s", steps=3, **ASKED)
    (figures,) = made.figures
    assert [loss is None for loss in figures["loss_at_lengths"]] == [False, True]
    assert figures["probes"]["copy"]["accuracy"][1] is None


@pytest.mark.parametrize("scheme", ["says", "table"])
def test_one_that_cannot_read_beyond_is_timed(scheme):
    found = study.estimate(schemes=(scheme,), build=Short, budget=600, force=True, **ASKED)
    assert found.costs[scheme].rest > 0


def test_another_error_beyond_the_trained_length_comes_before_any_training(tmp_path):
    with pytest.raises(RuntimeError, match="a mask of another size"):
        study.compare(schemes=("broken",), build=Short, out=tmp_path / "s", steps=3, **ASKED)
    assert not (tmp_path / "s" / "runs").exists()


def test_can_read_asks_the_model():
    assert can_read(Short("table"), 16) and not can_read(Short("table"), 17)
    with torch.no_grad():
        assert can_read(Short("says"), 16) and not can_read(Short("says"), 17)


class Tied(nn.Module):
    """One table for both ends, a parameter that nothing reads, and one that is not to be trained."""

    def __init__(self, answer=lambda logits: logits, sparse=False):
        super().__init__()
        self.tokens = nn.Embedding(300, 8, sparse=sparse)
        self.head = nn.Linear(8, 300, bias=False)
        self.head.weight = self.tokens.weight
        self.unread = nn.Parameter(torch.zeros(3))
        self.frozen = nn.Parameter(torch.ones(2, 8).t(), requires_grad=False)
        self.answer = answer

    def forward(self, token_ids, layout):
        return self.answer(self.head(self.tokens(token_ids).cumsum(1)))


class Empty(nn.Module):
    """Nothing to train."""

    def forward(self, token_ids, layout):
        return torch.zeros(*token_ids.shape, 300)


def test_tied_unread_and_frozen_parameters_are_no_obstacle(tmp_path):
    asked = {"schemes": ("x",), "build": lambda scheme: Tied(), "steps": 20, **ASKED}
    (figures,) = study.compare(out=tmp_path / "s", **asked).figures
    assert figures["num_parameters"] == 300 * 8 + 3 + 16


ONE = Tied()


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda scheme: Tied(lambda logits: (logits,)), "`model of 'x'` must return logits, a tensor, but is 'tuple'"),
        (lambda scheme: Tied(sparse=True), "`build` must make tables with dense gradients"),
        (lambda scheme: Empty(), "`build` must return a module with parameters to train"),
        (lambda scheme: ONE, "`build` must make a new model each time"),
    ],
)
def test_models_that_cannot_be_trained_are_refused_at_the_start(build, told, tmp_path):
    with pytest.raises(SettingError) as caught:
        study.compare(schemes=("x",), build=build, out=tmp_path / "s", steps=3, **ASKED)
    assert str(caught.value).startswith(told) and not (tmp_path / "s").exists()


@pytest.mark.parametrize("opened", [Run.open, open_tables])
def test_a_run_of_such_a_model_says_what_it_is(opened, tmp_path):
    study.compare(schemes=("x",), build=lambda scheme: Tied(), out=tmp_path / "s", steps=2, **ASKED)
    with pytest.raises(CheckpointError, match=r"must be a run of tokenspace's own models, but is 'of a model that"):
        opened(tmp_path / "s/runs/x-1")


def test_a_model_of_a_scheme_that_is_added_is_tried_at_the_start(tmp_path):
    def build(scheme):
        return Tied() if scheme == "good" else Tied(lambda logits: logits[0])

    study.compare(schemes=("good",), build=build, out=tmp_path / "s", steps=3, **ASKED)
    with pytest.raises(ShapeError, match="logits of 'bad'"):
        study.compare(schemes=("good", "bad"), build=build, out=tmp_path / "s", steps=3, **ASKED)
    assert not (tmp_path / "s/runs/bad-1").exists()


def test_own_models_begin_with_the_same_table_and_see_the_same_batches(tmp_path):
    """With any scheme, in one go or resumed, and as the runs of this package's models do."""
    sizes = {"vocab_size": 300, "d_model": 16, "num_layers": 1, "num_heads": 2, "context_length": 16}
    seen, first = {}, {}

    def build(scheme):
        class Watched(LanguageModel):
            def forward(self, token_ids, layout=None):
                if self.training and token_ids.max() > 60:  # no probe
                    first.setdefault(run[0], self.embedding.token.weight.detach().clone())
                    seen.setdefault(run[0], []).append(token_ids.clone())
                return super().forward(token_ids, layout)

        return Watched(**sizes, positions=scheme)

    def watch(progress):
        if progress.task != "training":
            run[0] = None
        elif progress.done == 0 or run[0] is None:
            run[0] = progress.run
        if stops and progress.run == "t5-1" and progress.done == 2:
            stops.clear()
            raise InterruptedError

    run, stops = [None], [True]
    asked = {"schemes": study.SCHEMES, "build": build, "out": tmp_path / "s", "steps": 4, "checkpoint_every": 1}
    with pytest.raises(InterruptedError):
        study.compare(watch=watch, **asked, **ASKED)
    made = study.compare(watch=watch, **asked, **ASKED)
    runs = [f"{scheme}-1" for scheme in study.SCHEMES]
    assert all(torch.equal(first[name], first["none-1"]) for name in runs)
    assert len(seen["none-1"]) == 4 and len(seen["t5-1"]) == 4 + 1  # one step was taken again
    del seen["t5-1"][2]
    assert all(all(map(torch.equal, seen[name], seen["none-1"])) for name in runs)
    assert made.is_done
