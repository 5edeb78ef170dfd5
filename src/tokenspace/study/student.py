"""Student's t distribution for whole degrees of freedom, and means with intervals.

The distribution function is a finite sum for whole degrees of freedom, so that nothing
but the standard library is needed; the quantile is found by bisection.

Source: Abramowitz & Stegun 1964, 26.7.3 and 26.7.4.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tokenspace.errors import check_at_least


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        mean: Of the values.
        half_width: Of its confidence interval; None where there is one value only.
        number: Of values.
    """

    mean: float
    half_width: float | None
    number: int

    @property
    def low(self) -> float | None:
        """Lower end of the interval."""
        return None if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        """Upper end of the interval."""
        return None if self.half_width is None else self.mean + self.half_width


def mean_of(values: Sequence[float], confidence: float = 0.95) -> Mean:
    """The mean of `values` with its t interval.

    Example:
        >>> found = mean_of([1.0, 2.0, 3.0])
        >>> found.mean, round(found.half_width, 3)
        (2.0, 2.484)
    """
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Mean(mean, None, 1)
    quantile = t_quantile((1 + confidence) / 2, len(values) - 1)
    return Mean(mean, quantile * statistics.stdev(values) / math.sqrt(len(values)), len(values))


def t_quantile(probability: float, degrees: int) -> float:
    """The t below which `probability` lies, which must be above 0.5 and below 1.

    Example:
        >>> round(t_quantile(0.975, 2), 6)
        4.302653
    """
    check_at_least(1, degrees=degrees)
    assert 0.5 < probability < 1
    low, high = 0.0, 1.0
    while t_probability(high, degrees) < probability:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_probability(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def t_probability(t: float, degrees: int) -> float:
    """Probability that a t of so many degrees of freedom lies below `t`, which must be at least 0.

    Example:
        >>> t_probability(1.0, 1)
        0.75
    """
    theta = math.atan2(t, math.sqrt(degrees))
    cosine, sine = math.cos(theta), math.sin(theta)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(3 if odd else 2, degrees + 1, 2):
        total += term
        term *= cosine**2 * (k - 1) / k
    within = 2 / math.pi * (theta + sine * total) if odd else sine * total
    return (1 + within) / 2
