"""The study's statistics against scipy."""

import numpy as np
import pytest
from scipy import stats

from tokenspace.study import Measure
from tokenspace.study.student import mean_of, t_probability, t_quantile

DEGREES = (1, 2, 3, 4, 9, 30, 200)


@pytest.mark.parametrize("degrees", DEGREES)
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 4.3, 60.0])
def test_distribution_function(t, degrees):
    assert t_probability(t, degrees) == pytest.approx(stats.t.cdf(t, degrees), abs=1e-14)


@pytest.mark.parametrize("degrees", DEGREES)
@pytest.mark.parametrize("probability", [0.6, 0.95, 0.975, 0.99643, 0.9999])
def test_quantile(probability, degrees):
    assert t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-10)


@pytest.mark.parametrize("number", [2, 3, 5, 12])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.993])
def test_interval_of_a_mean(number, confidence):
    values = np.random.default_rng(number).normal(3.4, 0.2, number)
    found = mean_of(values.tolist(), confidence)
    low, high = stats.t.interval(confidence, number - 1, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)


def test_differences_are_paired_by_seed():
    generator = np.random.default_rng(0)
    seeds = generator.normal(0, 1, 4)  # what seeds have in common would drown the difference
    first, second = seeds + generator.normal(0.1, 0.01, 4), seeds + generator.normal(0, 0.01, 4)
    measure = Measure("loss", "loss", {"a": dict(enumerate(first)), "b": dict(enumerate(second))})
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    found = measure.difference("a", "b")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert found.low > 0 and measure.mean("a").low < measure.mean("b").high
