"""Looking rows up in a table whose rows may lag, with a gradient of those rows alone.

The gradient is a coalesced sparse tensor: one row for each different token of the batch,
summed once. Axis letters: M tokens of a batch, N different ones, D d_model, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenspace.optim.link import TableLink


@dataclass(frozen=True, eq=False)
class Groups:
    """The tokens of a batch, by row.

    Attributes:
        rows: The different ids, ascending, int64, (N,).
        order: The batch's places, those of one row next to each other, int64, (M,).
        starts: Where each row's places begin in `order`, int64, (N,).
    """

    rows: Tensor
    order: Tensor
    starts: Tensor

    @classmethod
    def of(cls, ids_M: Tensor) -> Self:
        """Group these ids."""
        ordered, order = ids_M.sort()
        rows, counts = torch.unique_consecutive(ordered, return_counts=True)
        return cls(rows, order, counts.cumsum(0) - counts)

    def place_of_each(self) -> Tensor:
        """For each token the place of its row in `rows`, int64, (M,)."""
        begins = torch.zeros_like(self.order)
        begins[self.starts[1:]] = 1
        return torch.empty_like(self.order).index_copy_(0, self.order, begins.cumsum(0))

    def sums(self, values_MD: Tensor) -> Tensor:
        """The sum of the values of each row, (N, D)."""
        return F.embedding_bag(self.order, values_MD, self.starts, mode="sum")


def look_up(link: TableLink, token_ids: Tensor, padding_idx: int | None) -> Tensor:
    """The rows of these tokens, caught up: ids of any shape S give S + (D,)."""
    weight, rows = link.weight, link.rows
    trains = torch.is_grad_enabled() and weight.requires_grad
    if not trains and (rows is None or not rows.are_behind):
        return F.embedding(token_ids, weight)
    groups = Groups.of(token_ids.flatten().long())
    if rows is None:
        found_ND = weight.detach().index_select(0, groups.rows)
    else:
        found_ND = rows.look_up(groups.rows) if trains else rows.current(groups.rows)
    return _Lookup.apply(weight, found_ND, groups, padding_idx, token_ids.shape)


def row_gradient(gradient_VD: Tensor) -> tuple[Tensor, Tensor]:
    """Rows, each once and ascending, and their gradients, (N,) and (N, D), of a sparse gradient; maybe views."""
    rows, values = gradient_VD._indices()[0], gradient_VD._values()
    if gradient_VD.is_coalesced() or (rows[1:] > rows[:-1]).all():  # autograd forgets that they are
        return rows, values
    groups = Groups.of(rows)
    return groups.rows, groups.sums(values)


def of_rows(rows_N: Tensor, values_ND: Tensor, size: torch.Size) -> Tensor:
    """The inverse of `row_gradient`."""
    return torch.sparse_coo_tensor(rows_N.unsqueeze(0), values_ND, size, is_coalesced=True, check_invariants=False)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, found_ND: Tensor, groups: Groups, padding_idx: int | None, shape: torch.Size
    ) -> Tensor:
        ctx.groups, ctx.padding_idx, ctx.size = groups, padding_idx, weight.shape
        return F.embedding(groups.place_of_each().view(shape), found_ND)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        rows, sums_ND = ctx.groups.rows, ctx.groups.sums(gradient.reshape(-1, gradient.shape[-1]))
        if ctx.padding_idx is not None:
            sums_ND[rows == ctx.padding_idx] = 0.0
        return of_rows(rows, sums_ND, ctx.size), None, None, None, None
