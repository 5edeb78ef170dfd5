"""What a token table and its optimiser tell each other: one object, found through the table's weight.

The table writes learning-rate factors, the optimiser what lags; both read both. A factor goes with its
table: whatever is loaded, and whatever weight takes the place of the old one, a row that has one keeps it.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from tokenspace.errors import SettingError, check_not_negative
from tokenspace.optim.checks import is_sharded
from tokenspace.optim.rows import LaggingRows

_ATTRIBUTE = "tokenspace_link"
_MOST_FACTORS = 16  # each costs as much in every step as the first
_UNSHARDED = "FSDP cannot freeze rows: use DistributedDataParallel, or train all rows"


@dataclass(eq=False)
class TableLink:
    """The two sides of one table.

    Attributes:
        weight: The table, (V, D).
        factors: On the learning rate of each row, float64, (V,); None for 1 everywhere.
        rows: What lags; None before the first step with row gradients.
        reads_rows: Whether whoever reads the table catches its rows up.
    """

    weight: Tensor
    factors: Tensor | None = None
    rows: LaggingRows | None = None
    reads_rows: bool = False
    _hook: RemovableHandle | None = None

    @classmethod
    def of(cls, weight: Tensor, known: Self | None = None) -> Self:
        """The link of a weight: the one it carries, else `known` if it is of this weight, else a new one.

        Copies of a parameter lose what they carried, which is why modules keep their link too. Factors of
        `known` go over to a weight that takes its place.

        Raises:
            SettingError: the weight was replaced, as by FSDP, and `known` cannot follow.
        """
        link = getattr(weight, _ATTRIBUTE, None)
        if link is None and known is not None and known.weight is weight:
            link = known
        if known is not None and known is not link:
            known._check_replaceable(weight)
        if link is None:
            link = cls(weight)
        setattr(weight, _ATTRIBUTE, link)
        if known is not None and known is not link and known.factors is not None:
            link.take_factors(link.with_own(known.factors))
        if link.factors is not None:
            link.factors = link.factors.to(weight.device)  # the table may have moved
            if link._hook is None and weight.requires_grad:
                link._hook = weight.register_post_accumulate_grad_hook(_drop_frozen)
        return link

    @staticmethod
    def carried_by(weight: Tensor) -> "TableLink | None":
        """The link of a weight that a table has announced."""
        return getattr(weight, _ATTRIBUTE, None)

    @staticmethod
    def rows_of(weight: Tensor) -> LaggingRows | None:
        """The rows of a weight that may lag; None where no table announced it or none has been stepped by rows."""
        link = TableLink.carried_by(weight)
        return None if link is None else link.rows

    @property
    def largest_factor(self) -> float:
        """On the learning rate of any row."""
        return 1.0 if self.factors is None else self.factors.max().item()

    def set_factors(self, *changes: tuple[Tensor, float]) -> None:
        """Give rows a learning-rate factor from here on: ids, (N,), and the factor, one change after the other.

        Raises:
            SettingError: a factor is negative, there would be too many different ones, or the table is in shards.
        """
        if is_sharded(self.weight):
            rule = "be in one piece where rows have learning-rate factors"
            raise SettingError("token table", rule, "sharded", _UNSHARDED)
        if self.weight.is_meta:
            next_step = "Give it its weights first, as to_empty() does"
            raise SettingError("token table", "be there where rows have learning-rate factors", "on 'meta'", next_step)
        V = len(self.weight)
        factors = self.weight.new_ones(V, dtype=torch.float64) if self.factors is None else self.factors.clone()
        for rows_N, factor in changes:
            check_not_negative("Use 0 to freeze, 1 for the usual rate", factor=factor)
            factors[rows_N] = float(factor)
        self.take_factors(_checked(factors))

    def with_own(self, factors: Tensor) -> Tensor:
        """These factors, (V,), and the table's own where a row has one.

        Raises:
            SettingError: there are too many different ones.
        """
        factors = factors.to(self.weight.device)
        return _checked(factors if self.factors is None else torch.where(self.factors == 1, factors, self.factors))

    def take_factors(self, factors: Tensor) -> None:
        """Have these factors from here on, (V,)."""
        if self.rows is not None:
            self.rows.set_factors(factors)
        self.factors = factors if (factors != 1).any() else None
        TableLink.of(self.weight)

    def _check_replaceable(self, weight: Tensor) -> None:
        sharded = is_sharded(weight) or (torch.distributed.is_available() and torch.distributed.is_initialized())
        if self.factors is not None and sharded:
            raise SettingError("weight of a table with frozen rows", "stay the same", "another one", _UNSHARDED)
        if self.factors is not None and len(weight) != len(self.factors):
            rule = f"keep its {len(self.factors):,} rows"
            raise SettingError("weight of a table with frozen rows", rule, len(weight), "Use tokenspace.vocabulary")
        if (self.rows is not None and self.rows.are_behind) or (self.reads_rows and sharded):
            next_step = "Where FSDP shards it, make it with sparse=False; else call the optimiser's flush() before"
            raise SettingError("weight of a table with sparse rows", "stay the same", "another one", next_step)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_hook": None}  # neither copies nor files keep hooks of a weight


def _checked(factors: Tensor) -> Tensor:
    different = len(factors.unique())
    if different > _MOST_FACTORS:
        next_step = "Give rows of about the same rate one factor"
        raise SettingError("learning-rate factors", f"be at most {_MOST_FACTORS} different ones", different, next_step)
    return factors


def _drop_frozen(weight: Tensor) -> None:
    """Take the frozen rows out of a gradient; no method, as a weight's hook that holds the weight is never freed."""
    gradient, factors = weight.grad, TableLink.of(weight).factors
    if factors is not None and gradient.is_sparse:
        gradient._values()[factors[gradient._indices()[0]] == 0] = 0.0
    elif factors is not None:
        gradient.index_fill_(0, (factors == 0).nonzero().flatten(), 0.0)
