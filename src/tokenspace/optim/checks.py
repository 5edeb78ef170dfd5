"""What RowwiseAdamW refuses: settings, states and gradients that would spoil a trajectory without a word."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from tokenspace.errors import CheckpointError, SettingError

_NEGLIGIBLE = 1e-10  # of a row's first missed move: where the sum of all ends
_LONGEST_WINDOW = 2**16  # steps; 16 MB and some milliseconds a step for each learning-rate factor


def check_betas(beta1: float, beta2: float) -> None:
    """Refuse decays for which a row's missed updates have no short sum.

    From ``beta1 = sqrt(beta2)`` on the sum would not end, and between that and ``beta1 = beta2``
    it would take more nodes than float32 can tell apart. Near 1 it has so many terms that they would fill
    the memory.

    Raises:
        SettingError: a beta lies outside [0, 1), `beta2` is below `beta1`, or `beta1` is so near to 1 that
            gradients count for longer than 65,536 steps.
    """
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise SettingError("betas", "lie in [0, 1)", (beta1, beta2), "Use (0.9, 0.999)")
    if beta2 < beta1:
        next_step = "Raise the second, or use torch.optim.AdamW"
        raise SettingError("betas", "have the second at least as large as the first", (beta1, beta2), next_step)
    if window_of(beta1, beta2) > _LONGEST_WINDOW:
        rule = f"let a gradient count for at most {_LONGEST_WINDOW:,} steps, which takes memory"
        next_step = "Lower the first, or use torch.optim.AdamW"
        raise SettingError("betas", rule, (beta1, beta2), next_step)


def window_of(beta1: float, beta2: float) -> int:
    """Steps after which a row without a gradient no longer moves, but for decay."""
    if beta1 == 0:
        return 2
    return max(2, math.ceil(math.log(_NEGLIGIBLE) / math.log(beta1 / math.sqrt(beta2))) + 1)


def check_variant(settings: dict[str, Any]) -> None:
    """Refuse what torch's AdamW can be asked for and this one does not do.

    Raises:
        SettingError: names the setting.
    """
    for name in ("amsgrad", "maximize"):
        if settings.get(name):
            raise SettingError(name, "be left out with RowwiseAdamW", settings[name], "Use torch.optim.AdamW for it")


def check_group(group: dict[str, Any], settings: Iterable[str]) -> None:
    """Refuse a group of a state dict that is not AdamW's, or of a variant that this one does not do.

    Raises:
        CheckpointError: it lacks a setting.
        SettingError: names the setting of a variant.
    """
    missing = [name for name in settings if name not in group]
    if missing:
        found = f"without {', '.join(missing)}"
        raise CheckpointError("optimiser state", "be that of AdamW", found, "Load one of its own or of AdamW")
    check_variant(group)


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
    """The place of the first gradient that holds a number that is not finite; the devices are asked once.

    Of distributed tensors all processes that share one get the same answer.
    """
    if not gradients:
        return None
    totals = [_here(gradient).sum(dtype=_wide(gradient)) for gradient in gradients]
    bad = torch.stack([total.to(totals[0].device) for total in totals]).isfinite().logical_not_()
    if bad.any():  # or the sum of a large gradient overflows
        bad = torch.tensor([not _here(gradient).isfinite().all() for gradient in gradients], device=bad.device)
    for group in {group for g in gradients if is_sharded(g) for group in g.device_mesh.get_all_groups()}:
        torch.distributed.all_reduce(bad, torch.distributed.ReduceOp.MAX, group)
    found = bad.nonzero().flatten().tolist()
    return found[0] if found else None


def is_sharded(weight: Tensor) -> bool:
    """Whether it is a DTensor; found without importing torch.distributed."""
    return hasattr(weight, "full_tensor")


def _here(gradient: Tensor) -> Tensor:
    """Its numbers; of a distributed tensor those of this process."""
    values = gradient._values() if gradient.is_sparse else gradient
    values = torch.view_as_real(values) if values.is_complex() else values
    return values.to_local() if is_sharded(values) else values


def _wide(gradient: Tensor) -> torch.dtype:
    return torch.float64 if gradient.dtype in (torch.float64, torch.complex128) else torch.float32
