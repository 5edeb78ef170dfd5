"""Gradients of one process's windows become those of the whole batch.

All processes have equal shares, so the mean over the batch is the mean of their means.
Every process ends with the same bits. Axis letters: N rows with a gradient, D d_model.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from tokenspace.optim.lookup import Groups, of_rows, row_gradient
from tokenspace.training.processes import Alone

_BUCKET_BYTES = 32 << 20  # exchanged at once: many small tensors would wait for each other


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter], loss: Tensor, processes: Alone) -> None:
    """Replace the gradients of all parameters, and the loss, by their means over the processes, in place.

    Args:
        parameters: Those without a gradient are passed over; a sparse gradient stays sparse.
        loss: A number.
        processes: Each of which has computed its own.
    """
    if processes.world_size == 1:
        return
    dense = [loss]
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = _mean_of_rows(parameter.grad, processes)
        elif parameter.grad is not None:
            dense.append(parameter.grad)
    for bucket in _buckets(dense):
        flat = torch.cat([tensor.flatten() for tensor in bucket])
        processes.sum(flat)
        flat /= processes.world_size
        for tensor, mean in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
            tensor.copy_(mean.view_as(tensor))


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type, up to so many bytes or one large tensor."""
    bucket, size = [], 0
    for tensor in tensors:
        if bucket and (size + tensor.nbytes > _BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    yield bucket


def _mean_of_rows(gradient_VD: Tensor, processes: Alone) -> Tensor:
    """Mean of sparse gradients: the rows that any process has, each once.

    By gathering: NCCL sums no sparse tensors.
    """
    rows_N, values_ND = row_gradient(gradient_VD)
    counts = processes.gather(torch.tensor(len(rows_N))).tolist()
    most = max(counts)
    all_rows = processes.gather(_padded(rows_N, most))
    all_values = processes.gather(_padded(values_ND, most))
    groups = Groups.of(torch.cat([rows[:count] for rows, count in zip(all_rows, counts, strict=True)]))
    sums_ND = groups.sums(torch.cat([values[:count] for values, count in zip(all_values, counts, strict=True)]))
    return of_rows(groups.rows, sums_ND / processes.world_size, gradient_VD.shape)


def _padded(tensor: Tensor, length: int) -> Tensor:
    """`tensor` with zeros after it, up to `length` rows."""
    return torch.cat([tensor, tensor.new_zeros(length - len(tensor), *tensor.shape[1:])])
