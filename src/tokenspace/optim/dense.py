"""One step of dense AdamW: torch's own, with its fused kernel where there is one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim.adamw import adamw

_FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")


@dataclass(frozen=True)
class Rates:
    """The settings of one step."""

    learning_rate: float
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float

    @classmethod
    def of(cls, group: dict[str, Any]) -> "Rates":
        """Those of an optimiser's parameter group."""
        return cls(float(group["lr"]), group["weight_decay"], *group["betas"], group["eps"])

    @property
    def decays(self) -> tuple[float, float, float]:
        """What must be the same in all steps in which rows lag."""
        return self.beta1, self.beta2, self.epsilon


def dense_step(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor], states: Sequence[dict[str, Tensor]], rates: Rates
) -> None:
    """Move parameters and their moments in place, and count the step in each state.

    Args:
        parameters: Of any shapes.
        gradients: One for each.
        states: ``step`` (float32, a number), ``exp_avg`` and ``exp_avg_sq`` of each.
        rates: Settings of the step.
    """
    for fused in (True, False):
        chosen = [i for i, p in enumerate(parameters) if _can_be_fused(p) == fused]
        if chosen:
            adamw(
                [parameters[i] for i in chosen],
                [gradients[i] for i in chosen],
                [states[i]["exp_avg"] for i in chosen],
                [states[i]["exp_avg_sq"] for i in chosen],
                [],
                [states[i]["step"] for i in chosen],
                fused=fused,
                foreach=False,
                amsgrad=False,
                beta1=rates.beta1,
                beta2=rates.beta2,
                lr=rates.learning_rate,
                weight_decay=rates.weight_decay,
                eps=rates.epsilon,
                maximize=False,
            )


def _can_be_fused(parameter: Tensor) -> bool:
    return parameter.device.type in _FUSED_DEVICES and parameter.is_floating_point()
