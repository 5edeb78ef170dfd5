"""RowwiseAdamW: AdamW whose step costs what the tokens of the batch cost, not the vocabulary.

An ordinary optimiser for a whole model. A table that `TokenEmbedding` reads with
``sparse=True`` is stepped by its rows; every other parameter by torch's own fused AdamW.
Both walk the same trajectory. How rows lag and are caught up is `LaggingRows`' matter.

Source: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization" (arXiv:1711.05101).
Axis letters: N rows with a gradient, V vocabulary.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tokenspace.errors import SettingError, check_not_negative
from tokenspace.optim.checks import check_betas, check_group, check_state, check_variant, first_not_finite
from tokenspace.optim.dense import Rates, dense_step
from tokenspace.optim.link import TableLink
from tokenspace.optim.lookup import row_gradient
from tokenspace.optim.rows import LaggingRows, factors_of, kinds_of

_WHOLE_FROM = 0.25  # share of the rows from which stepping the whole table costs less
_ROW_DEVICES = ("cpu", "cuda")  # others have no float64, which catching up needs
_ROW_TYPES = (torch.float32, torch.float64)
_OF_ROWS = "rows_"  # begins the names of what a state dict holds beyond torch's AdamW


class RowwiseAdamW(torch.optim.Optimizer):
    """AdamW, exact and lazy in the rows of token tables.

    Args:
        params: Parameters, named parameters or groups, as for every optimiser of torch.
        lr: Learning rate; may change from step to step.
        betas: Decays of the first moment and of the second, which must be at least as large.
        eps: Added to the root of the second moment.
        weight_decay: As a share of `lr`.

    Raises:
        SettingError: a setting is out of range.

    Example:
        >>> from tokenspace import TokenEmbedding
        >>> table = TokenEmbedding(50257, 8, sparse=True)
        >>> optimizer = RowwiseAdamW(table.parameters(), lr=1e-3)
        >>> table(torch.tensor([[1, 5, 5, 7]])).sum().backward()
        >>> optimizer.step()
        >>> optimizer.ways()
        {'parameter 0': 'rows: 3 of 50,257'}
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        self._ways: dict[Tensor, str] = {}
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As of every optimiser of torch.

        Raises:
            SettingError: a setting is out of range.
        """
        settings = self.defaults | param_group
        rates = {name: float(settings[name]) for name in ("lr", "eps", "weight_decay")}
        check_not_negative("Use the default where in doubt", **rates)
        check_betas(*settings["betas"])
        check_variant(settings)
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter that has a gradient.

        Args:
            closure: Computes the loss anew; what it returns is returned.

        Raises:
            SettingError: a gradient is not finite, or not sparse for a table that is read by rows, or others
                wrote to such a table while its rows lagged. No parameter is changed then.
        """
        if torch.compiler.is_compiling():  # which rows there are is known only when it runs
            return torch.compiler.disable(self.step)(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._check()
        with torch.no_grad():
            for group in self.param_groups:
                dense = []
                for parameter in group["params"]:
                    if parameter.grad is None:
                        continue
                    if _goes_by_rows(parameter):
                        self._step_rows(parameter, group)
                    else:
                        dense.append(parameter)
                self._step_dense(dense, group)
        return loss

    def flush(self) -> None:
        """Bring every row of every table up to date, weights and moments.

        Whatever reads a weight itself, not through its table, needs this first. Training goes on
        from here on the same trajectory.
        """
        for _, parameter in self._named():
            rows = self._rows_of(parameter)
            if rows is not None:
                rows.flush()

    def ways(self) -> dict[str, str]:
        """How the last step moved each parameter: by its rows, the whole table, or as any dense parameter."""
        return {name: self._ways[parameter] for name, parameter in self._named() if parameter in self._ways}

    def forget_ways(self) -> None:
        """Forget what `ways` tells, and with it parameters that were replaced."""
        self._ways.clear()

    def state_dict(self) -> dict[str, Any]:
        """As of AdamW; for tables also learning-rate factors, and what lagging rows need to go on bit for bit.

        The weights that a module's own state dict holds are caught up; load that first, then this.
        """
        packed = super().state_dict()
        for index, (_, parameter) in enumerate(self._named()):
            kept = self._kept_of(parameter)
            if kept:
                state = packed["state"].get(index) or _fresh_state(parameter)
                packed["state"][index] = state | {_OF_ROWS + name: tensor for name, tensor in kept.items()}
        return packed

    def _kept_of(self, parameter: Tensor) -> dict[str, Tensor]:
        """What a state dict holds of a table beyond AdamW's state."""
        rows, link = self._rows_of(parameter), TableLink.carried_by(parameter)
        if rows is not None:
            return rows.bookkeeping()
        return {} if link is None or link.factors is None else kinds_of(link.factors)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`, or from that of ``torch.optim.AdamW``.

        A row that has a learning-rate factor, as frozen ones have, keeps it; the others get those of the state.

        Raises:
            CheckpointError: it was made for parameters of other shapes, a vocabulary of another size, or by
                another optimiser.
            SettingError: it was made by a variant of AdamW that this is not, or rows would have more than 16
                different learning-rate factors. Nothing is changed then.
        """
        for group in state_dict["param_groups"]:
            check_group(group, self.defaults)
        indices = [index for group in state_dict["param_groups"] for index in group["params"]]
        named = dict(zip(indices, self._named(), strict=False))  # torch itself refuses another number of them
        plain, of_rows, factors = {}, {}, {}
        for index, state in state_dict["state"].items():
            of_rows[index] = {k.removeprefix(_OF_ROWS): v.clone() for k, v in state.items() if k.startswith(_OF_ROWS)}
            plain[index] = {k: v for k, v in state.items() if not k.startswith(_OF_ROWS)}
            if index in named:
                check_state(state, *named[index])
            if index in named and of_rows[index]:
                factors[index] = TableLink.of(named[index][1]).with_own(factors_of(of_rows[index]))
                # what lags until now is written to below, and may be these very tensors
                plain[index] = copy.deepcopy(plain[index])
        super().load_state_dict({**state_dict, "state": plain})
        for index, kept in of_rows.items():
            parameter = named[index][1]
            loaded = self.state[parameter]
            loaded["step"] = torch.as_tensor(loaded["step"], dtype=torch.float32, device=parameter.device)
            if kept:
                self._restore_rows(parameter, kept, factors[index])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._ways = {}

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter and its name, each another one; numbers help where none was given or two are the same."""
        names = set()
        for group in self.param_groups:
            for place, parameter in enumerate(group["params"]):
                numbered = f"parameter {len(names)}"
                name = group["param_names"][place] if "param_names" in group else numbered
                name = f"{name} ({numbered})" if name in names else name
                names.add(name)
                yield name, parameter

    def _group_of(self, parameter: Tensor) -> dict[str, Any]:
        return next(group for group in self.param_groups if any(p is parameter for p in group["params"]))

    def _steps(self, parameter: Tensor) -> int:
        return int(self.state[parameter]["step"]) if parameter in self.state else 0

    def _check(self) -> None:
        """Refuse what would spoil a parameter, before any is changed."""
        for group in self.param_groups:
            links = [TableLink.carried_by(p) for p in group["params"] if p.grad is not None and _goes_by_rows(p)]
            for link in links:
                if link.rows is not None:
                    link.rows.check_untouched()
            if links:
                check_betas(*group["betas"])
                decay = group["lr"] * group["weight_decay"] * max(link.largest_factor for link in links)
                if not decay < 1:
                    next_step = "Lower one of them"
                    raise SettingError("lr * weight_decay", "be below 1 for a table read by rows", decay, next_step)
        given = [(name, parameter) for name, parameter in self._named() if parameter.grad is not None]
        for name, parameter in given:
            if _goes_by_rows(parameter) and not parameter.grad.is_sparse:
                rule = "be sparse, as its table is read by rows"
                next_step = "Untie what else reads the table, such as a tied head, or make it with sparse=False"
                raise SettingError(f"gradient of {name}", rule, "dense", next_step)
        bad = first_not_finite([parameter.grad for _, parameter in given])
        if bad is not None:
            name, parameter = given[bad]
            where = f"gradient of {name} at step {self._steps(parameter) + 1}"
            next_step = "Lower the learning rate or clip the gradient; no parameter was changed"
            raise SettingError(where, "be finite", "infinite or not a number", next_step)

    def _rows_of(self, parameter: Tensor) -> LaggingRows | None:
        """What lags behind this optimiser."""
        rows = TableLink.rows_of(parameter)
        if rows is None or parameter not in self.state:
            return None
        return rows if rows.exp_avg is self.state[parameter]["exp_avg"] else None

    def _new_rows(self, parameter: Tensor, group: dict[str, Any]) -> LaggingRows:
        """Begin to let the rows of a table lag; moments of steps before are taken over."""
        link = TableLink.of(parameter)
        if link.rows is not None:
            link.rows.flush()  # they lagged behind another optimiser
        state = self._state_of(parameter)
        moments = state["exp_avg"], state["exp_avg_sq"]
        link.rows = LaggingRows(parameter, moments, self._steps(parameter), Rates.of(group), link.factors)
        return link.rows

    def _restore_rows(self, parameter: Tensor, kept: dict[str, Tensor], factors: Tensor) -> None:
        link = TableLink.of(parameter)
        if "last_step" in kept and kept["last_step"].dtype == torch.int64:  # else torch's AdamW went on from it
            self._new_rows(parameter, self._group_of(parameter)).restore(kept)
        link.take_factors(factors)
        if link.rows is not None and not _goes_by_rows(parameter):  # whoever reads this table catches nothing up
            link.rows.flush()
            link.rows = None

    def _step_rows(self, parameter: Tensor, group: dict[str, Any]) -> None:
        rows_N, gradient_ND = row_gradient(parameter.grad)
        rows = self._rows_of(parameter) or self._new_rows(parameter, group)
        share = f"{len(rows_N):,} of {len(parameter):,}"
        if len(rows_N) < _WHOLE_FROM * len(parameter) or TableLink.of(parameter).factors is not None:
            rows.update(rows_N, gradient_ND, Rates.of(group))
            self.state[parameter]["step"].fill_(rows.step)
            self._ways[parameter] = f"rows: {share}"
        else:
            rows.flush()
            gradient_VD = torch.zeros_like(parameter).index_copy_(0, rows_N, gradient_ND)
            dense_step([parameter], [gradient_VD], [self.state[parameter]], Rates.of(group))
            rows.stepped_by_others(Rates.of(group))
            self._ways[parameter] = f"whole table: {share} rows"

    def _step_dense(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if self._rows_of(parameter) is not None:  # its rows were read one by one until now
                self._rows_of(parameter).flush()
                TableLink.of(parameter).rows = None
            self._ways[parameter] = "dense"
        gradients = [p.grad.to_dense() if p.grad.is_sparse else p.grad for p in parameters]
        with _factored(parameters):
            dense_step(parameters, gradients, [self._state_of(p) for p in parameters], Rates.of(group))

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        if not self.state[parameter]:
            self.state[parameter].update(_fresh_state(parameter))
        return self.state[parameter]


def _fresh_state(parameter: Tensor) -> dict[str, Tensor]:
    moments = {name: torch.zeros_like(parameter, requires_grad=False) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), dtype=torch.float32, device=parameter.device), **moments}


def _goes_by_rows(parameter: Tensor) -> bool:
    """Whether a parameter is a table of which rows may lag."""
    link = TableLink.carried_by(parameter)
    can = parameter.device.type in _ROW_DEVICES and parameter.dtype in _ROW_TYPES
    return can and link is not None and link.reads_rows


@contextmanager
def _factored(parameters: list[Tensor]) -> Iterator[None]:
    """Scale what happens inside to rows that have a learning-rate factor; with factor 0 nothing happens."""
    before = []
    for parameter in parameters:
        link = TableLink.carried_by(parameter)
        if link is not None and link.factors is not None:
            rows = (link.factors != 1).nonzero().flatten()
            factors = link.factors[rows].to(parameter.dtype).unsqueeze(1)
            before.append((parameter, rows, factors, parameter.index_select(0, rows)))
    yield
    for parameter, rows, factors, old in before:
        moved = torch.lerp(old, parameter.index_select(0, rows), factors)
        parameter.index_copy_(0, rows, torch.where(factors == 0, old, moved))
