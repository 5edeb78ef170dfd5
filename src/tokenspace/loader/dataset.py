"""Windows by number, for torch's own loaders and samplers.

`WindowLoader` is quicker, and resumes by itself; this is for code that is built around
``torch.utils.data.DataLoader`` or torchdata's ``StatefulDataLoader``, which do the batching.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from tokenspace.errors import SettingError
from tokenspace.loader.batches import TokenSource, as_int64
from tokenspace.windows import WindowOrder, num_windows


class WindowDataset(Dataset):
    """A map-style dataset: window i as (inputs, targets), int64 (T,) each.

    Args:
        tokens: A `Corpus`, a `TokenArray` or another `TokenSource`.
        context_length: Tokens of a window's inputs, T.
        stride: Tokens between the starts of two windows.
        shuffle: Number the windows in a keyed order, which costs no memory, where a sampler's list of
            indices would grow with the corpus.
        seed: Of that order.

    Raises:
        SettingError: a size is out of range, or the stream is shorter than one window.

    Example:
        >>> from tokenspace.loader import TokenArray
        >>> dataset = WindowDataset(TokenArray(np.arange(9)), context_length=4, stride=2)
        >>> len(dataset), dataset[1]
        (3, (tensor([2, 3, 4, 5]), tensor([3, 4, 5, 6])))
    """

    def __init__(
        self, tokens: TokenSource, context_length: int, stride: int, *, shuffle: bool = False, seed: int = 0
    ) -> None:
        self.tokens, self.context_length, self.stride = tokens, context_length, stride
        number = num_windows(tokens.num_tokens, context_length, stride)
        if not number:
            rule = f"have more than {context_length} tokens"
            raise SettingError("text", rule, tokens.num_tokens, "Give a longer text, or shorter windows")
        self._order = WindowOrder(num_windows=number, shuffle=shuffle, seed=seed, epoch=0)

    def __len__(self) -> int:
        return self._order.num_windows

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # what ends a plain `for`
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Many at once, as torch's fetcher asks for the windows of a batch."""
        places = np.asarray(indices, np.int64) % len(self)
        ids = self.tokens.gather(self._order.windows(places) * self.stride, self.context_length + 1)
        return list(zip(as_int64(ids[:, :-1]), as_int64(ids[:, 1:]), strict=True))
