"""When a lookup counts: the forward hook of a watched table's module."""

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from tokenspace.ledger.ledger import Ledger


class InputHook:
    """Gives a ledger the ids of a lookup once their gradient arrives.

    Once, however many backward passes go through the lookup. The module that holds the hook
    neither keeps the ledger alive nor takes it along when it is copied or pickled.
    """

    def __init__(self, ledger: "Ledger | None" = None) -> None:
        self.ledger = (lambda: None) if ledger is None else weakref.ref(ledger)

    def __reduce__(self) -> tuple[type, tuple]:
        return InputHook, ()

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> None:
        """Called after each lookup; leaves its output as it is."""
        ledger = self.ledger()
        if ledger is None or not torch.is_grad_enabled():
            return
        ledger.check_table(module.weight)
        (ids,) = (*args, *kwargs.values())
        if output.requires_grad and not torch.compiler.is_compiling():
            _when_gradient_arrives(ledger, ids, output)
        elif module.training:
            ledger.count_inputs(ids)


def _when_gradient_arrives(ledger: "Ledger", ids: Tensor, output: Tensor) -> None:
    def count(_: Tensor) -> None:
        handle.remove()
        ledger.count_inputs(ids)

    handle = output.register_hook(count)
