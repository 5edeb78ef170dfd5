"""A vocabulary trimmed to the tokens that a text uses, closed under what they are made of."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from tokenspace.errors import SettingError, TokenizerError, check_type
from tokenspace.tokenizer import Tokenizer
from tokenspace.vocabulary.changes import Change, reordered
from tokenspace.vocabulary.checks import check_list, check_rows
from tokenspace.vocabulary.closure import alphabet, closed
from tokenspace.vocabulary.edit import Edit
from tokenspace.vocabulary.renumbering import named_tokens, spellings

_CHECKED_CHARACTERS = 1_000_000  # of the text, encoded again to be sure


@dataclass(frozen=True, eq=False)
class Trim(Change):
    """All tokens taken out but those that a text uses and what they are made of; every text still encodes.

    Special tokens stay, those that the model's settings name, and the alphabet; ids keep their order.

    Attributes:
        texts: The text; its tokens under the tokenizer before are kept. Encoded once, as a stream.
        keep: Ids to keep besides, or alone: those that occur in a corpus.
        pad_to_multiple_of: The rows become the least multiple of it that holds all tokens; None leaves as many
            rows of padding as there were.
    """

    texts: Iterable[str] = ()
    keep: Collection[int] = ()
    pad_to_multiple_of: int | None = None

    verb: ClassVar[str] = "trim"

    def plan(self, tokenizer: Tokenizer, num_rows: int, named: Mapping[int, str] | None = None) -> Edit:
        """See `Change.plan`.

        Raises:
            SettingError: there is nothing to keep, or an id lies outside the vocabulary.
            TokenizerError: the trimmed vocabulary would encode the text otherwise.
        """
        check_rows(tokenizer, num_rows)
        check_list("keep", self.keep, "ids")
        used, sample = _used(self.texts, tokenizer)
        for token_id in self.keep:
            if not isinstance(token_id, int | np.integer):
                raise SettingError("keep", "hold ids, whole numbers", token_id, "Use ids of this tokenizer")
        wanted = {int(token_id) for token_id in self.keep} | used
        if not wanted:
            raise SettingError("texts", "hold at least one token", "nothing", "Give text, or ids to keep")
        if outside := [token_id for token_id in (min(wanted), max(wanted)) if not 0 <= token_id < tokenizer.vocab_size]:
            rule = f"lie in [0, {tokenizer.vocab_size:,})"
            raise SettingError("keep", rule, outside[0], "Use ids of this tokenizer")
        settings = tokenizer.settings
        id_of = spellings(settings)
        token_of = {token_id: token for token, token_id in id_of.items()}
        tokens = closed(settings, (token_of[i] for i in wanted if i in token_of))
        tokens |= alphabet(settings) | named_tokens(settings)
        kept = {id_of[token] for token in tokens if token in id_of} | set(named or {}) & set(token_of)
        kept |= {token["id"] for token in settings["added_tokens"] if token["special"]}
        edit = reordered(self.verb, tokenizer, num_rows, sorted(kept), self.pad_to_multiple_of)
        _check_sample(edit, sample)
        return edit


def _used(texts: Iterable[str], tokenizer: Tokenizer) -> tuple[set[int], list[str]]:
    """The ids that texts use, and the first of the texts."""
    used, sample, size = np.zeros(tokenizer.vocab_size, dtype=bool), [], 0
    check_list("texts", texts, "texts")
    for batch in _batches(texts):
        ids, _ = tokenizer.encode_batch(batch)
        used[ids] = True
        if size < _CHECKED_CHARACTERS:
            sample += batch
            size += sum(map(len, batch))
    return set(np.flatnonzero(used).tolist()), sample


def _batches(texts: Iterable[str], characters: int = _CHECKED_CHARACTERS) -> Iterable[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        check_type("text", text, str, "Give texts")
        batch.append(text)
        size += len(text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _check_sample(edit: Edit, sample: Sequence[str]) -> None:
    """The first of the texts must have the same tokens as before; the proof is in `closure`, this is the test."""
    before, _ = edit.old.encode_batch(sample)
    after, _ = edit.new.encode_batch(sample)
    mapped = edit.to[torch.from_numpy(before.astype(np.int64))].numpy()
    if len(after) != len(mapped) or (after != mapped).any():
        next_step = "Keep more ids, or take another kind of tokenizer"
        raise TokenizerError("trimmed vocabulary", "encode the text as before", "one that does not", next_step)
