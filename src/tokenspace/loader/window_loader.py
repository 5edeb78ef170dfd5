"""Batches epoch after epoch, in an order that can be taken up again.

A thread gathers ahead of the consumer; what the loader counts is what was consumed. The
order itself is `tokenspace.windows`. Axis letters: B batch, T context_length.
"""

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from tokenspace.corpus import Corpus
from tokenspace.errors import SettingError, check_at_least
from tokenspace.loader.batches import Batch, DocumentBatch, EpochBatches, Order, TokenArray, TokenSource, WindowStarts
from tokenspace.loader.mixture import Mixture
from tokenspace.tokenizer import Tokenizer
from tokenspace.windows import Share, WindowOrder, num_windows


class WindowLoader:
    """Batches of (inputs, targets) from a stream of tokens, epoch after epoch.

    Each ``iter()`` begins the next epoch, whether the one before was finished or left; after
    `load_state_dict` the first one goes on within the epoch of the state. The order of the
    windows depends on seed and epoch alone, not on batch size, ranks or workers.

    Args:
        tokens: A `Corpus`, a `TokenArray` or another `TokenSource`.
        batch_size: Windows of a batch, B.
        context_length: Tokens of a window's inputs, T.
        stride: Tokens between the starts of two windows.
        shuffle: Whether the windows come in a keyed order.
        drop_last: Leave out a last batch that is not full.
        seed: Of the order; None draws one from torch's generator at the start of each epoch.
        rank: Of this process among `world_size`.
        world_size: Processes that share the windows.
        num_workers: Above 0, torch's ``DataLoader`` gathers the same batches in so many processes.
        block_windows: Above 1, windows are read by blocks of so many neighbours, 16 blocks in a keyed
            order being shuffled at a time: for stores where random reads are dear.
        documents: Yield a `DocumentBatch`, which tells the documents of a `Corpus` apart.
        contiguous: Row r of each batch goes on where row r of the batch before ended, as a model
            with memory wants it; unshuffled, with `stride` = `context_length` and full batches only.

    Raises:
        SettingError: a size is out of range, the stream is shorter than one window, `contiguous` is
            asked for with another stride or order, `documents` of a stream that knows none, or
            `block_windows` or `contiguous` of a `Mixture`.

    Example:
        >>> loader = WindowLoader(TokenArray(np.arange(9)), batch_size=2, context_length=4, stride=2, shuffle=False)
        >>> inputs, targets = next(iter(loader))
        >>> inputs.tolist(), targets.tolist()
        ([[0, 1, 2, 3], [2, 3, 4, 5]], [[1, 2, 3, 4], [3, 4, 5, 6]])
    """

    def __init__(
        self,
        tokens: TokenSource,
        batch_size: int,
        context_length: int,
        stride: int,
        *,
        shuffle: bool = True,
        drop_last: bool = True,
        seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        block_windows: int = 1,
        documents: bool = False,
        contiguous: bool = False,
    ) -> None:
        check_at_least(1, batch_size=batch_size, world_size=world_size, block_windows=block_windows)
        check_at_least(0, rank=rank, num_workers=num_workers)
        if rank >= world_size:
            raise SettingError("rank", f"be below world_size = {world_size}", rank, "Count ranks from 0")
        self.tokens = tokens
        self.batch_size = int(batch_size)  # numpy's numbers go neither into torch's split nor into a JSON state
        is_mixture = isinstance(tokens, Mixture)
        if is_mixture:
            self.num_windows = tokens.num_windows(context_length, stride)
        else:
            self.num_windows = int(num_windows(tokens.num_tokens, context_length, stride))
        self.context_length = int(context_length)
        self.stride = int(stride)
        if not self.num_windows:
            shorter = f", or windows below {tokens.num_tokens} tokens" if tokens.num_tokens > 1 else ""
            rule = f"have more than {context_length} tokens"
            raise SettingError("text", rule, tokens.num_tokens, f"Give a longer text{shorter}")
        if contiguous and (shuffle or not drop_last or stride != context_length):
            found = f"shuffle = {shuffle}, drop_last = {drop_last} and stride = {stride}"
            rule = f"be with shuffle = False, drop_last = True and stride = {context_length}"
            raise SettingError("contiguous", rule, found, "Set them so, or leave contiguous out")
        if is_mixture and (contiguous or block_windows > 1):
            name = "contiguous" if contiguous else "block_windows"
            raise SettingError(name, "be left out for a mixture", contiguous or block_windows, "Leave it out")
        if documents and not hasattr(tokens, "document_starts"):
            raise SettingError("documents", "be asked of a corpus", type(tokens).__name__, "Build a corpus first")
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.block_windows = int(block_windows) if shuffle else 1
        self.documents = documents
        self.streams = int(batch_size * world_size) if contiguous else 1
        self.seed = seed
        self.rank = rank
        self.world_size = int(world_size)
        self.num_workers = num_workers
        self._epoch = 0
        self._epoch_seed: int | None = None
        self._consumed = 0  # windows of this epoch, by all ranks
        self._goes_on = True  # the next iter() stays in this epoch
        self._counting: EpochBatches | None = None  # of the one iterator that moves the count

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch."""
        return self._share(0).num_batches

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the next epoch, or of the rest of a restored one."""
        rest = replace(self._share(self._consumed), rank=0)  # has a batch as long as any rank has
        if not self._goes_on or (self._consumed and not rest.num_batches):
            self._epoch, self._epoch_seed, self._consumed = self._epoch + 1, None, 0
        self._goes_on = False
        if self._epoch_seed is None:
            self._epoch_seed = self._draw_seed()
        batches = EpochBatches(
            self.tokens, self._order(self._epoch_seed), self._share(self._consumed), self.context_length, self.documents
        )
        self._counting = batches
        return self._counted(batches)

    @property
    def epoch(self) -> int:
        """Number of the epoch that the last ``iter()`` began, or that a restored state is in."""
        return self._epoch

    def state_dict(self) -> dict[str, Any]:
        """Where the consumer stands, in plain numbers; batches gathered ahead do not count."""
        return {**self._fixed(), "seed": self._epoch_seed, "epoch": self._epoch, "windows_consumed": self._consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at exactly the next window; batch size, ranks and workers may be others than before.

        Of a contiguous loader only the workers may: its rows are what the batches are made of.

        Raises:
            SettingError: the state belongs to other tokens, other windows or another seed.
        """
        fixed = self._fixed()
        if self.shuffle and self.seed is not None and state.get("seed") is not None:
            fixed["seed"] = self.seed  # else this epoch would go by one seed and the next by the other
        state = {"streams": 1, "block_windows": 1, **state}  # states of version 0.1.0 have none
        for name, value in fixed.items():
            if state.get(name) != value:
                next_step = "Restore it into a loader of the same tokens, windows and seed"
                raise SettingError(f"loader state {name!r}", f"be {value!r}", state.get(name), next_step)
        self._epoch, self._epoch_seed = state["epoch"], state["seed"]
        self._consumed, self._goes_on, self._counting = state["windows_consumed"], True, None

    def _fixed(self) -> dict[str, Any]:
        """What must be the same for a state to mean the same windows."""
        return {
            "tokens": self.tokens.identity,
            "context_length": self.context_length,
            "stride": self.stride,
            "num_windows": self.num_windows,  # the splits of a corpus have one identity
            "shuffle": self.shuffle,
            "streams": self.streams,
            "block_windows": self.block_windows,
        }

    def _order(self, seed: int) -> Order:
        if isinstance(self.tokens, Mixture):
            return self.tokens.order(
                self.context_length, self.stride, shuffle=self.shuffle, seed=seed, epoch=self._epoch
            )
        order = WindowOrder(
            num_windows=self.num_windows,
            shuffle=self.shuffle,
            seed=seed,
            epoch=self._epoch,
            streams=self.streams,
            block_windows=self.block_windows,
        )
        return WindowStarts(order, self.stride)

    def _share(self, start: int) -> Share:
        return Share(
            start=start,
            stop=self.num_windows // self.streams * self.streams,
            batch_size=self.batch_size,
            rank=self.rank,
            world_size=self.world_size,
            drop_last=self.drop_last,
        )

    def _draw_seed(self) -> int:
        if self.seed is not None or not self.shuffle:
            return int(self.seed or 0)
        return int(torch.empty((), dtype=torch.int64).random_())  # as torch's RandomSampler does

    def _counted(self, batches: EpochBatches) -> Iterator[Batch]:
        gathered = self._by_workers(batches) if self.num_workers else self._by_thread(batches)
        for number, batch in enumerate(gathered, start=1):
            if self._counting is batches:  # an iterator that was left behind no longer counts
                self._consumed = batches.share.consumed(number)
            yield batch

    def _by_thread(self, batches: EpochBatches) -> Iterator[Batch]:
        """One chunk of batches is consumed while the next is gathered."""
        chunks = batches.chunks()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="windows") as pool:
            ahead = pool.submit(next, chunks, None)
            while (chunk := ahead.result()) is not None:
                ahead = pool.submit(next, chunks, None)
                parts = zip(*(part.split(self.batch_size) for part in chunk), strict=True)
                yield from map(DocumentBatch._make, parts) if self.documents else parts

    def _by_workers(self, batches: EpochBatches) -> Iterator[Batch]:
        make = DocumentBatch._make if self.documents else tuple  # torch makes them lists
        return map(make, DataLoader(batches, batch_size=None, num_workers=self.num_workers))


def create_dataloader(
    text_or_corpus: str | Path | Corpus,
    batch_size: int = 4,
    max_length: int = 256,
    stride: int = 128,
    shuffle: bool = True,
    drop_last: bool = True,
    num_workers: int = 0,
    *,
    tokenizer: Tokenizer | None = None,
    seed: int | None = None,
    allowed_special: Collection[str] | str = (),
) -> WindowLoader:
    """Batches of (inputs, targets), int64 (batch_size, max_length), from a text or a corpus.

    Takes what ``create_dataloader_v1`` of *Build a Large Language Model (From Scratch)*,
    chapter 2, takes, and unshuffled gives the same tensors. No end-of-text is appended to a
    text, and one that stands in it is text unless `allowed_special` names it.

    Args:
        text_or_corpus: The text itself; or a corpus, open or as the `Path` of its folder.
        batch_size: Windows of a batch.
        max_length: Tokens of a window.
        stride: Tokens between the starts of two windows.
        shuffle: Whether the windows come in a random order.
        drop_last: Leave out a last batch that is not full.
        num_workers: Processes that gather; 0 for a thread.
        tokenizer: Of the text, None for GPT-2's; where given, a corpus must have been made with it.
        seed: Of the order; None draws one from torch's generator.
        allowed_special: Names of special tokens that are parsed in the text; "all" for every one.

    Raises:
        SettingError: a size is out of range, or the text is shorter than one window.
        CorpusError: the corpus is missing, damaged or made with another tokenizer.

    Example:
        >>> loader = create_dataloader("In the heart of the city stood the old library", 1, 4, 1, shuffle=False)
        >>> next(iter(loader))
        (tensor([[ 818,  262, 2612,  286]]), tensor([[ 262, 2612,  286,  262]]))
    """
    if isinstance(text_or_corpus, str):
        ids = (tokenizer or Tokenizer.gpt2()).encode(text_or_corpus, allowed_special)
        tokens: TokenSource = TokenArray(np.array(ids, dtype=np.uint32))
    elif isinstance(text_or_corpus, Path):
        tokens = Corpus.open(text_or_corpus, tokenizer=tokenizer)
    elif tokenizer is not None:
        tokens = Corpus.open(text_or_corpus.path, text_or_corpus.split, tokenizer=tokenizer)
    else:
        tokens = text_or_corpus
    return WindowLoader(
        tokens,
        batch_size,
        max_length,
        stride,
        shuffle=shuffle,
        drop_last=drop_last,
        seed=seed,
        num_workers=num_workers,
    )
