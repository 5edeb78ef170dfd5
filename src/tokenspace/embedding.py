"""The token table, and the input embedding that joins it with positions.

`TokenEmbedding` is an ``nn.Embedding`` with the same first draw and the same state-dict
key, so whatever knows ``nn.Embedding`` works with it. `InputEmbedding` is a token table
plus a position scheme. Neither knows text, models or training; how rows lag behind an
optimiser is a matter of `tokenspace.optim`.

Axis letters: B batch, T length, D d_model, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from tokenspace.errors import SettingError, ShapeError, check_at_least
from tokenspace.optim.link import TableLink
from tokenspace.optim.lookup import look_up
from tokenspace.positions import Scheme


@dataclass(frozen=True, kw_only=True)
class InitRecipe:
    """Standard deviations of the first draw of the two tables."""

    token_std: float
    position_std: float


def init_recipe(name: str, d_model: int) -> InitRecipe:
    """A named recipe for the first draw.

    ``torch``: N(0, 1), what ``nn.Embedding`` does. ``gpt2``: 0.02 for tokens, 0.01 for
    positions (Radford et al. 2019, released code). ``scaled``: ``d_model ** -0.5`` for both,
    as in fairseq.

    Raises:
        SettingError: the name is unknown.

    Example:
        >>> init_recipe("scaled", d_model=16)
        InitRecipe(token_std=0.25, position_std=0.25)
    """
    recipes = {
        "torch": InitRecipe(token_std=1.0, position_std=1.0),
        "gpt2": InitRecipe(token_std=0.02, position_std=0.01),
        "scaled": InitRecipe(token_std=d_model**-0.5, position_std=d_model**-0.5),
    }
    if name not in recipes:
        raise SettingError("init", f"be one of {', '.join(recipes)}", name, "Use 'gpt2' for a language model")
    return recipes[name]


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
        if not torch.compiler.is_compiling() and TableLink.carried_by(self.weight) is not None:
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
        gradient, but weight decay and momentum may still move them.

        Raises:
            ShapeError: a row lies outside the table.

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
        self.scale_learning_rate(range(self.num_embeddings), 0.0)
        self.scale_learning_rate(rows, 1.0)

    def scale_learning_rate(self, rows: Tensor | Sequence[int], factor: float) -> None:
        """Let `tokenspace.optim.RowwiseAdamW` move these rows at a learning rate of their own, weight decay included.

        Args:
            rows: Their ids.
            factor: On the optimiser's learning rate; 0 freezes.

        Raises:
            ShapeError: a row lies outside the table.
            SettingError: `factor` is negative, or the table's rows would have more than 16 different ones.
        """
        rows = torch.as_tensor(rows, device=self.weight.device).flatten()
        if len(rows):
            check_token_ids(rows, self.num_embeddings, "rows")
            self._link().set_factor(rows.long(), factor)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.__dict__.get("_kept_link") is not None:
            self._link()  # a copied weight does not carry it

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
        return super()._apply(fn, recurse)

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


class InputEmbedding(nn.Module):
    """Token vectors with positions: what the first layer of a model reads.

    Args:
        token: The token table.
        position: A scheme; those that do not enter here leave the vectors as they are.
        dropout: Share of components set to 0 in training.
        scale: Factor on the token vectors (``d_model ** 0.5`` in Vaswani et al. 2017).
        position_offset: Added to every position (RoBERTa's tables start at 2).
        after: Any module applied to the sum, before dropout (BERT's LayerNorm).

    Raises:
        SettingError: `position` is no scheme, or `dropout` lies outside [0, 1).

    Example:
        >>> from tokenspace.positions import get
        >>> embedding = InputEmbedding(TokenEmbedding(50257, 256), get("learned", num_positions=4, d_model=256))
        >>> embedding(torch.zeros(8, 4, dtype=torch.long)).shape
        torch.Size([8, 4, 256])
    """

    def __init__(
        self,
        token: nn.Embedding,
        position: Scheme,
        dropout: float = 0.0,
        scale: float = 1.0,
        position_offset: int = 0,
        after: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(position, Scheme):
            raise SettingError("position", "be a Scheme", type(position).__name__, "Use positions.get(name, …)")
        if not 0.0 <= dropout < 1.0:
            raise SettingError("dropout", "lie in [0, 1)", dropout, "Use 0.0 for none")
        check_at_least(0, position_offset=position_offset)
        self.token = token
        self.position = position
        self.after = after
        self.dropout = nn.Dropout(dropout)
        self.scale = scale
        self.position_offset = position_offset

    def forward(self, token_ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """Embed a batch.

        Args:
            token_ids: Whole numbers, (B, T).
            positions: Whole numbers, (T,) or (B, T); None for 0 … T-1.

        Returns:
            (B, T, D), in the table's dtype.

        Raises:
            ShapeError: an id or a position lies outside its table, or a shape is another.
        """
        if token_ids.dim() != 2:
            raise ShapeError("token_ids", "have shape (batch, length)", tuple(token_ids.shape), "Add the missing axis")
        if positions is not None and not torch.compiler.is_compiling():
            _check_shape(positions, *token_ids.shape)
        x_BTD = self.token(token_ids)
        hooks = self.token._forward_hooks or self.token._backward_hooks or self.token._backward_pre_hooks
        if hooks:  # they may have kept the tensor that is written to below
            x_BTD = x_BTD.clone()
        if self.scale != 1.0:
            x_BTD = x_BTD.mul_(self.scale)
        if self.position_offset:
            if positions is None:
                positions = torch.arange(token_ids.shape[1], device=token_ids.device)
            positions = positions + self.position_offset
        x_BTD = self.position.embed(x_BTD, positions)
        if self.after is not None:
            x_BTD = self.after(x_BTD)
        return self.dropout(x_BTD)


def _check_shape(positions: Tensor, B: int, T: int) -> None:
    if positions.shape not in ((T,), (B, T)):  # (1,) would be taken as the place of every token
        rule = f"have shape ({T},) or ({B}, {T})"
        raise ShapeError("positions", rule, tuple(positions.shape), "Give each token its position")


def check_token_ids(token_ids: Tensor, vocab_size: int, name: str = "token_ids") -> None:
    """Refuse ids outside [0, vocab_size); inside a compiled region a bad id aborts the process.

    Raises:
        ShapeError: names the offending id.

    Example:
        >>> check_token_ids(torch.tensor([0, 5]), vocab_size=6)
    """
    if token_ids.is_floating_point() or token_ids.dtype == torch.bool:
        raise ShapeError(name, "be whole numbers", token_ids.dtype, f"Use {name}.long()")
    if not token_ids.numel():
        return
    least, most = (int(bound) for bound in token_ids.aminmax())
    if least < 0 or most >= vocab_size:
        next_step = "Use the tokenizer that the table was made for"
        raise ShapeError(name, f"lie in [0, {vocab_size})", least if least < 0 else most, next_step)
