"""Several streams of tokens in one, each with a weight, in an order that depends on the sample's number alone.

Samples come in periods. In each period every stream has its share of the places, in a keyed
order; which window of the stream a place is follows from how many it had before. So any
sample is found in O(1), and long runs hold the weights exactly.

Axis letters: N samples, M streams.
"""

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tokenspace.errors import SettingError, check_at_least
from tokenspace.loader.batches import TokenSource
from tokenspace.windows import KeyedPermutation, WindowOrder, mix_key, num_windows

_LEAST_PERIOD, _MOST_PERIOD = 1 << 10, 1 << 16


class Mixture:
    """Several `TokenSource` as one; a `WindowLoader` reads it.

    An epoch is as long as it takes to see the first stream whole, to within a part of a period; the
    next one goes on where it ended. Each stream begins anew, in another order, when it comes to its end.

    Args:
        parts: Streams and their weights, which need not sum to 1. Corpora must share one tokenizer.

    Raises:
        SettingError: there is no stream, a weight is not above 0 or too small beside the others, or
            two corpora were made with different tokenizers.

    Example:
        >>> from tokenspace.loader import TokenArray, WindowLoader
        >>> mixture = Mixture([(TokenArray(np.arange(1000)), 0.75), (TokenArray(np.arange(5000, 9000)), 0.25)])
        >>> loader = WindowLoader(mixture, batch_size=100, context_length=4, stride=4, seed=0)
        >>> inputs, _ = next(iter(loader))
        >>> int((inputs >= 5000).sum()) // 4
        25
    """

    def __init__(self, parts: Sequence[tuple[TokenSource, float]]) -> None:
        if not parts:
            raise SettingError("parts", "hold at least one stream", "empty", "Give (corpus, weight) pairs")
        self.parts = tuple(source for source, _ in parts)
        weights = [weight for _, weight in parts]
        for weight in weights:
            if not 0 < weight < math.inf:
                raise SettingError("weight", "be a number above 0", weight, "Leave out what should not be seen")
        self.shares = _shares(weights)
        self._check_tokenizers()
        self._bounds = np.cumsum([0, *(source.num_tokens for source in self.parts)])
        self.num_tokens = int(self._bounds[-1])
        self.max_id = max(source.max_id for source in self.parts)
        identities = [f"{source.identity}*{share}" for source, share in zip(self.parts, self.shares, strict=True)]
        self.identity = hashlib.sha256(" ".join(identities).encode()).hexdigest()

    def num_windows(self, context_length: int, stride: int) -> int:
        """Samples of an epoch."""
        counts = self.windows_of_parts(context_length, stride)
        period = sum(self.shares)
        return min(count * period // share for count, share in zip(counts, self.shares, strict=True))

    def windows_of_parts(self, context_length: int, stride: int) -> list[int]:
        """Windows of each stream."""
        return [num_windows(source.num_tokens, context_length, stride) for source in self.parts]

    def order(self, context_length: int, stride: int, *, shuffle: bool, seed: int, epoch: int) -> "MixtureOrder":
        """The order of the samples of one epoch."""
        return MixtureOrder(
            shares=self.shares,
            windows=tuple(self.windows_of_parts(context_length, stride)),
            begins=tuple(self._bounds[:-1].tolist()),
            stride=stride,
            shuffle=shuffle,
            seed=seed,
            before=epoch * self.num_windows(context_length, stride),
        )

    def gather(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Windows of `length` ids that begin at `starts`, as if the streams stood one after another."""
        return self._of_parts("gather", starts, length)

    def document_starts(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Whether a document begins at each id of some windows; see `Corpus.document_starts`."""
        return self._of_parts("document_starts", starts, length)

    def _of_parts(self, question: str, starts: np.ndarray, length: int) -> np.ndarray:
        part = np.searchsorted(self._bounds, starts, "right") - 1
        answers: np.ndarray | None = None
        for number in np.unique(part).tolist():
            mine = part == number
            answer = getattr(self.parts[number], question)(starts[mine] - self._bounds[number], length)
            if answers is None:
                answers = np.empty((len(starts), length), answer.dtype)
            answers = answers.astype(np.promote_types(answers.dtype, answer.dtype), copy=False)
            answers[mine] = answer
        return answers if answers is not None else np.empty((0, length), np.uint16)

    def _check_tokenizers(self) -> None:
        stamps = [source.manifest.tokenizer for source in self.parts if hasattr(source, "manifest")]
        for stamp in stamps[1:]:
            if stamp.identity != stamps[0].identity:
                rule = f"be made with one tokenizer, {stamps[0].name} ({stamps[0].identity[:12]})"
                found = f"made with {stamp.name} ({stamp.identity[:12]}) too"
                raise SettingError("parts", rule, found, "Build the corpora with the same tokenizer")


@dataclass(frozen=True, kw_only=True)
class MixtureOrder:
    """Where the samples of a mixture begin, by their place in an epoch.

    Attributes:
        shares: Places of each stream in a period.
        windows: Windows of each stream.
        begins: Where each stream begins, in tokens.
        stride: Tokens between the starts of two windows.
        shuffle: Whether periods, and the windows of each stream, come in a keyed order.
        seed: Of the keyed orders.
        before: Samples before this epoch.
    """

    shares: tuple[int, ...]
    windows: tuple[int, ...]
    begins: tuple[int, ...]
    stride: int
    shuffle: bool
    seed: int
    before: int

    def starts(self, places: np.ndarray) -> np.ndarray:
        """Where the windows at these places begin, in tokens, int64."""
        period = sum(self.shares)
        round_N, slot_N = np.divmod(places + self.before, period)
        slot_N = self._slots(round_N, slot_N, period)
        bounds = np.cumsum([0, *self.shares])
        part_N = np.searchsorted(bounds, slot_N, "right") - 1
        starts = np.empty(len(places), np.int64)
        for part in np.unique(part_N).tolist():
            mine = part_N == part
            sample = round_N[mine] * self.shares[part] + slot_N[mine] - bounds[part]
            starts[mine] = self.begins[part] + self.stride * self._windows_of(part, sample)
        return starts

    def _slots(self, round_N: np.ndarray, slot_N: np.ndarray, period: int) -> np.ndarray:
        """The places of a period, spread: each stream's own are spaced evenly, or in a keyed order."""
        spread = _evenly(self.shares)
        if not self.shuffle:
            return spread[slot_N]
        mixed = np.empty_like(slot_N)
        for number in np.unique(round_N).tolist():
            mine = round_N == number
            mixed[mine] = KeyedPermutation(period, mix_key(self.seed, number))(slot_N[mine])
        return mixed

    def _windows_of(self, part: int, sample: np.ndarray) -> np.ndarray:
        epoch_N, place_N = np.divmod(sample, self.windows[part])
        found = np.empty_like(sample)
        for epoch in np.unique(epoch_N).tolist():
            mine = epoch_N == epoch
            order = WindowOrder(
                num_windows=self.windows[part], shuffle=self.shuffle, seed=mix_key(self.seed, -1 - part), epoch=epoch
            )
            found[mine] = order.windows(place_N[mine])
        return found


def _shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Whole numbers in the proportions of the weights: exactly where a period of 65,536 allows it, else nearly."""
    total = sum(Fraction(weight).limit_denominator(10**9) for weight in weights)
    exact = [Fraction(weight).limit_denominator(10**9) / total for weight in weights]
    period = math.lcm(*(fraction.denominator for fraction in exact))
    if period <= _MOST_PERIOD:
        period *= -(-_LEAST_PERIOD // period)
        return tuple(int(fraction * period) for fraction in exact)
    bounds = [round(sum(exact[:number]) * _MOST_PERIOD) for number in range(len(exact) + 1)]
    shares = [after - before for before, after in itertools.pairwise(bounds)]
    check_at_least(1, **{f"weight {number}, times {_MOST_PERIOD:,} over all": s for number, s in enumerate(shares)})
    return tuple(shares)


def _evenly(shares: tuple[int, ...]) -> np.ndarray:
    """The slots of a period, numbered stream by stream, in an order that spaces each stream's evenly."""
    places = np.concatenate([(np.arange(share) + 0.5) / share for share in shares])
    return np.argsort(places, kind="stable")
