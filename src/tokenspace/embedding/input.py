"""The input embedding: a token table plus a position scheme. It knows no text, model or training.

Axis letters: B batch, T length, D d_model.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from tokenspace.errors import SettingError, ShapeError, check_at_least
from tokenspace.positions import Scheme


class InputEmbedding(nn.Module):
    """Token vectors with positions: what the first layer of a model reads.

    Args:
        token: The token table.
        position: A scheme; those that do not enter here leave the vectors as they are.
        dropout: Share of components set to 0 in training.
        scale: Factor on the token vectors (``d_model ** 0.5`` in Vaswani et al. 2017).
        position_offset: Added to every position (RoBERTa's tables start at 2).
        after: Any module applied to the sum, before dropout (BERT's LayerNorm).
        token_types: A table of token types, added before positions (BERT's segments).

    Raises:
        SettingError: `position` is no scheme, or `dropout` lies outside [0, 1).

    Example:
        >>> from tokenspace import TokenEmbedding
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
        token_types: nn.Embedding | None = None,
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
        self.token_types = token_types
        self.dropout = nn.Dropout(dropout)
        self.scale = scale
        self.position_offset = position_offset

    @staticmethod
    def from_pretrained(path: str | Path, *, table: str | None = None) -> "InputEmbedding":
        """The input embedding of any model: its tables, offsets, scale and norm, and its position scheme.

        Args:
            path: A run, a model folder, a file of vectors, or a name in the local Hugging Face cache.
            table: Name of the token table's tensor, for models of families that are not known.

        Returns:
            A module whose output equals that of the model's own input side, in evaluation mode.

        Raises:
            CheckpointError: there is no such thing, or it is damaged, or of no known family.

        Example:
            >>> import tempfile, numpy
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     numpy.save(f"{folder}/vectors.npy", numpy.eye(3))
            ...     embedding = InputEmbedding.from_pretrained(f"{folder}/vectors.npy")
            >>> embedding(torch.tensor([[2]])).tolist()
            [[[0.0, 0.0, 1.0]]]
        """
        from tokenspace.checkpoint import open_tables  # a room above, which knows files

        return open_tables(path, table=table).embedding()

    def forward(self, token_ids: Tensor, positions: Tensor | None = None, token_types: Tensor | None = None) -> Tensor:
        """Embed a batch.

        Args:
            token_ids: Whole numbers, (B, T).
            positions: Whole numbers, (T,) or (B, T); None for 0 … T-1.
            token_types: Whole numbers, (B, T), where there is a table of them; None for type 0 everywhere.

        Returns:
            (B, T, D), in the table's dtype.

        Raises:
            ShapeError: an id or a position lies outside its table, or a shape is another.
            SettingError: token types are given without a table of them.
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
        if token_types is not None and self.token_types is None:
            raise SettingError("token_types", "be None without a table of them", "given", "Leave it out")
        if self.token_types is not None:  # before positions: sums are rounded in BERT's order
            x_BTD = x_BTD.add_(self.token_types.weight[0] if token_types is None else self.token_types(token_types))
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
