"""Windows of a stream of tokens as tensors, by the number of the batch or many batches at once.

Axis letters: B batch, T context_length.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tokenspace.corpus.format import gather_windows
from tokenspace.errors import SettingError
from tokenspace.positions import Layout
from tokenspace.windows import Share, WindowOrder

# What is done at once: enough to hide the cost of a call, little enough to stay in the cache.
_CHUNK_TOKENS = 1 << 18  # gathered
_ORDER_WINDOWS = 1 << 14  # permuted

Batch = tuple[Tensor, ...]


class DocumentBatch(NamedTuple):
    """A batch that tells documents apart, so that none attends to another.

    Attributes:
        inputs: int64, (B, T).
        targets: int64, (B, T); where a document ends, the first token of the next one.
        positions: int64, (B, T); they restart where a document begins, and begin with 0 in each row.
        documents: int64, (B, T); counted from 0 in each row.
    """

    inputs: Tensor
    targets: Tensor
    positions: Tensor
    documents: Tensor

    def layout(self) -> Layout:
        """What position schemes and attention read: block-diagonal, each document for itself."""
        last = int(self.positions.max())
        return Layout(self.positions, self.positions, last, last, self.documents, self.documents, consecutive=True)

    def cu_seqlens(self) -> tuple[Tensor, int]:
        """For attention over sequences of different lengths, the rows one after another.

        Returns:
            Where each document begins, and at the end B·T: int32, (documents + 1,); and the longest one's length.

        Example:
            >>> ids, positions = torch.zeros(1, 5, dtype=torch.long), torch.tensor([[0, 1, 0, 1, 2]])
            >>> DocumentBatch(ids, ids, positions, torch.tensor([[0, 0, 1, 1, 1]])).cu_seqlens()
            (tensor([0, 2, 5], dtype=torch.int32), 3)
        """
        begins = (self.positions.flatten() == 0).nonzero().flatten()
        ends = torch.cat([begins, begins.new_tensor([self.positions.numel()])])
        return ends.to(torch.int32), int(ends.diff().max())


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


class Order(Protocol):
    """Where the windows of an epoch begin, by their place: a `WindowStarts` or a `MixtureOrder`."""

    def starts(self, places: np.ndarray) -> np.ndarray:
        """In tokens, int64."""


@dataclass(frozen=True)
class WindowStarts:
    """Where the windows of one stream begin.

    Attributes:
        order: Of the windows.
        stride: Tokens between the starts of two windows.
    """

    order: WindowOrder
    stride: int

    def starts(self, places: np.ndarray) -> np.ndarray:
        """In tokens, int64."""
        return self.order.windows(places) * self.stride


@dataclass(frozen=True)
class EpochBatches(Dataset):
    """The batches of one rank in one epoch, by number; what worker processes are given.

    Attributes:
        tokens: The stream.
        order: Where its windows begin.
        share: What this rank takes of the order.
        context_length: T.
        documents: Whether a batch tells documents apart, as `DocumentBatch` does.
    """

    tokens: TokenSource
    order: Order
    share: Share
    context_length: int
    documents: bool = False

    def __len__(self) -> int:
        return self.share.num_batches

    def __getitem__(self, batch: int) -> tuple[Tensor, ...]:
        return self._gather(self.order.starts(self.share.places(batch, batch + 1)))

    def chunks(self) -> Iterator[tuple[Tensor, ...]]:
        """All batches in order, many of them one under another: int64, (n·B, T)."""
        batch_size = self.share.batch_size
        rows = max(1, _CHUNK_TOKENS // (batch_size * self.context_length)) * batch_size
        step = max(1, _ORDER_WINDOWS // batch_size)
        for first in range(0, len(self), step):
            starts = self.order.starts(self.share.places(first, min(first + step, len(self))))
            for row in range(0, len(starts), rows):
                yield self._gather(starts[row : row + rows])

    def _gather(self, starts: np.ndarray) -> tuple[Tensor, ...]:
        ids = self.tokens.gather(starts, self.context_length + 1)
        batch = as_int64(ids[:, :-1]), as_int64(ids[:, 1:])
        if not self.documents:
            return batch
        return DocumentBatch(
            *batch, *_positions_and_documents(self.tokens.document_starts(starts, self.context_length))
        )


def _positions_and_documents(begins_BT: np.ndarray) -> tuple[Tensor, Tensor]:
    """Positions that restart where documents begin, and documents counted from 0 in each row."""
    begins_BT[:, 0] = True
    places = np.arange(begins_BT.shape[1])
    since = np.maximum.accumulate(np.where(begins_BT, places, 0), axis=1)
    return torch.from_numpy(places - since), torch.from_numpy(np.cumsum(begins_BT, axis=1, dtype=np.int64) - 1)


def as_int64(ids: np.ndarray) -> Tensor:
    """The same ids as a tensor, contiguous and int64.

    By numpy: a copy by torch would start a team of OpenMP threads in the thread that gathers,
    and while those spin the consumer's own torch work takes half as long again.
    """
    return torch.from_numpy(ids.astype(np.int64, order="C"))
