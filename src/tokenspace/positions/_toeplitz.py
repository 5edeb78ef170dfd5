"""Matrices in which every row is the row before, moved by one: what relative positions make of a list.

Written with a backward pass of its own: autograd's for overlapping windows takes ten times
as long on a CPU. Axis letters: H heads, T rows, S columns.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_ROWS_AT_ONCE = 64  # of a gradient: few enough to stay in the cache, many enough to keep a GPU busy


def toeplitz(values_HR: Tensor, rows: int) -> Tensor:
    """Element (t, s) is ``values[s - t + rows - 1]``.

    Args:
        values_HR: (H, T + S - 1), from the lower left corner to the upper right.
        rows: T.

    Returns:
        (H, T, S), contiguous.

    Example:
        >>> toeplitz(torch.arange(4.0).unsqueeze(0), rows=2)
        tensor([[[1., 2., 3.],
                 [0., 1., 2.]]])
    """
    if torch.compiler.is_compiling():  # inductor's backward of overlapping windows was wrong in torch 2.13
        columns = torch.arange(values_HR.shape[-1] - rows + 1, device=values_HR.device)
        return values_HR[:, columns - torch.arange(rows, device=values_HR.device).unsqueeze(1) + rows - 1]
    return _Toeplitz.apply(values_HR, rows)


class _Toeplitz(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, rows: int) -> Tensor:
        columns = values.shape[-1] - rows + 1
        return values.flip(-1).unfold(-1, columns, 1).flip(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        _, ctx.rows = inputs

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return _Toeplitz.apply(tangent, ctx.rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        H, T, S = gradient.shape
        summed = gradient.new_zeros(H, T + S - 1)
        for start in range(0, T, _ROWS_AT_ONCE):
            block = gradient[:, start : start + _ROWS_AT_ONCE]
            rows = block.shape[1]
            # one column more than fits makes each row begin one place later: diagonals become columns
            padded = F.pad(F.pad(block, (rows, 0)).flatten(1), (0, rows)).view(H, rows, rows + S + 1)
            summed[:, T - start - rows : T - start + S - 1] += padded[..., 1:-1].sum(dim=1)
        return summed, None
