"""What AdamW would have done to a row in the steps in which it had no gradient.

In k steps without a gradient the first moment shrinks by ``beta1**k`` and the second by
``beta2**k``. With r the root of the second moment at the row's last gradient (bias corrected
there), the row misses weight decay and, in each of the steps, a move of

    lr * beta1**k / c1 * m / (b * r + eps),    b = beta2**(k/2) * (a ratio of bias corrections)

Their sum is ``m / (r + eps)`` times a function G of ``z = eps / (r + eps)`` alone, the same for
all rows whose last gradient was in the same step. As a function of ``u = sqrt(z)``, from 0 to
1, it is so smooth that its values at some ten Chebyshev nodes describe it to a millionth.
They are kept for each of the last steps, and brought on from step to step; after a while the
terms are too small to count.

Nothing here knows weights or moments. AdamW: Loshchilov & Hutter 2019 (arXiv:1711.05101).
Axis letters: F learning-rate factors, W steps of the window, C nodes.
"""

import math
from typing import Any

import torch
from torch import Tensor

from tokenspace.optim.checks import check_betas, window_of

_STEPS_AT_ONCE = 1_000
_ACCURACY = 1e-6  # of the sum: how many nodes it gets
_NEGLIGIBLE_POWER = 1e-7  # of the constant
_FEWEST_NODES = 10  # while bias corrections change, G is harder
_MOST_NODES = 20  # beyond, powers of u lose digits in float32
EXACT: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}  # what is few, whatever torch's defaults are
RETIRED_TOGETHER = 16  # steps whose rows leave the window at once, which costs less than one by one


class MissedUpdates:
    """G for every recent step, at each of a few learning rates.

    Args:
        beta1: AdamW's decay of the first moment.
        beta2: Of the second, at least `beta1`.
        factors: On the learning rate; one for each kind of rows.

    Attributes:
        step: Steps counted.
        factors: float64, (F,).
        window: Steps after which G no longer grows.
        values: G at the nodes, float64, (F, W, C); row ``step % window`` is that of a step.
        steps: The step each of those rows belongs to, float64, (W,); -1 for none.
        log_decay: Logarithm of the product of all ``1 - lr * weight_decay`` so far, float64, (F,).

    Raises:
        SettingError: `beta2` is below `beta1`; see `check_betas`.
    """

    def __init__(self, beta1: float, beta2: float, factors: Tensor) -> None:
        check_betas(beta1, beta2)
        self.beta1, self.beta2, self.factors = beta1, beta2, factors
        self.step = 0
        self.window = window_of(beta1, beta2) + RETIRED_TOGETHER
        self._nodes, self._to_coefficients = _nodes(_number_of_nodes(beta1, beta2, self.window))
        self.values = torch.zeros(len(factors), self.window, len(self._nodes), **EXACT)
        self.steps = torch.full((self.window,), -1.0, **EXACT)
        self.log_decay = torch.zeros(len(factors), **EXACT)

    @property
    def oldest(self) -> int:
        """The first step whose rows still have a G; it is a multiple of `RETIRED_TOGETHER` ago, about a window."""
        return self.step // RETIRED_TOGETHER * RETIRED_TOGETHER + RETIRED_TOGETHER - self.window

    def begin_at(self, step: int) -> None:
        """Set out from rows that all stand at this step."""
        self.step = step
        self.values.zero_()
        self.steps.fill_(-1.0)[step % self.window] = step

    def advance(self, learning_rate: float, weight_decay: float) -> None:
        """Count a step in which the rows had no gradient; those that have one are of the new step.

        What belonged to the step a window ago gives way to it.
        """
        self.step += 1
        missed = self.step - self.steps
        size = learning_rate * self.beta1**missed / (1 - self.beta1**self.step)
        ratio = (1 - self.beta2**self.steps) / (1 - self.beta2**self.step)
        terms = size.unsqueeze(1) / _denominators(self.beta2 ** (missed / 2) * ratio.sqrt(), self._nodes)
        terms.masked_fill_((self.steps < 0).unsqueeze(1), 0.0)
        decay = 1 - self.factors * (learning_rate * weight_decay)
        self.values.mul_(decay.view(-1, 1, 1)).add_(self.factors.view(-1, 1, 1) * terms)
        self.log_decay += decay.log()
        slot = self.step % self.window
        self.values[:, slot], self.steps[slot] = 0.0, self.step

    def with_betas(self, beta1: float, beta2: float) -> "MissedUpdates":
        """The same with other betas, for rows that all stand at the last step."""
        other = MissedUpdates(beta1, beta2, self.factors)
        other.begin_at(self.step)
        other.log_decay = self.log_decay
        return other

    def with_factors(self, factors: Tensor) -> "MissedUpdates":
        """The same with other factors; rows that take a new one stand at the last step."""
        other = MissedUpdates(self.beta1, self.beta2, factors)
        other.step, other.steps = self.step, self.steps
        for old, factor in enumerate(self.factors):
            for new in (factors == factor).nonzero().flatten():
                other.values[new], other.log_decay[new] = self.values[old], self.log_decay[old]
        return other

    def slots(self, steps: Tensor) -> Tensor:
        """Where along W the G of these steps stand."""
        return steps % self.window

    def coefficients(self) -> Tensor:
        """Each G as a polynomial in ``2 u - 1``, lowest power first: float64, (F, W, C or fewer).

        Powers too high to count are left out; once bias corrections have settled, they are half of them.
        """
        found = self.values @ self._to_coefficients
        counts = (found.abs() > _NEGLIGIBLE_POWER * found[..., :1].abs()).flatten(0, 1).any(dim=0)
        return found[..., : max(2, int(counts.nonzero().amax()) + 1 if counts.any() else 0)]


def _denominators(b: Tensor, u: Tensor) -> Tensor:
    return b.unsqueeze(1) * (1 - u**2) + u**2


def _nodes(number: int) -> tuple[Tensor, Tensor]:
    """Chebyshev's nodes moved to [0, 1], and the matrix from values there to powers of ``2 u - 1``."""
    t = torch.cos(math.pi * (torch.arange(number, **EXACT) + 0.5) / number)
    powers = t.unsqueeze(1) ** torch.arange(number, **EXACT)
    return (t + 1) / 2, torch.linalg.inv(powers).t().contiguous()


def _number_of_nodes(beta1: float, beta2: float, window: int) -> int:
    """The fewest that describe G to `_ACCURACY`, once bias corrections have settled."""
    u = torch.linspace(0, 1, 501, **EXACT)

    def total(at: Tensor) -> Tensor:
        parts = torch.arange(1, window, **EXACT).split(_STEPS_AT_ONCE)
        return sum(beta1**missed @ (1 / _denominators(beta2 ** (missed / 2), at)) for missed in parts)

    exact = total(u)
    for number in range(_FEWEST_NODES, _MOST_NODES, 2):
        nodes, matrix = _nodes(number)
        powers = (2 * u - 1).unsqueeze(1) ** torch.arange(number, **EXACT)
        if ((powers @ (total(nodes) @ matrix) - exact).abs() <= _ACCURACY * exact).all():
            return number
    return _MOST_NODES
