"""When a lookup counts: the forward hook of a watched table's module."""

import inspect
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

    def __init__(self, ledger: "Ledger | None" = None, module: nn.Module | None = None) -> None:
        self.ledger = (lambda: None) if ledger is None else weakref.ref(ledger)
        # what the ids are called where they are given by name; other arguments may come with them
        self.name = "input" if module is None else next(iter(inspect.signature(module.forward).parameters), "input")

    def __reduce__(self) -> tuple[type, tuple]:
        return InputHook, ()

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        """Called after each lookup; leaves its output as it is."""
        ledger = self.ledger()
        if ledger is None or not torch.is_grad_enabled():
            return
        ledger.check_table(module.weight)
        ids = args[0] if args else kwargs[self.name]
        vectors = next((o for o in output if isinstance(o, Tensor)), None) if isinstance(output, tuple) else output
        if isinstance(vectors, Tensor) and vectors.requires_grad and not torch.compiler.is_compiling():
            _when_gradient_arrives(ledger, ids, vectors)
        elif module.training:
            ledger.count_inputs(ids)


def _when_gradient_arrives(ledger: "Ledger", ids: Tensor, output: Tensor) -> None:
    def count(_: Tensor) -> None:
        handle.remove()
        ledger.count_inputs(ids)

    handle = output.register_hook(count)
