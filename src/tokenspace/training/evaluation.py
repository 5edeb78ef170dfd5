"""Which validation windows are evaluated together, and in which order.

Axis letters: N batches, B rows, T context_length.
"""

import numpy as np


def evaluation_batches(
    num_tokens: int, context_length: int, batch_size: int, most_tokens: int | None, has_memory: bool
) -> list[np.ndarray]:
    """Starts of windows that cover the validation tokens once, or some of them.

    Args:
        num_tokens: Of the validation part.
        context_length: Tokens of a window, T.
        batch_size: Most rows of a batch.
        most_tokens: About so many tokens; None for all.
        has_memory: Whether row r of a batch must go on where row r of the batch before ended. Then
            some tokens are the first ones; else they are spread evenly.

    Returns:
        Runs of batches, int64, (N, B); memory is empty at the start of each run.

    Example:
        >>> for run in evaluation_batches(11, 2, 2, None, has_memory=True):
        ...     print(run.tolist())
        [[0, 4], [2, 6]]
        [[8]]
    """
    starts = np.arange(0, num_tokens - context_length, context_length)
    number = len(starts) if most_tokens is None else min(len(starts), max(1, most_tokens // context_length))
    starts = starts[:number] if has_memory else starts[np.linspace(0, len(starts) - 1, number).astype(np.int64)]
    full = number // batch_size * batch_size
    if has_memory:
        runs = [starts[:full].reshape(batch_size, -1).T, starts[full:].reshape(-1, 1)]
    else:
        runs = [starts[:full].reshape(-1, batch_size), starts[full:].reshape(1, -1)]
    return [run for run in runs if run.size]
