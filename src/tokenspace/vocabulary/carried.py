"""What goes with a live model: its optimiser's state by row, and its ledger.

A row that stays keeps its moments; a new one begins without. Of optimisers whose state has
another form than their parameters' rows nothing is guessed: they are refused.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tokenspace.errors import SettingError
from tokenspace.ledger import Ledger
from tokenspace.optim import RowwiseAdamW
from tokenspace.optim.link import TableLink
from tokenspace.vocabulary.checks import check_list
from tokenspace.vocabulary.edit import Edit

Carried = Sequence[torch.optim.Optimizer | Ledger]


def check_carried(carry: Carried, tensors: Sequence[Tensor], edit: Edit) -> None:
    """Bring lagging rows up to date, and refuse what cannot go along, before anything is changed.

    Raises:
        SettingError: something is neither optimiser nor ledger, has state without rows, or rows lag behind an
            optimiser that was not given.
    """
    check_list("carry", carry, "optimisers and ledgers")
    for one in carry:
        if not isinstance(one, torch.optim.Optimizer | Ledger):
            raise SettingError("carry", "hold optimisers and ledgers", type(one).__name__, "Leave it out")
        if isinstance(one, RowwiseAdamW):
            one.flush()
        if isinstance(one, torch.optim.Optimizer):
            for tensor in tensors:
                for name, value in one.state.get(tensor, {}).items():
                    _check_state(type(one).__name__, name, value, tensor)
    for tensor in tensors:
        rows = TableLink.rows_of(tensor)
        if rows is not None and rows.are_behind:
            next_step = "Give its optimiser in carry"
            raise SettingError("token table", "have no rows that lag behind an optimiser", "behind", next_step)


def carry_optimizer(optimizer: torch.optim.Optimizer, replaced: Mapping[Tensor, nn.Parameter], edit: Edit) -> None:
    """Put the new parameters in the place of the old ones, with their state by row."""
    for group in optimizer.param_groups:
        group["params"] = [replaced.get(parameter, parameter) for parameter in group["params"]]
    for old, new in replaced.items():
        if old in optimizer.state:
            state = optimizer.state.pop(old)
            optimizer.state[new] = {
                name: edit.rows(value) if isinstance(value, Tensor) and value.shape == old.shape else value
                for name, value in state.items()
            }
    if isinstance(optimizer, RowwiseAdamW):
        optimizer.forget_ways()


def carry_positions(optimizer: torch.optim.Optimizer, old: Tensor, new: nn.Parameter, interpolate: bool) -> None:
    """The same for a position table: kept rows keep their moments; of a stretched table none is kept."""
    for group in optimizer.param_groups:
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
    state = optimizer.state.pop(old, None)
    if state is not None and not interpolate:
        kept = min(len(old), len(new))
        optimizer.state[new] = {
            name: torch.cat([value[:kept], value.new_zeros(len(new) - kept, *value.shape[1:])])
            if isinstance(value, Tensor) and value.shape == old.shape
            else value
            for name, value in state.items()
        }
    if isinstance(optimizer, RowwiseAdamW):
        optimizer.forget_ways()


def carry_link(old: Tensor, new: nn.Parameter, edit: Edit) -> None:
    """Give rows that stay the learning-rate factors they had."""
    link = TableLink.carried_by(old)
    if link is not None and link.factors is not None:
        TableLink.of(new).take_factors(edit.rows(link.factors, 1.0))


def _check_state(optimizer: str, name: str, value: object, tensor: Tensor) -> None:
    if isinstance(value, Tensor) and value.dim() and value.numel() > 1 and value.shape != tensor.shape:
        next_step = "Make the optimiser anew after the edit"
        found = f"{name} of shape {tuple(value.shape)}"
        raise SettingError(f"state of {optimizer}", "have a row a token, as AdamW's has", found, next_step)
