"""A caller's own models in a study that cannot read beyond the trained length."""

import pytest
import torch
from torch import nn

from tokenspace import study
from tokenspace.errors import ShapeError
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
