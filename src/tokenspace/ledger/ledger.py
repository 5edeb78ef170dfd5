"""Watches a token table in training: seen as input, seen as target, how far each row moved.

`Ledger` goes with any ``nn.Embedding`` in any training loop, and changes nothing that it
watches. It does not know why a row moved: that a row which was never seen moved all the
same is the softmax's doing where the head is tied, and weight decay's where it is not.

Axis letters: V vocabulary, D d_model.
"""

from typing import Self

import torch
from torch import Tensor, nn

from tokenspace.errors import CheckpointError, SettingError, ShapeError, check_at_least
from tokenspace.ledger.hook import InputHook
from tokenspace.ledger.record import COUNTS, LENGTHS, LedgerRecord
from tokenspace.optim.checks import is_sharded
from tokenspace.optim.link import TableLink

_NUMBERS_A_STEP = 200_000  # a tenth of a millisecond
_ROWS_AT_ONCE = 256  # of a whole pass, so that what lies between stays in the cache


class Ledger:
    """Counts and measures what training does to each row of a table.

    An input is counted when its gradient arrives, so only in training, once however often
    activation checkpointing runs the table again, and never where only loss values are
    looked at. (Where the table is frozen or inside a compiled region: when it is read, in
    training mode with gradients enabled.) The ledger keeps two copies of the table, on the
    table's device: where its rows began and where they last were measured. It goes with the
    table as it is: make it after the model is loaded, moved and resized, and before it first
    runs compiled.

    Args:
        embedding: Any ``nn.Embedding``. One with a ``current_weight(rows)`` is read through it.
        *others: More modules whose lookups count, if several share the weight of `embedding`,
            as encoder and decoder do in T5 and BART.
        every: Steps between two measurements of one row. Each step measures the next
            V / every rows; fewer steps follow a row's path more closely and cost more. None
            for what measures some 200,000 numbers a step.
        ignore_index: A target that is none, as in ``F.cross_entropy``.
        start: Where the rows began, (V, D); None for where they are.

    Attributes:
        steps: Optimiser steps counted.

    Raises:
        SettingError: `embedding` is none, not in one piece, or has rows that lag behind their
            optimiser; one of `others` does not share its weight; or `every` is below 1.
        ShapeError: `start` has another shape than the table.

    Example:
        >>> table = nn.Embedding(5, 2)
        >>> optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
        >>> with Ledger(table) as ledger:
        ...     table(torch.tensor([0, 3, 3])).sum().backward()
        ...     optimizer.step()
        ...     ledger.step(torch.tensor([3, 3, 4]))
        >>> record = ledger.record()
        >>> record.input_count.tolist(), record.target_count.tolist()
        ([1, 0, 0, 2, 0], [0, 0, 0, 2, 1])
        >>> from tokenspace.ledger import STATES
        >>> [STATES[state] for state in record.states[2:]]
        ['never moved', 'seen as input', 'seen as target only']
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        *others: nn.Embedding,
        every: int | None = None,
        ignore_index: int = -100,
        start: Tensor | None = None,
    ) -> None:
        _check_modules(embedding, *others)
        if every is None:
            every = -(-embedding.weight.numel() // _NUMBERS_A_STEP)
        check_at_least(1, every=every)
        _check_start(embedding.weight, start)
        self.every = every
        self.ignore_index = ignore_index
        self.steps = 0
        self._embedding = embedding
        device = embedding.weight.device
        first = _rows_now(embedding, slice(None)) if start is None else start
        self._start = _at_least_float32(first).to(device, copy=True)
        self._norm_start = _norms(self._start)
        self._previous = self._start.clone()
        self._path = torch.zeros(len(self._start), dtype=torch.float64, device=device)
        # one place more than rows: what is ignored goes there, without a look at how much that is
        self._counts = {n: torch.zeros(len(self._start) + 1, dtype=torch.int64, device=device) for n in COUNTS}
        self._open_step = torch.ones(1, dtype=torch.int64, device=device)  # a tensor: compiled code would fix a number
        self._handles = [
            # before other hooks, which may give out something else than the lookup
            module.register_forward_hook(InputHook(self, module), with_kwargs=True, prepend=True)
            for module in (embedding, *others)
        ]

    def step(self, *targets: Tensor) -> None:
        """Close an optimiser step; call it once after each ``optimizer.step()``.

        Args:
            *targets: Ids that the step was trained to give, any shape: those of the batch, or of
                each micro-batch where gradients were accumulated. None at all where
                nothing counts as a target.

        Raises:
            SettingError: targets are no tensor.
            ShapeError: they are no whole numbers, or lie outside the table (checked on the CPU); or
                the table was resized, moved or sharded.
        """
        self.check_table(self._embedding.weight)
        for some in targets:
            self._check_targets(some)
        for some in targets:
            ids = some.detach().to(self._open_step.device, torch.int64)
            ids = torch.where(ids == self.ignore_index, len(self._start), ids)
            self._count("target_count", "last_target", ids)
        rows = -(-len(self._start) // self.every)
        first = self.steps % self.every * rows
        self._measure(slice(first, first + rows))
        self.steps += 1
        self._open_step += 1

    @torch.no_grad()
    def record(self) -> LedgerRecord:
        """All that is known now, every row measured; changes nothing in the ledger."""
        self.check_table(self._embedding.weight)
        lengths = {name: [] for name in LENGTHS}
        for first in range(0, len(self._start), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            now, start = _rows_now(self._embedding, rows), self._start[rows]
            lengths["path"].append(self._path[rows] + _norms(now - self._previous[rows]))
            lengths["displacement"].append(_norms(now - start))
            lengths["norm_start"].append(self._norm_start[rows])
            lengths["norm_now"].append(_norms(now))
        return LedgerRecord(
            step=self.steps,
            every=self.every,
            **{name: count[:-1].cpu().numpy().copy() for name, count in self._counts.items()},
            **{name: torch.cat(parts).cpu().numpy() for name, parts in lengths.items()},
        )

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of all that going on needs but the rows' start, of which it has the norms to know it by."""
        return {name: tensor.clone() for name, tensor in self._state().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where another ledger of the same table stopped.

        Raises:
            CheckpointError: the state lacks a tensor, or belongs to another table or start.
        """
        own = self._state()
        for name, tensor in own.items():
            found = list(state[name].shape) if name in state else "absent"
            if found != list(tensor.shape):
                next_step = "Use the state of this table's own ledger"
                raise CheckpointError(f"{name} of the ledger", f"be {list(tensor.shape)}", found, next_step)
        if not torch.allclose(state["norm_start"].to(self._norm_start), self._norm_start, rtol=1e-5, equal_nan=True):
            next_step = "Give the table as the first ledger found it: Ledger(table, start=...)"
            raise CheckpointError("start", "be where the rows of this state began", "another table", next_step)
        self.steps = int(state["steps"])
        self._open_step.fill_(self.steps + 1)
        self._path.copy_(state["path"])
        self._previous.copy_(state["previous"])
        for name, count in self._counts.items():
            count[:-1].copy_(state[name])

    @torch.no_grad()
    def renumber(self, source: Tensor) -> None:
        """Go on with a table whose rows were chosen anew, as `tokenspace.vocabulary` does.

        Args:
            source: For each row of the table as it is now, the row it was, int64, (V,); -1 for a new one, which
                begins where it is.

        Raises:
            ShapeError: the table does not have so many rows.
        """
        weight = self._embedding.weight
        if len(source) != len(weight):
            rule = f"have the {len(weight):,} rows of the table as it is now"
            raise ShapeError("source", rule, len(source), "Replace the table first")
        source = source.to(self._start.device)
        new, kept = source < 0, source.clamp(min=0)
        now = _rows_now(self._embedding, slice(None))[new]
        for table in ("_start", "_previous"):
            rows = getattr(self, table).index_select(0, kept)
            rows[new] = now
            setattr(self, table, rows)
        self._norm_start = torch.where(new, 0.0, self._norm_start[kept])
        self._norm_start[new] = _norms(now)
        self._path = torch.where(new, 0.0, self._path[kept])
        for name, count in self._counts.items():
            self._counts[name] = torch.cat([torch.where(new, 0, count[:-1][kept]), count[-1:]])

    def detach(self) -> None:
        """Stop watching; what is known stays."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def check_table(self, weight: Tensor) -> None:
        """Refuse a table that is no longer the one the ledger was made for.

        Raises:
            ShapeError: it was resized, moved or sharded.
        """
        if weight.shape != self._start.shape or weight.device != self._start.device or is_sharded(weight):
            rule = f"stay the table of {tuple(self._start.shape)} on {self._start.device} that the ledger began with"
            next_step = "Resize or move a model before its ledger is made or after its last record"
            found = f"{'sharded, ' if is_sharded(weight) else ''}{tuple(weight.shape)} on {weight.device}"
            raise ShapeError("embedding", rule, found, next_step)

    def count_inputs(self, ids: Tensor) -> None:
        """Count ids that were looked up; `InputHook` does."""
        self._count("input_count", "last_input", ids.detach().to(self._open_step.device, torch.int64))

    def _count(self, count: str, last: str, ids: Tensor) -> None:
        ids = ids.flatten()
        self._counts[count].scatter_add_(0, ids, torch.ones_like(ids))
        self._counts[last].scatter_(0, ids, self._open_step.expand_as(ids))

    def _state(self) -> dict[str, Tensor]:
        counts = {name: count[:-1] for name, count in self._counts.items()}
        lengths = {"path": self._path, "norm_start": self._norm_start, "previous": self._previous}
        return {**counts, **lengths, "steps": torch.tensor([self.steps])}

    @torch.no_grad()
    def _measure(self, rows: slice) -> None:
        """Add the way since the last measurement to the path."""
        # as they are stored: where a row lags behind, that is a place it was at, and no less in order
        now, previous = _at_least_float32(self._embedding.weight.detach()[rows]), self._previous[rows]
        self._path[rows] += torch.linalg.vector_norm(previous.sub_(now), dim=1)  # in place: fresh memory costs more
        previous.copy_(now)

    def _lie_outside(self, ids: Tensor) -> bool:
        if not ids.numel():
            return False
        least, most = ids.aminmax()
        return least.item() < 0 or most.item() >= len(self._start)

    def _check_targets(self, targets: Tensor) -> None:
        if not isinstance(targets, Tensor):
            raise SettingError("targets", "be tensors", type(targets).__name__, "Use torch.tensor(targets)")
        if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
            raise ShapeError("targets", "be whole numbers", targets.dtype, "Give the ids, not their logits")
        if targets.device.type != "cpu" or not self._lie_outside(targets):
            return
        counted = targets[targets != self.ignore_index]  # takes as long as all the rest of a step
        if self._lie_outside(counted):
            least, most = (int(bound) for bound in counted.aminmax())
            rule = f"lie in [0, {len(self._start)}) or be ignore_index = {self.ignore_index}"
            raise ShapeError("targets", rule, least if least < 0 else most, "Use the tokenizer of this table")


def _check_modules(embedding: nn.Embedding, *others: nn.Embedding) -> None:
    for module in (embedding, *others):
        if not isinstance(module, nn.Embedding):
            next_step = "Give the token table itself, such as model.embedding.token"
            raise SettingError("embedding", "be an nn.Embedding", type(module).__name__, next_step)
    weight = embedding.weight
    if weight.is_meta or weight.dim() != 2 or is_sharded(weight):
        found = "on the device 'meta'" if weight.is_meta else "in shards"
        next_step = "Make the ledger once the table has its weights, and leave the table unsharded"
        raise SettingError("embedding", "hold its whole table", found, next_step)
    if any(other.weight is not weight for other in others):
        raise SettingError("others", "share the weight of embedding", "a table of its own", "Give it its own Ledger")


def _check_start(weight: Tensor, start: Tensor | None) -> None:
    if start is not None and start.shape != weight.shape:
        rule = f"have the table's shape {tuple(weight.shape)}"
        raise ShapeError("start", rule, tuple(start.shape), "Give the same table, as it was before training")
    rows = TableLink.rows_of(weight)
    if start is None and rows is not None and rows.are_behind:  # they would be measured where they stood before
        next_step = "Call its flush() first, or give the start"
        raise SettingError("embedding", "have no rows that lag behind their optimiser", "behind", next_step)


def _rows_now(embedding: nn.Embedding, rows: slice) -> Tensor:
    """The rows as they are, those included that an optimiser has not brought up to date yet; float32 at least."""
    current = getattr(embedding, "current_weight", None)
    return _at_least_float32(embedding.weight.detach()[rows] if current is None else current(rows).detach())


def _at_least_float32(rows: Tensor) -> Tensor:
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


def _norms(rows: Tensor) -> Tensor:
    """Length of each row; in float64, where only a row of zeros has length 0."""
    return torch.cat([torch.linalg.vector_norm(some, dim=1, dtype=torch.float64) for some in rows.split(_ROWS_AT_ONCE)])
