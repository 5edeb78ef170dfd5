"""AdamW for the rows of one table: a step touches those that have a gradient, the others lag.

A lagging row keeps its weights and moments as they were after its last gradient. Whoever
reads its weights gets a copy caught up by `MissedUpdates`; only a step writes. The work of a
step goes by its rows, not by the table. Nothing here knows optimisers or modules.

Axis letters: V rows of the table, N rows at hand (each once), D their length.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tokenspace.errors import SettingError
from tokenspace.optim.dense import Rates, dense_step
from tokenspace.optim.missed import EXACT, RETIRED_TOGETHER, MissedUpdates

_NEVER = -(2**40)  # a step so long ago that nothing of it is left
_PIECE = torch.complex128  # the widest type; only bits are copied
_CHUNK = 800_000  # elements that are worked on at once on a CPU: so many stay in the cache


class LaggingRows:
    """What is known of the rows of a (V, D) table beyond their weights.

    Args:
        weight: The table, float32 or float64; only methods of this class may write it.
        moments: Of a dense AdamW after `step` steps, (V, D) each; written in place.
        step: How many.
        rates: Those of the next step.
        factors: On the learning rate of each row, (V,); None for 1. Rows of factor 0 never change.

    Attributes:
        exp_avg, exp_avg_sq: The moments of each row as of its `last_step`, (V, D).
        last_step: The step of each row's last gradient, int64, (V,); negative for none yet.
        log_decay: `MissedUpdates.log_decay` at the step that each row's weights stand at, float64, (V,).
        kind: The place of each row's factor among those of `missed`, int64, (V,).
        missed: What rows without a gradient miss.
        are_behind: Whether any row may lag.
    """

    def __init__(
        self,
        weight: Tensor,
        moments: tuple[Tensor, Tensor],
        step: int,
        rates: Rates,
        factors: Tensor | None = None,
    ) -> None:
        V, D = weight.shape
        self.weight, self.rates = weight, rates
        self.exp_avg, self.exp_avg_sq = moments
        self.log_decay = torch.zeros(V, dtype=torch.float64, device=weight.device)
        distinct, self.kind = _distinct(factors, weight)
        self.missed = MissedUpdates(rates.beta1, rates.beta2, distinct)
        self.missed.begin_at(step)
        self.last_step = torch.full((V,), step or _NEVER, device=weight.device)
        self.are_behind = False
        self._at_once = max(1, _CHUNK // D) if weight.device.type == "cpu" else V
        self._scratch = weight.new_empty(4, min(self._at_once, V), D, requires_grad=False)
        self._looked_up: tuple[int, Tensor, Tensor] | None = None
        self._version = weight._version

    def bookkeeping(self) -> dict[str, Tensor]:
        """All but the moments and the caught-up weights that going on bit for bit needs."""
        stale = self.log_decay != self._here(self.missed.log_decay)[self.kind]
        stale |= (self.last_step < self.step) & (self.last_step >= self.missed.oldest)
        rows_N = stale.nonzero().flatten()
        return {
            "decays": torch.tensor(self.rates.decays, **EXACT),
            "last_step": self.last_step,
            "log_decay": self.log_decay,
            "kind": self.kind,
            "factors": self.missed.factors,
            "missed_values": self.missed.values,
            "missed_steps": self.missed.steps,
            "missed_log_decay": self.missed.log_decay,
            "lagging": rows_N,
            "lagging_weight": self.weight.detach().index_select(0, rows_N),
        }

    @torch.no_grad()
    def restore(self, bookkeeping: dict[str, Tensor]) -> None:
        """Go on from a `bookkeeping` of the same step, which is taken over; the rows that lagged lag again."""
        kept = {name: tensor.to(self.weight.device) for name, tensor in bookkeeping.items()}
        beta1, beta2, epsilon = kept["decays"].tolist()  # those of the next step may be others
        self.rates = replace(self.rates, beta1=beta1, beta2=beta2, epsilon=epsilon)
        self.missed = self.missed.with_betas(beta1, beta2).with_factors(kept["factors"].cpu())
        self.missed.values, self.missed.steps = kept["missed_values"].cpu(), kept["missed_steps"].cpu()
        self.missed.log_decay = kept["missed_log_decay"].cpu()
        self.last_step, self.log_decay, self.kind = kept["last_step"], kept["log_decay"], kept["kind"]
        self.weight.index_copy_(0, kept["lagging"], kept["lagging_weight"].to(self.weight.dtype))
        lags = (self.last_step >= 0) & (self.last_step < self.step)  # in its moments at least
        self._version, self.are_behind = self.weight._version, len(kept["lagging"]) > 0 or bool(lags.any())

    @property
    def factors(self) -> Tensor:
        """On the learning rate of each row, float64, (V,)."""
        return self._here(self.missed.factors)[self.kind]

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.missed.step

    def check_untouched(self) -> None:
        """Refuse to go on from a table that others wrote to while rows lagged behind.

        Raises:
            SettingError: they did.
        """
        if self.are_behind and self.weight._version != self._version:
            next_step = "Call the optimiser's flush() before you write to it"
            raise SettingError("token table", "be written by its optimiser alone while rows lag", "changed", next_step)

    @torch.no_grad()
    def current(self, rows_N: Tensor) -> Tensor:
        """The weights of these rows after the last step, as a copy: (N, D).

        Raises:
            SettingError: others wrote to the table while rows lagged behind.
        """
        weight_ND = self.weight.detach().index_select(0, rows_N)
        if not self.are_behind:
            return weight_ND
        self.check_untouched()
        last_N, kind_N = self.last_step.index_select(0, rows_N), self.kind.index_select(0, rows_N)
        decay_N = self._here(self.missed.log_decay).index_select(0, kind_N) - self.log_decay.index_select(0, rows_N)
        decay_N.exp_()
        if (decay_N != 1).any():
            weight_ND.mul_(decay_N.to(weight_ND.dtype).unsqueeze(1))
        misses_N = (last_N < self.step) & (last_N >= self.missed.oldest)
        misses_N &= self._here(self.missed.factors)[kind_N] > 0
        late = misses_N.nonzero().flatten()
        if len(late):
            slots = self.missed.slots(last_N[late])
            coefficients = self._here(self.missed.coefficients()).to(weight_ND.dtype)[kind_N[late], slots]
            correction = (1 - self.rates.beta2 ** last_N[late].double()).rsqrt().to(weight_ND.dtype).unsqueeze(1)
            for places, *some in self._chunks(late, rows_N[late], coefficients, correction):
                weight_ND.index_add_(0, places, self._missed_moves(*some), alpha=-1)
        return weight_ND

    def look_up(self, rows_N: Tensor) -> Tensor:
        """`current`, remembered for the step in which these rows get their gradient."""
        weight_ND = self.current(rows_N)
        self._looked_up = self.weight._version, rows_N, weight_ND
        return weight_ND

    @torch.no_grad()
    def update(self, rows_N: Tensor, gradient_ND: Tensor, rates: Rates) -> None:
        """One step of AdamW, in which these rows have a gradient and the others none."""
        self._take(rates)
        weight_ND = self._remembered(rows_N)
        self._retire()
        self.missed.advance(rates.learning_rate, rates.weight_decay)
        for kind, *parts in self._by_kind(rows_N, weight_ND, gradient_ND):
            factor = self.missed.factors[kind].item()
            rates_here = replace(rates, learning_rate=factor * rates.learning_rate)
            missed_N1 = (self.step - 1 - self.last_step[parts[0]]).double().unsqueeze(1)
            parts += ((beta**missed_N1).to(self.weight.dtype) for beta in (rates.beta1, rates.beta2))
            for some in self._chunks(*parts):
                self._step_rows(rates_here, *some)
            self.last_step[parts[0]] = self.step
            self.log_decay[parts[0]] = self.missed.log_decay[kind].item()
        self._version, self.are_behind = self.weight._version, True

    @torch.no_grad()
    def flush(self, rows_N: Tensor | None = None) -> None:
        """Bring weights and moments of these rows, or of all, to the last step."""
        self._looked_up = None
        if not self.are_behind:
            return
        for rows in (self._all() if rows_N is None else rows_N).split(self._at_once):
            self._write(rows)
            self._shrink_moments(rows)
        self.are_behind = rows_N is not None

    @torch.no_grad()
    def take_weights_as_current(self) -> None:
        """Take what others wrote to the whole table as its weights after the last step."""
        self._looked_up = None
        for rows in self._all().split(self._at_once):
            self._shrink_moments(rows)
        self.log_decay = self._here(self.missed.log_decay)[self.kind]
        self._version, self.are_behind = self.weight._version, False

    def stepped_by_others(self, rates: Rates) -> None:
        """Count a step for which every row was caught up, and in which others moved weights and moments."""
        assert not self.are_behind
        self._take(rates)
        self.missed.advance(rates.learning_rate, rates.weight_decay)
        self.last_step.fill_(self.step)
        self.log_decay = self._here(self.missed.log_decay)[self.kind]
        self._version = self.weight._version

    @torch.no_grad()
    def set_factors(self, factors: Tensor) -> None:
        """Give rows other learning-rate factors from here on, (V,); moments rest while a factor is 0."""
        factors = factors.to(self.log_decay)
        old = self.factors
        changed = (factors != old).nonzero().flatten()
        if not len(changed):
            return
        self.flush(changed)
        distinct, self.kind = _distinct(factors, self.weight)
        self.missed = self.missed.with_factors(distinct)
        freed = changed[(old[changed] == 0) & (self.last_step[changed] >= 0)]
        self.last_step[freed] = self.step
        self.log_decay[changed] = self._here(self.missed.log_decay)[self.kind[changed]]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_looked_up": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_version": state["weight"]._version}  # a copied weight counts its versions anew

    def _all(self) -> Tensor:
        return torch.arange(len(self.weight), device=self.weight.device)

    def _chunks(self, *parts: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The parts, each of one number a row, for as many rows at a time as are worked on at once."""
        if len(parts[0]) <= self._at_once:
            return iter([parts])
        return zip(*(part.split(self._at_once) for part in parts), strict=True)

    def _here(self, few: Tensor) -> Tensor:
        return few.to(self.weight.device)

    def _take(self, rates: Rates) -> None:
        if rates.decays != self.rates.decays:
            self.flush()
            self.missed = self.missed.with_betas(rates.beta1, rates.beta2)
        self.rates = rates

    def _remembered(self, rows_N: Tensor) -> Tensor:
        (version, looked_up_N, weight_ND), self._looked_up = self._looked_up or (None, None, None), None
        is_of_now = version == self.weight._version and torch.equal(looked_up_N, rows_N)
        return weight_ND if is_of_now else self.current(rows_N)

    def _write(self, rows_N: Tensor) -> None:
        _write_rows(self.weight.detach(), rows_N, self.current(rows_N))
        self.log_decay[rows_N] = self._here(self.missed.log_decay)[self.kind[rows_N]]
        self._version = self.weight._version

    def _shrink_moments(self, rows_N: Tensor) -> None:
        """Bring the moments of these rows to the last step; those of frozen rows rest."""
        moving_N = self._here(self.missed.factors)[self.kind[rows_N]] > 0
        begun_N = rows_N[moving_N & (self.last_step[rows_N] >= 0)]
        missed_N1 = (self.step - self.last_step[begun_N]).double().unsqueeze(1)
        for table, beta in ((self.exp_avg, self.missed.beta1), (self.exp_avg_sq, self.missed.beta2)):
            shrink_N1 = (beta**missed_N1).to(table.dtype)
            table.index_copy_(0, begun_N, table.index_select(0, begun_N).mul_(shrink_N1))
        self.last_step[begun_N] = self.step

    def _retire(self) -> None:
        """Write the rows whose missed moves come to their end: from now on they miss only decay."""
        if (self.step + 1) % RETIRED_TOGETHER == 0:
            oldest = self.missed.oldest
            self._write(((self.last_step >= oldest) & (self.last_step < oldest + RETIRED_TOGETHER)).nonzero().flatten())

    def _by_kind(self, rows_N: Tensor, *parts: Tensor) -> Iterator[tuple[Any, ...]]:
        """The kind, the rows of it that move, and their share of each part, for each kind among the rows."""
        factors = self.missed.factors.tolist()
        if len(factors) == 1:
            places_of_kinds = [(0, None)]
        else:
            kind_N = self.kind[rows_N]
            places_of_kinds = [(kind, (kind_N == kind).nonzero().flatten()) for kind in kind_N.unique().tolist()]
        for kind, places in places_of_kinds:
            if factors[kind]:
                yield kind, *(p if places is None else p.index_select(0, places) for p in (rows_N, *parts))

    def _step_rows(
        self,
        rates: Rates,
        rows_N: Tensor,
        weight_ND: Tensor,
        gradient_ND: Tensor,
        shrink1_N1: Tensor,
        shrink2_N1: Tensor,
    ) -> None:
        """AdamW's step, already counted, for rows whose weights are caught up; `weight_ND` is overwritten.

        The moments first shrink by what they missed.
        """
        first, second = moments = self._scratch[:2, : len(rows_N)]
        torch.index_select(self.exp_avg, 0, rows_N, out=first).mul_(shrink1_N1)
        torch.index_select(self.exp_avg_sq, 0, rows_N, out=second).mul_(shrink2_N1)
        steps_before = torch.tensor(self.step - 1, dtype=torch.float32, device=rows_N.device)
        state = {"step": steps_before, "exp_avg": first, "exp_avg_sq": second}
        dense_step([weight_ND], [gradient_ND], [state], rates)
        for table, stepped in zip((self.weight, self.exp_avg, self.exp_avg_sq), (weight_ND, *moments), strict=True):
            _write_rows(table.detach(), rows_N, stepped)

    def _missed_moves(self, rows_N: Tensor, coefficients_NC: Tensor, correction_N1: Tensor) -> Tensor:
        """What these rows have moved by and miss, (N, D), in room that the next call takes.

        Args:
            rows_N: Late rows.
            coefficients_NC: Of their G.
            correction_N1: 1 over the root of the bias correction of their second moment.
        """
        first, inverse_root, t, total = self._scratch[:, : len(rows_N)]
        torch.index_select(self.exp_avg, 0, rows_N, out=first)
        torch.index_select(self.exp_avg_sq, 0, rows_N, out=t)
        epsilon = self.rates.epsilon
        # scalars as numbers: with tensors of one number addcmul takes three times as long
        torch.mul(t.sqrt_(), correction_N1, out=inverse_root).add_(epsilon).rsqrt_()  # 1 / sqrt(r + eps)
        torch.mul(inverse_root, 2 * epsilon**0.5, out=t).sub_(1)  # 2 u - 1
        *lower, highest = coefficients_NC.unsqueeze(1).unbind(-1)
        total.copy_(highest)
        for coefficient in reversed(lower):
            torch.addcmul(coefficient, total, t, out=total)
        return total.mul_(inverse_root).mul_(inverse_root).mul_(first)


def _write_rows(table_VD: Tensor, rows_N: Tensor, values_ND: Tensor) -> None:
    """``index_copy_`` along the rows; on a CPU in pieces of 16 bytes, as it copies piece by piece."""
    if table_VD.device.type == "cpu" and _in_pieces(table_VD) and _in_pieces(values_ND):
        table_VD, values_ND = table_VD.view(_PIECE), values_ND.view(_PIECE)
    table_VD.index_copy_(0, rows_N, values_ND)


def _in_pieces(table: Tensor) -> bool:
    bytes_a_row, begins = table.shape[1] * table.element_size(), table.storage_offset() * table.element_size()
    return table.is_contiguous() and bytes_a_row % 16 == 0 and begins % 16 == 0


def kinds_of(factors: Tensor) -> dict[str, Tensor]:
    """How a state dict holds the learning-rate factors of rows, (V,)."""
    distinct, kind = _distinct(factors, factors)
    return {"factors": distinct, "kind": kind}


def factors_of(kept: dict[str, Tensor]) -> Tensor:
    """The inverse of `kinds_of`."""
    return kept["factors"].double().cpu()[kept["kind"].long().cpu()]  # torch's AdamW makes all of its state floats


def _distinct(factors: Tensor | None, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The different factors among those of the rows, and each row's place among them."""
    if factors is None:
        return torch.ones(1, **EXACT), torch.zeros(len(weight), dtype=torch.int64, device=weight.device)
    distinct, kind = torch.unique(factors.double(), return_inverse=True)
    return distinct.cpu(), kind.to(weight.device)
