"""Segment recurrence: the hidden states of the segments before, which attention may look back on.

Each layer keeps the vectors that it read, without gradient; at the next segment they become
keys and values before its own. The longest way back is the memory's length times the
number of layers.

Source: Dai et al. 2019, "Transformer-XL", section 3.2 (arXiv:1901.02860). Axis letters:
B batch, M memory length, T length, D d_model.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenspace.errors import SettingError, ShapeError, check_at_least


class SegmentMemory:
    """The last `capacity` vectors that each layer read.

    Args:
        capacity: Vectors a row, M.

    Attributes:
        length: Vectors a row that it holds now.

    Raises:
        SettingError: `capacity` is below 1.

    Example:
        >>> memory = SegmentMemory(capacity=3)
        >>> for segment in torch.zeros(2, 1, 2, 8):
        ...     memory.keep([segment])
        >>> memory.read(0).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, capacity: int) -> None:
        check_at_least(1, capacity=capacity)
        self.capacity = capacity
        self._layers: list[Tensor] = []

    @property
    def length(self) -> int:
        """Vectors a row that it holds now."""
        return self._layers[0].shape[1] if self._layers else 0

    def read(self, layer: int) -> Tensor | None:
        """What a layer kept, (B, length, D); None where it kept nothing."""
        return self._layers[layer] if layer < len(self._layers) else None

    def keep(self, read_BTD: Sequence[Tensor]) -> None:
        """Add what the layers have read; the oldest beyond the capacity goes."""
        kept = [self._layers[layer : layer + 1] for layer in range(len(read_BTD))]
        both = [torch.cat([*old, new.detach()], dim=1) for old, new in zip(kept, read_BTD, strict=True)]
        length = both[0].shape[1]
        # not a slice: its strides would tie a compiled graph to the memories that are full, or to those that are not
        last = torch.arange(max(0, length - self.capacity), length, device=both[0].device)
        self._layers = [vectors.index_select(1, last) for vectors in both]

    def clear(self) -> None:
        """Forget everything: the next segment is a beginning."""
        self._layers.clear()

    def check_rows(self, rows: int) -> None:
        """Refuse a batch of other rows than those remembered.

        Raises:
            ShapeError: names both numbers.
        """
        if self._layers and self._layers[0].shape[0] != rows:
            remembered = self._layers[0].shape[0]
            raise ShapeError("token_ids", f"have the {remembered} rows of the memory", rows, "Clear the memory first")

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors, by layer."""
        return {str(layer): kept for layer, kept in enumerate(self._layers)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up the tensors of another memory.

        Raises:
            SettingError: they do not fit into the capacity.
        """
        longest = max((kept.shape[1] for kept in state.values()), default=0)
        if longest > self.capacity:
            raise SettingError("memory", f"hold at most {self.capacity} vectors", longest, "Use its own memory_length")
        self._layers = [state[str(layer)] for layer in range(len(state))]
