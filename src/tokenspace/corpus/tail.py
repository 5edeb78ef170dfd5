"""Validation out of the end of a shard, where no document could be drawn for it.

So it is with a text in a few long documents: all of them train. The last tokens of the last shard
that is long enough become the validation part, though that cuts a document in two. The shard itself
stays as it is; a copy of its head takes its place.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from tokenspace.corpus.encoding import Encoded
from tokenspace.corpus.format import document_bounds
from tokenspace.corpus.manifest import Shard, Split
from tokenspace.corpus.origins import read_origins
from tokenspace.corpus.split import TAIL_TOKENS
from tokenspace.corpus.task import new_attempt
from tokenspace.corpus.writer import SplitWriter, Target, hidden_name
from tokenspace.store import Store

_CHUNK_TOKENS = 1 << 20
_SUFFIXES = (".bin", ".idx", ".origins")


def cut_tail(store: Store, splits: dict[str, Split], dtype: np.dtype, fraction: float) -> dict[str, Split]:
    """Splits with a validation part, if there are two tokens at least.

    Args:
        store: Where the shards are; it gets two more.
        splits: "train" alone.
        dtype: Of the ids.
        fraction: Of all tokens that validate, a million at most.
    """
    if "train" not in splits:
        return splits
    train = splits["train"]
    wanted = min(max(1, round(fraction * train.num_tokens)), TAIL_TOKENS)
    sizes = [shard.num_tokens for shard in train.shards]
    long_enough = [nth for nth, size in enumerate(sizes) if size > wanted]
    nth = long_enough[-1] if long_enough else int(np.argmax(sizes))
    if sizes[nth] < 2:
        return splits
    attempt = new_attempt()
    head, tail = cut_shard(store, train.shards[nth], dtype, min(wanted, sizes[nth] - 1), attempt=attempt)
    for name in (*head.shards[0].files, *tail.shards[0].files):
        store.rename(hidden_name(name, attempt), name)
    after = train.shards[nth + 1 :]
    if after:  # what goes on there no longer follows what it went on from
        after = (replace(after[0], continues=False), *after[1:])
    shards = (*train.shards[:nth], head.shards[0], *after)
    return {"train": Split.of(shards, train.max_id), "validation": tail}


def cut_shard(
    store: Store, shard: Shard, dtype: np.dtype, num_tokens: int, *, attempt: str, read_as: str | None = None
) -> tuple[Split, Split]:
    """Write a shard anew in two: `NAME-head`, and a validation shard of its last tokens.

    Args:
        store: Where it is.
        shard: The shard.
        dtype: Of its ids.
        num_tokens: Of the validation shard.
        attempt: Under whose hidden names to write.
        read_as: Under whose hidden names the shard is found; None for its final ones.

    Returns:
        The head, and the validation part.
    """
    source = Target(store, partial(_constant, shard.name), shard.task, read_as)
    names = {"head": f"{shard.name}-head", "tail": shard.name.replace("train", "validation", 1)}
    cut = shard.num_tokens - num_tokens
    parts = {}
    for part, (start, stop) in {"head": (0, cut), "tail": (cut, shard.num_tokens)}.items():
        name = names[part]
        target = Target(store, partial(_constant, name), shard.task, attempt)
        writer = SplitWriter(target, dtype, shard.bin_bytes, continues=shard.continues and part == "head")
        try:
            for batch in _batches(source, shard, dtype, start, stop):
                writer.append(batch)
            parts[part] = writer.close()
        except BaseException:
            writer.abandon()
            raise
    return parts["head"], parts["tail"]


def _constant(name: str, nth: int) -> str:
    assert nth == 0  # a part of a shard is no larger than the shard
    return name


def _batches(source: Target, shard: Shard, dtype: np.dtype, start: int, stop: int) -> Iterator[Encoded]:
    """The tokens from `start` to `stop`, with the documents that they belong to; each ends where they do."""
    store, names = source.store, {suffix: source.file_name(shard.name + suffix) for suffix in _SUFFIXES}
    bounds = document_bounds(store.read(names[".idx"]), shard.name)
    origins = read_origins(store.read(names[".origins"]))
    begins, ends = bounds[:-1], bounds[1:]
    first = min(np.searchsorted(ends, start, "right"), np.searchsorted(begins, start)) if start else 0
    until = len(ends) if stop == shard.num_tokens else np.searchsorted(begins, stop)
    ends = np.minimum(ends[first:until], stop)
    grid = np.arange(start, stop, _CHUNK_TOKENS)[1:]
    inside = grid[~np.isin(grid, ends)]  # of documents that are longer than a chunk
    cuts = np.concatenate([ends, inside])
    order = np.argsort(cuts, kind="stable")
    cuts, is_end = cuts[order], (np.arange(len(cuts)) < len(ends))[order]
    document = np.concatenate([np.arange(len(ends)), np.searchsorted(ends, inside)])[order] + first
    lengths = np.diff(cuts, prepend=start)
    groups = [0, *np.searchsorted(cuts, grid, "right"), len(cuts)]
    for low, high in itertools.pairwise(groups):
        begin, end = (start if low == 0 else int(cuts[low - 1])), int(cuts[high - 1])
        data = store.read_range(names[".bin"], begin * dtype.itemsize, end * dtype.itemsize)
        nothing = np.zeros(high - low, np.uint64)
        part = slice(low, high)
        yield Encoded(
            ids=np.frombuffer(data, dtype).astype(np.uint32),
            lengths=lengths[part],
            ends=is_end[part],
            keys=nothing,
            short=nothing.astype(bool),
            origins=origins[document[part]],
        )
