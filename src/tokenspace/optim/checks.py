"""What RowwiseAdamW refuses: settings, states and gradients that would spoil a trajectory without a word."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tokenspace.errors import CheckpointError, SettingError


def check_betas(beta1: float, beta2: float) -> None:
    """Refuse decays for which a row's missed updates have no short sum.

    From ``beta1 = sqrt(beta2)`` on the sum would not end, and between that and ``beta1 = beta2``
    it would take more nodes than float32 can tell apart.

    Raises:
        SettingError: a beta lies outside [0, 1), or `beta2` is below `beta1`.
    """
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise SettingError("betas", "lie in [0, 1)", (beta1, beta2), "Use (0.9, 0.999)")
    if beta2 < beta1:
        next_step = "Raise the second, or use torch.optim.AdamW"
        raise SettingError("betas", "have the second at least as large as the first", (beta1, beta2), next_step)


def check_variant(settings: dict[str, Any]) -> None:
    """Refuse what torch's AdamW can be asked for and this one does not do.

    Raises:
        SettingError: names the setting.
    """
    for name in ("amsgrad", "maximize"):
        if settings.get(name):
            raise SettingError(name, "be left out with RowwiseAdamW", settings[name], "Use torch.optim.AdamW for it")


def check_state(state: dict[str, Any], name: str, parameter: Tensor) -> None:
    """Refuse the state of another optimiser or of another parameter.

    Raises:
        CheckpointError: names the parameter.
    """
    what = f"optimiser state of {name}"
    if not {"step", "exp_avg", "exp_avg_sq"} <= state.keys():
        found, next_step = f"that of {', '.join(state)}", "Load one of its own or of AdamW"
        raise CheckpointError(what, "be that of AdamW", found, next_step)
    if state["exp_avg"].shape != parameter.shape:
        next_step = "Load it into the model it was made for"
        raise CheckpointError(what, f"be {list(parameter.shape)}", list(state["exp_avg"].shape), next_step)


def first_not_finite(gradients: Sequence[Tensor]) -> int | None:
    """The place of the first gradient that holds a number that is not finite; the devices are asked once."""
    totals = [_total(gradient) for gradient in gradients]
    finite = torch.stack([total.to(totals[0].device) for total in totals]).isfinite().tolist() if totals else []
    return finite.index(False) if False in finite else None


def _total(gradient: Tensor) -> Tensor:
    """A number that is finite if all of the gradient is."""
    values = gradient._values() if gradient.is_sparse else gradient
    values = torch.view_as_real(values) if values.is_complex() else values
    values = values.to_local() if hasattr(values, "to_local") else values  # of a distributed tensor this rank's share
    return values.sum(dtype=torch.float64 if values.dtype == torch.float64 else torch.float32)
