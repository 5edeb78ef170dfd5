"""Gradient clipping where some gradients are sparse, which torch's own refuses on a CPU."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tokenspace.optim.checks import first_not_finite, is_sharded
from tokenspace.optim.lookup import of_rows, row_gradient


@torch.no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """``torch.nn.utils.clip_grad_norm_`` for dense and sparse gradients together.

    Where a gradient holds a number that is not finite, all are left as they are: torch's would spread it
    to every other, and `RowwiseAdamW` could no longer name the one that it came from.

    Args:
        parameters: One or several; those without a gradient are passed over.
        max_norm: Largest norm of all gradients taken as one vector.
        norm_type: Which norm; ``inf`` for the largest component.
        error_if_nonfinite: Whether a norm that is no finite number is an error.

    Returns:
        The norm before clipping, a number.

    Raises:
        RuntimeError: torch's own, where `error_if_nonfinite` asks for it.

    Example:
        >>> table = nn.Embedding(4, 2, sparse=True)
        >>> table(torch.tensor([1, 1])).sum().backward()
        >>> clip_grad_norm_(table.parameters(), max_norm=1.0)
        tensor(2.8284)
        >>> clip_grad_norm_(table.parameters(), max_norm=1.0)
        tensor(1.0000)
    """
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    values = []
    for parameter in parameters:
        if parameter.grad is not None:
            if parameter.grad.is_sparse:
                rows, of_each = row_gradient(parameter.grad)
                parameter.grad = of_rows(rows, of_each, parameter.shape)
                values.append(of_each)
            else:
                values.append(parameter.grad)
    norm = nn.utils.get_total_norm(values, norm_type, error_if_nonfinite)
    if not _whole(norm).isfinite():
        if first_not_finite(values) is not None:
            return norm
        norm = nn.utils.get_total_norm([value.double() for value in values], norm_type)  # beyond float32
    share = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(share.to(value.device))
    return norm


def _whole(norm: Tensor) -> Tensor:
    """The number that a distributed one stands for."""
    return norm.full_tensor() if is_sharded(norm) else norm
