"""Which tokens window i holds, and in which order windows come: index arithmetic, no tokens.

Window ``i`` holds tokens ``[i * stride, i * stride + context_length]``: its inputs are all
but the last of them, its targets all but the first. A shuffled order is a keyed
permutation computed index by index, so no list of windows is ever held, and the whole
state of an epoch is one number: the windows consumed so far by all ranks together.
"""

from dataclasses import dataclass

import numpy as np

from tokenspace.errors import SettingError, check_at_least

_ROUNDS = 8
_FEWEST_BITS = 6  # Feistel halves of one or two bits mix badly; small sets walk through a larger one
_MOST_BITS = 62
_MASK_64 = (1 << 64) - 1

BLOCKS_TOGETHER = 16
"""Blocks whose windows are shuffled among themselves, and which a reader should hold at once."""


def num_windows(num_tokens: int, context_length: int, stride: int) -> int:
    """How many windows a stream of tokens has: those i with i * stride < num_tokens - context_length.

    Raises:
        SettingError: `context_length` or `stride` is below 1.

    Example:
        >>> num_windows(10, context_length=4, stride=2)
        3
    """
    check_at_least(1, context_length=context_length, stride=stride)
    return max(0, -(-(num_tokens - context_length) // stride))


class KeyedPermutation:
    """A bijection of 0 … size - 1 that a key chooses, computed for the indices asked for.

    A Feistel network of 8 rounds over the next power of two, its halves mixed by MurmurHash3's
    32-bit finaliser; what falls outside is sent through again until it falls inside
    (cycle walking: Black & Rogaway 2002, section 4). Not meant to keep secrets.

    Args:
        size: How many indices there are; up to 2**62.
        key: Any whole number; the same key gives the same order on every machine.

    Raises:
        SettingError: `size` is below 1 or above 2**62.

    Example:
        >>> KeyedPermutation(6, key=1)(np.arange(6)).tolist()
        [3, 4, 2, 5, 1, 0]
    """

    def __init__(self, size: int, key: int) -> None:
        check_at_least(1, size=size)
        bits = max(_FEWEST_BITS, (size - 1).bit_length())
        if bits > _MOST_BITS:
            raise SettingError("size", f"be at most 2**{_MOST_BITS}", size, "Split the corpus")
        self.size = size
        self._low_bits, self._high_bits = bits // 2, bits - bits // 2
        self._keys = [np.uint32(_mix_64(key + number * 0x9E3779B97F4A7C15) >> 32) for number in range(1, _ROUNDS + 1)]

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        """Where each index goes: int64 in, int64 out, same shape."""
        out = self._permute(indices.astype(np.uint64))
        outside = np.flatnonzero(out >= self.size)
        while len(outside):
            walked = self._permute(out[outside])
            out[outside] = walked
            outside = outside[walked >= self.size]
        return out.astype(np.int64)

    def _permute(self, indices: np.ndarray) -> np.ndarray:
        """One pass of the network over uint64 indices below 2**bits."""
        low_bits, high_bits = self._low_bits, self._high_bits
        low = (indices & np.uint64((1 << low_bits) - 1)).astype(np.uint32)
        high = (indices >> np.uint64(low_bits)).astype(np.uint32)
        for key in self._keys:
            high ^= _mix_32(low, key)
            high &= np.uint32((1 << high_bits) - 1)
            low, high, low_bits, high_bits = high, low, high_bits, low_bits
        assert low_bits == self._low_bits  # an even number of rounds: the halves have their widths back
        return (high.astype(np.uint64) << np.uint64(low_bits)) | low


def _mix_32(values: np.ndarray, key: np.uint32) -> np.ndarray:
    mixed = values ^ key
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed


def mix_key(key: int, number: int) -> int:
    """Another key for each number, from 0 to 2**64 - 1."""
    return _mix_64(_mix_64(key) + number * 0x9E3779B97F4A7C15)


def _mix_64(value: int) -> int:
    """The finaliser of SplitMix64 (Steele et al. 2014)."""
    value &= _MASK_64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK_64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK_64
    return value ^ (value >> 31)


@dataclass(frozen=True, kw_only=True)
class WindowOrder:
    """The order of all windows in one epoch, the same for every number of ranks and batch size.

    Attributes:
        num_windows: How many there are.
        shuffle: Whether they come in a keyed order or as they stand.
        seed: Of the keyed order.
        epoch: Each has an order of its own.
        streams: Above 1, and unshuffled: the windows are cut into so many runs of neighbours, and the
            order takes one of each run in turn; windows left over are not in it.
        block_windows: Above 1, and shuffled: windows are read by blocks of so many neighbours; some
            blocks at a time, taken in a keyed order, are shuffled among themselves.
    """

    num_windows: int
    shuffle: bool
    seed: int
    epoch: int
    streams: int = 1
    block_windows: int = 1

    def windows(self, places: np.ndarray) -> np.ndarray:
        """The windows at these places of the order, int64."""
        if not self.shuffle:
            return places % self.streams * (self.num_windows // self.streams) + places // self.streams
        key = _mix_64(self.seed) + self.epoch  # as it has been from the first version on
        if self.block_windows == 1:
            return KeyedPermutation(self.num_windows, key)(places)
        return self._windows_by_blocks(places, key)

    def _windows_by_blocks(self, places: np.ndarray, key: int) -> np.ndarray:
        """Whole blocks in a keyed order, so many at a time shuffled window by window; then what is left over."""
        num_blocks, left = divmod(self.num_windows, self.block_windows)
        whole = self.num_windows - left
        windows = np.empty(len(places), np.int64)
        group_windows = self.block_windows * BLOCKS_TOGETHER
        groups = np.where(places < whole, places // group_windows, -1)
        for group in np.unique(groups).tolist():
            mine = groups == group
            if group < 0:
                windows[mine] = whole + KeyedPermutation(left, mix_key(key, -1))(places[mine] - whole)
                continue
            first_block = group * BLOCKS_TOGETHER
            here = min(BLOCKS_TOGETHER, num_blocks - first_block) * self.block_windows
            mixed = KeyedPermutation(here, mix_key(key, group))(places[mine] - group * group_windows)
            blocks = KeyedPermutation(num_blocks, key)(first_block + mixed // self.block_windows)
            windows[mine] = blocks * self.block_windows + mixed % self.block_windows
        return windows


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one rank takes of the places `start` … `stop` - 1 of an order.

    At each step the ranks together take the next ``batch_size * world_size`` places, and rank r
    every world_size-th of them, from the r-th. Without `drop_last` the last batches of two
    ranks may differ by one window, and a rank may be left without any.

    Attributes:
        start: Places that were consumed before.
        stop: Places in the epoch.
        batch_size: Windows of one rank's batch.
        rank: 0 … world_size - 1.
        world_size: Ranks in all.
        drop_last: Leave out a step for which not all ranks have a full batch.
    """

    start: int
    stop: int
    batch_size: int
    rank: int = 0
    world_size: int = 1
    drop_last: bool = True

    @property
    def num_batches(self) -> int:
        """Batches of this rank."""
        full, rest = divmod(self.stop - self.start, self.batch_size * self.world_size)
        return full + (not self.drop_last and rest > self.rank)

    def places(self, first: int, last: int) -> np.ndarray:
        """The places of the batches `first` … `last` - 1, one batch after another; int64."""
        return np.arange(self.consumed(first) + self.rank, self.consumed(last), self.world_size, dtype=np.int64)

    def consumed(self, batches: int) -> int:
        """Places that all ranks have consumed after so many batches."""
        return min(self.start + batches * self.batch_size * self.world_size, self.stop)
