"""Which validation windows are evaluated, with memory and without."""

import numpy as np
import pytest

from tokenspace.training.evaluation import evaluation_batches


@pytest.mark.parametrize("has_memory", [False, True])
@pytest.mark.parametrize(("num_tokens", "batch_size"), [(5, 3), (101, 4), (101, 100), (33, 1)])
def test_the_whole_is_covered_once(num_tokens, batch_size, has_memory):
    runs = evaluation_batches(num_tokens, 4, batch_size, None, has_memory)
    starts = sorted(start for run in runs for start in run.flatten().tolist())
    assert starts == list(range(0, num_tokens - 4, 4))
    assert all(run.shape[1] <= batch_size for run in runs)


def test_with_memory_every_row_goes_on_where_it_ended():
    for run in evaluation_batches(203, 4, 3, None, has_memory=True):
        assert (np.diff(run, axis=0) == 4).all()


def test_without_memory_some_tokens_are_spread_over_all():
    (run,) = evaluation_batches(1001, 4, 5, 20, has_memory=False)
    assert run.tolist() == [[0, 248, 496, 744, 996]]


def test_with_memory_some_tokens_are_the_first():
    runs = evaluation_batches(1001, 4, 2, 20, has_memory=True)
    assert [run.tolist() for run in runs] == [[[0, 8], [4, 12]], [[16]]]


def test_at_least_one_window_is_evaluated():
    assert [run.tolist() for run in evaluation_batches(100, 4, 2, 1, has_memory=False)] == [[[0]]]
