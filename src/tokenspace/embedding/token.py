"""The token table: an ``nn.Embedding`` with the same first draw and the same state-dict key.

Whatever knows ``nn.Embedding`` works with it. How rows lag behind an optimiser is a matter of
`tokenspace.optim`; positions are one of `tokenspace.embedding.input`.

Axis letters: D d_model, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from tokenspace.embedding.recipes import init_recipe
from tokenspace.errors import SettingError, ShapeError, check_at_least
from tokenspace.optim.link import TableLink
from tokenspace.optim.lookup import look_up


class TokenEmbedding(nn.Embedding):
    """A table of (vocab_size, d_model) token vectors.

    Args:
        num_embeddings: Rows: vocab_size. The first three names are those of ``nn.Embedding``.
        embedding_dim: Length of a vector: d_model.
        padding_idx: A row that is zero and gets no gradient.
        init: Recipe of the first draw: "torch", "gpt2" or "scaled"; see `init_recipe`.
        **options: Further ones of ``nn.Embedding``. With ``sparse=True`` the gradient holds the batch's
            rows alone, and `tokenspace.optim.RowwiseAdamW` lets the others lag: read `weight` only
            through this class then, or after the optimiser's ``flush()``.

    Raises:
        SettingError: a size is below 1, the recipe is unknown, or an option does not go with ``sparse``.

    Example:
        >>> _ = torch.manual_seed(123)
        >>> TokenEmbedding(6, 3)(torch.tensor(3))
        tensor([-0.4015,  0.9666, -1.1481], grad_fn=<EmbeddingBackward0>)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        init: str = "torch",
        **options: Any,
    ) -> None:
        check_at_least(1, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        for option in ("max_norm", "scale_grad_by_freq"):
            if options.get("sparse") and options.get(option):
                raise SettingError(option, "be left out with sparse=True", options[option], "Leave out one of the two")
        self.init_std = init_recipe(init, embedding_dim).token_std
        self._kept_link: TableLink | None = None
        super().__init__(num_embeddings, embedding_dim, padding_idx, **options)

    @property
    def sparse(self) -> bool:
        """Whether the gradient holds the batch's rows alone."""
        return self._sparse

    @sparse.setter
    def sparse(self, sparse: bool) -> None:
        self._sparse = sparse
        if sparse:
            self._link()  # an optimiser may have to know before the first lookup

    def reset_parameters(self) -> None:
        """Draw the table anew from N(0, init_std²)."""
        nn.init.normal_(self.weight, std=self.init_std)
        self._fill_padding_idx_with_zero()
        rows = TableLink.rows_of(self.weight)
        if rows is not None:
            rows.take_weights_as_current()

    def forward(self, token_ids: Tensor) -> Tensor:
        """The rows of these tokens: whole numbers of any shape S give S + (d_model,).

        Raises:
            ShapeError: an id lies outside the table; checked on the CPU, outside compiled regions.
        """
        if token_ids.device.type == "cpu" and not torch.compiler.is_compiling():
            check_token_ids(token_ids, self.num_embeddings)
        if self.sparse:
            if torch.compiler.is_compiling():  # which rows there are is known only when it runs
                return torch.compiler.disable(self._look_up)(token_ids)
            return self._look_up(token_ids)
        if torch.compiler.is_compiling():
            if self._kept_link is not None and self._kept_link.weight is not self.weight:
                torch.compiler.disable(self._check_unlinked)()
        elif self._kept_link is not None or TableLink.carried_by(self.weight) is not None:
            self._check_unlinked()
        return super().forward(token_ids)

    @torch.no_grad()
    def current_weight(self, rows: slice | Tensor | None = None) -> Tensor:
        """A copy of the table as it stands after the last step, lagging rows caught up.

        Args:
            rows: Which ones, int64, (N,), or a slice; None for all.

        Returns:
            (N, d_model).
        """
        if rows is None or isinstance(rows, slice):
            rows = torch.arange(self.num_embeddings, device=self.weight.device)[rows or slice(None)]
        lagging = self._link().rows
        return self.weight.index_select(0, rows) if lagging is None else lagging.current(rows)

    def freeze(self, rows: Tensor | Sequence[int]) -> None:
        """Never change these rows again, until `scale_learning_rate` gives them another factor than 0.

        Bit for bit under `tokenspace.optim.RowwiseAdamW`. Under other optimisers they get no
        gradient, but weight decay and momentum may still move them. Loading weights gives them other
        values, but frees none; the state dict of a `RowwiseAdamW` holds which rows are frozen, and
        loading it freezes those too.

        Raises:
            ShapeError: a row lies outside the table.
            SettingError: the table is in shards.

        Example:
            >>> table = TokenEmbedding(6, 3)
            >>> table.freeze([0, 1])
            >>> table(torch.arange(6)).sum().backward()
            >>> table.weight.grad[:, 0]
            tensor([0., 0., 1., 1., 1., 1.])
        """
        self.scale_learning_rate(rows, 0.0)

    def train_only(self, rows: Tensor | Sequence[int]) -> None:
        """Freeze all rows but these; see `freeze`."""
        rows, every_row = self._row_ids(rows), torch.arange(self.num_embeddings, device=self.weight.device)
        self._link().set_factors((every_row, 0.0), (rows, 1.0))

    def scale_learning_rate(self, rows: Tensor | Sequence[int], factor: float) -> None:
        """Let `tokenspace.optim.RowwiseAdamW` move these rows at a learning rate of their own, weight decay included.

        Args:
            rows: Their ids.
            factor: On the optimiser's learning rate; 0 freezes.

        Raises:
            ShapeError: a row lies outside the table.
            SettingError: `factor` is negative, the table's rows would have more than 16 different ones, or it is in
                shards.
        """
        self._link().set_factors((self._row_ids(rows), factor))

    def replace_weight(self, weight: nn.Parameter) -> None:
        """Look up in another table from now on, of any number of rows; `tokenspace.vocabulary` edits so.

        Learning-rate factors and what lags stay with the old one.
        """
        self._kept_link = None
        self.weight = weight
        self.num_embeddings = len(weight)
        if self.sparse:
            self._link()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._follow_weight()  # a copied weight does not carry it

    def _row_ids(self, rows: Tensor | Sequence[int]) -> Tensor:
        """As int64, (N,).

        Raises:
            ShapeError: they are no whole numbers, or one lies outside the table.
        """
        try:
            rows = torch.as_tensor(rows).flatten()
        except (TypeError, ValueError, RuntimeError):  # which of them depends on what was given
            raise ShapeError("rows", "be whole numbers", rows, "Give their ids as a list or a tensor") from None
        if len(rows):
            check_token_ids(rows, self.num_embeddings, "rows")
        return rows.to(self.weight.device, torch.int64)

    def _look_up(self, token_ids: Tensor) -> Tensor:
        return look_up(self._link(), token_ids, self.padding_idx)

    def _link(self) -> TableLink:
        self._kept_link = TableLink.of(self.weight, self._kept_link)
        self._kept_link.reads_rows = self.sparse
        return self._kept_link

    def _check_unlinked(self) -> None:
        """Refuse to read a table whose rows lag as if they did not."""
        link = self._link()
        if link.rows is not None and link.rows.are_behind:
            raise SettingError("sparse", "stay True while rows lag", False, "Call the optimiser's flush() first")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What ``to()``, ``half()`` and the like do: rows do not lag across types and devices."""
        rows = TableLink.rows_of(self.weight)
        if rows is not None:
            none = self.weight.detach()[:0]
            after = fn(none)
            if (after.dtype, after.device) != (none.dtype, none.device):
                rows.flush()
                self._link().rows = None
        super()._apply(fn, recurse)
        self._follow_weight()
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        rows = TableLink.rows_of(self.weight)
        if rows is not None and rows.are_behind:
            destination[f"{prefix}weight"] = self.current_weight()

    def _load_from_state_dict(self, *arguments: Any) -> None:
        weight, version = self.weight, self.weight._version
        super()._load_from_state_dict(*arguments)
        rows = TableLink.rows_of(weight)
        if rows is not None and (self.weight is not weight or weight._version != version):
            rows.take_weights_as_current()
        self._follow_weight()

    def _follow_weight(self) -> None:
        """Have the weight carry the link, where it is another one now."""
        if self._kept_link is not None:
            self._link()


def check_token_ids(token_ids: Tensor, vocab_size: int, name: str = "token_ids") -> None:
    """Refuse ids outside [0, vocab_size); inside a compiled region a bad id aborts the process.

    Raises:
        ShapeError: names the offending id.

    Example:
        >>> check_token_ids(torch.tensor([0, 5]), vocab_size=6)
    """
    if token_ids.is_floating_point() or token_ids.is_complex() or token_ids.dtype == torch.bool:
        use = f"Use {name}.nonzero() where it is a mask" if token_ids.dtype == torch.bool else f"Use {name}.long()"
        raise ShapeError(name, "be whole numbers", token_ids.dtype, use)
    if not token_ids.numel():
        return
    least, most = (int(bound) for bound in token_ids.long().aminmax())  # unsigned ones have no aminmax
    if least < 0 or most >= vocab_size:
        next_step = "Use the tokenizer that the table was made for"
        raise ShapeError(name, f"lie in [0, {vocab_size})", least if least < 0 else most, next_step)
