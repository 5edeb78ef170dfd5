"""The token table, and the input embedding that joins it with positions.

`TokenEmbedding` is an ``nn.Embedding`` with the same first draw and the same state-dict
key, so whatever knows ``nn.Embedding`` works with it. `InputEmbedding` is a token table
plus a position scheme. Neither knows text, models or training.

Axis letters: B batch, T length, D d_model, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tokenspace.errors import SettingError, ShapeError, check_at_least
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
        **options: Further ones of ``nn.Embedding``.

    Raises:
        SettingError: a size is below 1, or the recipe is unknown.

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
        self.init_std = init_recipe(init, embedding_dim).token_std
        super().__init__(num_embeddings, embedding_dim, padding_idx, **options)

    def reset_parameters(self) -> None:
        """Draw the table anew from N(0, init_std²)."""
        nn.init.normal_(self.weight, std=self.init_std)
        self._fill_padding_idx_with_zero()

    def forward(self, token_ids: Tensor) -> Tensor:
        """The rows of these tokens: whole numbers of any shape S give S + (d_model,).

        Raises:
            ShapeError: an id lies outside the table; checked on the CPU, outside compiled regions.
        """
        if token_ids.device.type == "cpu" and not torch.compiler.is_compiling():
            check_token_ids(token_ids, self.num_embeddings)
        return super().forward(token_ids)


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


def check_token_ids(token_ids: Tensor, vocab_size: int) -> None:
    """Refuse ids outside [0, vocab_size); inside a compiled region a bad id aborts the process.

    Raises:
        ShapeError: names the offending id.

    Example:
        >>> check_token_ids(torch.tensor([0, 5]), vocab_size=6)
    """
    if token_ids.is_floating_point() or token_ids.dtype == torch.bool:
        raise ShapeError("token_ids", "be whole numbers", token_ids.dtype, "Use token_ids.long()")
    if not token_ids.numel():
        return
    least, most = (int(bound) for bound in token_ids.aminmax())
    if least < 0 or most >= vocab_size:
        next_step = "Use the tokenizer that the table was made for"
        raise ShapeError("token_ids", f"lie in [0, {vocab_size})", least if least < 0 else most, next_step)
