"""Which documents are for validation.

Of at most 16 Mi tokens in a million pieces the choice is exact: whole documents in the order of their seeded hash
until the fraction is reached, never more than twice the fraction nor half of all tokens. Of
more, each document goes by its own hash, whatever else there is, and those of more than 1 Mi
characters train. Documents that are alike stay on one side. Of a text in several tasks each
document goes by its own hash too, so that no task needs to know of another.

Where whole documents give nothing (there is one, or they are too long or too short to come
near the fraction), the last tokens of the stream are taken, though it cuts a document in two:
the fraction of all, but of a long stream at most the million or so that are held back for it.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from tokenspace.corpus.encoding import Encoded

_EXACT_TOKENS = 16 << 20
_EXACT_PIECES = 1 << 20
TAIL_TOKENS = 1 << 20  # always held back, should the last tokens be needed


def split_stream(batches: Iterable[Encoded], fraction: float) -> Iterator[tuple[Encoded, bool]]:
    """Part batches into those that train (False) and those that validate (True), in order.

    Args:
        batches: Ids with the keys of their documents.
        fraction: Share of the tokens for validation, from 0 to 0.5; 0 gives none.
    """
    held: deque[Encoded] = deque()
    exact, drawn, num_tokens, num_pieces, num_held = fraction > 0, False, 0, 0, 0
    for batch in batches:
        held.append(batch)
        num_tokens += len(batch.ids)
        num_held += len(batch.ids)
        num_pieces += len(batch.lengths)
        exact = exact and num_tokens <= _EXACT_TOKENS and num_pieces <= _EXACT_PIECES
        while not exact and num_held - len(held[0].ids) >= TAIL_TOKENS:
            ready = held.popleft()
            num_held -= len(ready.ids)
            chosen = _by_hash(ready, fraction)
            drawn |= bool(chosen.any())
            yield from _parted(ready, chosen)
    if not held:
        return
    rest = Encoded.join(held)
    chosen = choose_documents(rest, fraction) if exact else _by_hash(rest, fraction)
    if drawn or chosen.any() or not fraction:
        yield from _parted(rest, chosen)
    else:
        yield from _cut_tail(rest, round(fraction * num_tokens))


def split_by_hash(batches: Iterable[Encoded], fraction: float) -> Iterator[tuple[Encoded, bool]]:
    """The same for a part of a text: each document by its own hash, and nothing held back."""
    for batch in batches:
        yield from _parted(batch, _by_hash(batch, fraction))


def choose_documents(batch: Encoded, fraction: float) -> np.ndarray:
    """An exact choice among whole documents.

    Returns:
        Whether each piece validates, bool; nowhere, if less than half of `fraction` can be had.
    """
    begins = np.concatenate([[0], np.flatnonzero(batch.ends)[:-1] + 1])
    document_of_piece = np.cumsum(batch.ends) - batch.ends
    _, alike = np.unique(batch.keys[begins], return_inverse=True)  # numbered in the order of their keys
    sizes = np.zeros(alike.max() + 1, np.int64)
    np.add.at(sizes, alike[document_of_piece], batch.lengths)
    wanted, taken, chosen = fraction * len(batch.ids), 0, []
    most = min(2 * wanted, len(batch.ids) / 2)
    for group, size in enumerate(sizes):
        if taken < wanted and taken + size <= most:
            chosen.append(group)
            taken += int(size)
    if taken < wanted / 2:
        chosen = []
    return np.isin(alike, chosen)[document_of_piece]


def _by_hash(batch: Encoded, fraction: float) -> np.ndarray:
    return batch.short & (batch.keys < fraction * 2.0**64)


def _parted(batch: Encoded, chosen: np.ndarray) -> Iterator[tuple[Encoded, bool]]:
    for validates in (False, True):
        if (chosen == validates).any():
            yield batch.take(chosen == validates), validates


def _cut_tail(batch: Encoded, num_tokens: int) -> Iterator[tuple[Encoded, bool]]:
    if len(batch.ids) < 2:  # nothing to cut
        yield batch, False
        return
    cut = len(batch.ids) - min(max(1, num_tokens), len(batch.ids) - 1)
    bounds, piece = np.cumsum(batch.lengths), np.arange(len(batch.lengths))
    last = int(np.searchsorted(bounds, cut))  # the piece in which, or at whose end, the cut lies
    over = int(bounds[last]) - cut
    head, tail = batch.take(piece <= last), batch.take(piece >= last if over else piece > last)
    head_lengths, head_ends, tail_lengths = head.lengths.copy(), head.ends.copy(), tail.lengths.copy()
    head_lengths[-1] -= over
    head_ends[-1] = True
    tail_lengths[0] = over or tail_lengths[0]
    yield replace(head, ids=batch.ids[:cut], lengths=head_lengths, ends=head_ends), False
    yield replace(tail, ids=batch.ids[cut:], lengths=tail_lengths), True
