"""Windows of a stream of tokens as tensors, by the number of the batch or many batches at once.

Axis letters: B batch, T context_length.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tokenspace.corpus.format import gather_windows
from tokenspace.errors import SettingError
from tokenspace.windows import Share, WindowOrder

# What is done at once: enough to hide the cost of a call, little enough to stay in the cache.
_CHUNK_TOKENS = 1 << 18  # gathered
_ORDER_WINDOWS = 1 << 14  # permuted

Batch = tuple[Tensor, Tensor]


class TokenSource(Protocol):
    """A stream of token ids: a `Corpus` or a `TokenArray`."""

    num_tokens: int
    max_id: int
    identity: str

    def gather(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Windows of `length` ids that begin at `starts`, (len(starts), length)."""


class TokenArray:
    """Token ids in memory, as a `TokenSource`.

    Args:
        token_ids: One-dimensional array of whole numbers.

    Raises:
        SettingError: the array is of another kind.

    Example:
        >>> TokenArray(np.arange(5)).gather(np.array([0, 2]), 3).tolist()
        [[0, 1, 2], [2, 3, 4]]
    """

    def __init__(self, token_ids: np.ndarray) -> None:
        token_ids = np.asarray(token_ids)
        if token_ids.ndim != 1 or token_ids.dtype.kind not in "iu":
            found = f"{token_ids.ndim}-dimensional {token_ids.dtype}"
            raise SettingError("token_ids", "be one row of whole numbers", found, "Give what encode returns")
        self._ids = np.ascontiguousarray(token_ids)
        self.num_tokens = len(self._ids)
        self.max_id = int(self._ids.max(initial=0))
        self.identity = hashlib.sha256(self._ids.astype("<i8")).hexdigest()

    def gather(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Windows of `length` ids that begin at `starts`, (len(starts), length)."""
        return gather_windows(self._ids, starts, length)


@dataclass(frozen=True)
class EpochBatches(Dataset):
    """The batches of one rank in one epoch, by number; what worker processes are given.

    Attributes:
        tokens: The stream.
        order: Of the windows.
        share: What this rank takes of the order.
        context_length: T.
        stride: Tokens between the starts of two windows.
    """

    tokens: TokenSource
    order: WindowOrder
    share: Share
    context_length: int
    stride: int

    def __len__(self) -> int:
        return self.share.num_batches

    def __getitem__(self, batch: int) -> Batch:
        return self._gather(self.order.windows(self.share.places(batch, batch + 1)))

    def chunks(self) -> Iterator[Batch]:
        """All batches in order, many of them one under another: int64, (n·B, T)."""
        batch_size = self.share.batch_size
        rows = max(1, _CHUNK_TOKENS // (batch_size * self.context_length)) * batch_size
        step = max(1, _ORDER_WINDOWS // batch_size)
        for first in range(0, len(self), step):
            windows = self.order.windows(self.share.places(first, min(first + step, len(self))))
            for row in range(0, len(windows), rows):
                yield self._gather(windows[row : row + rows])

    def _gather(self, windows: np.ndarray) -> Batch:
        ids = self.tokens.gather(windows * self.stride, self.context_length + 1)
        return _as_int64(ids[:, :-1]), _as_int64(ids[:, 1:])


def _as_int64(ids: np.ndarray) -> Tensor:
    """The same ids as a tensor, contiguous and int64.

    By numpy: a copy by torch would start a team of OpenMP threads in the thread that gathers,
    and while those spin the consumer's own torch work takes half as long again.
    """
    return torch.from_numpy(ids.astype(np.int64, order="C"))
