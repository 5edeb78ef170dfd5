"""What an edit of a vocabulary comes to, before anything is changed: two tokenizers, and where each row comes from.

Whatever has a row a token (tables, biases, moments of an optimiser, counts) is edited by the same
vector of rows. The tokenizer's size and the number of rows are two numbers throughout: rows
beyond the tokenizer's are padding. Axis letter V: rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tokenspace.tokenizer import Tokenizer
from tokenspace.vocabulary.renumbering import ids_with_tokens
from tokenspace.vocabulary.rows import Drawer, NewRows

Respell = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Edit:
    """One edit of one vocabulary; made by the changes of `tokenspace.vocabulary.changes`.

    Attributes:
        verb: What is done: "add", "remove", "trim", "reorder" or "resize".
        old: The tokenizer before.
        new: The tokenizer after; the same object where it does not change.
        num_rows: Rows before.
        source: For each row after, the row it was before, int64, (V,); -1 for a new one.
        texts: The new tokens, by id.
        recipe: How their rows begin.
        respell: Does to the content of a `tokenizer.json` what was done to `old`.
        num_positions: Length of the position table after; None where it stays.
        interpolate: Whether that table is stretched.
    """

    verb: str
    old: Tokenizer
    new: Tokenizer
    num_rows: int
    source: Tensor
    texts: tuple[str, ...] = ()
    recipe: NewRows = field(default_factory=NewRows)
    respell: Respell = dict
    num_positions: int | None = None
    interpolate: bool = False

    @property
    def changes_nothing(self) -> bool:
        """Whether everything stays as it is, byte for byte."""
        return self.keeps_rows and self.num_positions is None

    @property
    def keeps_rows(self) -> bool:
        """Whether every row stays where it is, and so does the tokenizer."""
        return self.new is self.old and torch.equal(self.source, torch.arange(self.num_rows))

    @property
    def new_num_rows(self) -> int:
        """Rows after."""
        return len(self.source)

    @cached_property
    def fresh(self) -> Tensor:
        """The rows that are new, those of tokens before padding; int64."""
        return (self.source < 0).nonzero().flatten()

    @property
    def added(self) -> list[int]:
        """Ids of the new tokens."""
        return self.fresh[: len(self.texts)].tolist()

    @cached_property
    def to(self) -> Tensor:
        """For each row before, the row it is after, int64; -1 for one that is gone."""
        to = torch.full((self.num_rows,), -1, dtype=torch.int64)
        stays = (self.source >= 0).nonzero().flatten()
        return to.scatter_(0, self.source[stays], stays)

    @cached_property
    def old_ids(self) -> Tensor:
        """The rows before that have a token, int64."""
        return torch.tensor(ids_with_tokens(self.old.settings), dtype=torch.int64)

    @property
    def removed(self) -> list[int]:
        """Ids, as before, of the tokens that are gone."""
        return self.old_ids[self.to[self.old_ids] < 0].tolist()

    @cached_property
    def kept(self) -> Tensor:
        """Ids, as before, of the tokens that stayed, int64."""
        return self.old_ids[self.to[self.old_ids] >= 0]

    def drawer(self) -> Drawer:
        """What draws the new rows of each table in turn."""
        pieces = [self.old.encode(text) for text in self.texts]
        generator = torch.Generator().manual_seed(self.recipe.seed)
        return Drawer(new=self.recipe, texts=self.texts, pieces=pieces, token_ids=self.old_ids, generator=generator)

    def rows(self, old: Tensor, fresh: Tensor | float = 0.0) -> Tensor:
        """What has a row a token, after the edit: a new tensor.

        Args:
            old: (rows before, ...).
            fresh: What stands in the new rows, of shape (`fresh`, ...), or a number.
        """
        new = old.detach().index_select(0, self.source.clamp(min=0).to(old.device))
        if len(self.fresh):
            new[self.fresh.to(old.device)] = torch.as_tensor(fresh, dtype=old.dtype, device=old.device)
        return new

    def new_id(self, old_id: int) -> int | None:
        """The id of a token after the edit; None for one that is gone, its own for one that is none of the rows."""
        if not 0 <= old_id < self.num_rows:
            return old_id
        new = int(self.to[old_id])
        return None if new < 0 else new
