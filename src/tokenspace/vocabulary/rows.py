"""How the rows of new tokens begin: named recipes.

Each works on any tensor with a row a token, so that a head of its own and a bias get rows that
fit themselves. Only rows that have a token count: padding, which no training touched, would
draw a mean towards where it began. Axis letters: V rows, N new tokens, D columns.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenspace.checkpoint import open_tables
from tokenspace.checkpoint.models.words import text_of
from tokenspace.errors import SettingError, ShapeError, TokenizerError, check_at_least

RECIPES = ("mean", "subtokens", "normal", "zeros", "vectors")
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, eq=False, kw_only=True)
class NewRows:
    """How the rows of new tokens begin.

    Attributes:
        recipe: "mean": the mean of all tokens' rows, so that all new ones are equal. "subtokens": the mean of
            the rows of the pieces into which the tokenizer cut the token before. "normal": drawn from a normal
            distribution with each column's mean and standard deviation. "zeros". "vectors": given ones, found
            by the token's text; heads and biases, for which none are given, get their mean.
        vectors: For "vectors": a file that `open_tables` opens, such as word2vec text, or vectors by text.
        seed: Of what is drawn.

    Raises:
        SettingError: there is no such recipe, or `vectors` is missing or given without need.

    Source: the mean as a start that hardly moves the other tokens' probabilities: Hewitt 2021, "Initializing
    New Word Embeddings for Pretrained Language Models".
    """

    recipe: str = "mean"
    vectors: Mapping[str, Tensor] | str | Path | None = field(default=None, repr=False)
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.recipe, str) or self.recipe not in RECIPES:
            raise SettingError("init", f"be one of {', '.join(RECIPES)}", self.recipe, "Use 'subtokens'")
        if (self.recipe == "vectors") != (self.vectors is not None):
            found = f"{'given' if self.vectors is not None else 'missing'} with init {self.recipe!r}"
            raise SettingError("vectors", "be given with init 'vectors', and only then", found, "Give both or neither")
        check_at_least(0, seed=self.seed)
        if not isinstance(self.vectors, Mapping | str | os.PathLike | None):
            advice = 'Give {"<new>": tensor}, or a file'
            raise SettingError("vectors", "be vectors by text, or a path", type(self.vectors).__name__, advice)

    def given(self, texts: Sequence[str], d_model: int) -> Tensor:
        """The given vectors of these texts, (N, D).

        Raises:
            TokenizerError: a text has none, or one that is not finite.
            ShapeError: they are of another width.
        """
        by_text = self._by_text()
        found = []
        for text in texts:
            vector = by_text.get(text, by_text.get(text.strip()))
            if vector is None:
                next_step = "Add it to the file, or take another init"
                raise TokenizerError(f"token {text!r}", "have a vector among those given", "without", next_step)
            found.append(_tensor(text, vector))
        width = {tuple(vector.shape) for vector in found} - {(d_model,)}
        if width:
            next_step = "Give vectors made for this model"
            raise ShapeError("vectors", f"have the table's {d_model} columns", next(iter(width)), next_step)
        vectors = torch.stack(found)
        if not vectors.isfinite().all():
            text = texts[int((~vectors.isfinite()).any(1).nonzero()[0])]
            raise TokenizerError(f"vector of {text!r}", "hold finite numbers", "NaN or infinite", "Correct the file")
        return vectors

    def _by_text(self) -> Mapping[str, Tensor]:
        if isinstance(self.vectors, Mapping):
            return self.vectors
        tables = open_tables(self.vectors)
        if tables.tokenizer is None:
            next_step = "Give word2vec text, .vec or Parquet with a column of words, or a model"
            raise SettingError("vectors", "name the word of each row", str(self.vectors), next_step)
        names = tables.words or [tables.label(row) for row in range(tables.vocab_size)]
        row_of: dict[str, int] = {}
        for row, name in enumerate(names):  # of a word that stands twice the first counts
            row_of.setdefault(text_of(name), row)
        for row, name in enumerate(names):
            row_of.setdefault(name, row)
        return _Rows(row_of, tables.token.tensor())


def _tensor(text: str, vector: Any) -> Tensor:
    try:
        return torch.as_tensor(vector, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        found = " ".join(str(error).split())
        raise TokenizerError(f"vector of {text!r}", "be a tensor, or a list of numbers", found, "Correct it") from error


class _Rows(Mapping[str, Tensor]):
    """Rows of a table by text, taken when asked for."""

    def __init__(self, row_of: Mapping[str, int], table_VD: Tensor) -> None:
        self._row_of, self._table = row_of, table_VD

    def __getitem__(self, text: str) -> Tensor:
        return self._table[self._row_of[text]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._row_of)

    def __len__(self) -> int:
        return len(self._row_of)


@dataclass(frozen=True, eq=False, kw_only=True)
class Drawer:
    """Draws the new rows of one edit, table by table.

    Attributes:
        new: The recipe.
        texts: The new tokens.
        pieces: The ids of each under the tokenizer before; needed by "subtokens" alone.
        token_ids: The rows that have a token, int64.
        generator: What "normal" draws from.
    """

    new: NewRows
    texts: Sequence[str]
    pieces: Sequence[Sequence[int]]
    token_ids: Tensor
    generator: torch.Generator

    def draw(self, table_VD: Tensor, num_padding: int, *, is_input: bool) -> Tensor:
        """The rows of the new tokens and then those of new padding, which is the mean: (N + padding, D).

        Padding of zeros would have a logit of 0, which may well be the highest.

        Args:
            table_VD: As before the edit; of any number of axes, the first of them by rows.
            num_padding: How many rows of padding.
            is_input: Whether given vectors are meant for it.
        """
        flat = table_VD.detach().reshape(len(table_VD), -1)
        N, D = len(self.texts), flat.shape[1]
        if not N + num_padding:
            return table_VD.new_empty(0, *table_VD.shape[1:])
        recipe = self.new.recipe
        mean = _mean(flat, self.token_ids) if num_padding or recipe not in ("subtokens", "zeros") else flat.new_zeros(D)
        rows = mean.double().repeat(N + num_padding, 1)
        if recipe == "zeros":
            rows[:N] = 0.0
        elif recipe == "normal":
            rows[:N] += torch.randn(N, D, generator=self.generator, dtype=torch.float64) * _std(
                flat, self.token_ids, mean
            )
        elif recipe == "subtokens":
            for row, ids in enumerate(self.pieces):
                rows[row] = flat[torch.tensor(ids, device=flat.device)].double().mean(dim=0).cpu()
        elif recipe == "vectors" and is_input:
            rows[:N] = self.new.given(self.texts, D).double()
        return rows.to(table_VD.dtype).to(table_VD.device).view(len(rows), *table_VD.shape[1:])

    def told(self, table_VD: Tensor) -> str:
        """The recipe in words, with its scale."""
        recipe = self.new.recipe
        if recipe in ("mean", "normal"):
            mean = _mean(table_VD.detach(), self.token_ids)
        if recipe == "mean":
            return f"the mean of {len(self.token_ids):,} tokens' rows, length {mean.norm().item():.4g}"
        if recipe == "normal":
            scale = _std(table_VD.detach(), self.token_ids, mean).square().mean().sqrt().item()
            return f"normal, around each column's mean with its standard deviation ({scale:.4g} on the whole)"
        return {
            "subtokens": "the mean of the rows of each token's pieces",
            "zeros": "zeros",
            "vectors": "the vectors given; heads and biases begin at their mean",
        }[recipe]


def _mean(flat_VD: Tensor, ids: Tensor) -> Tensor:
    """Of each column over some rows, float64 on the CPU, a part at a time."""
    total = torch.zeros(flat_VD.shape[1], dtype=torch.float64)
    for part in ids.split(_ROWS_AT_ONCE):
        total += flat_VD.index_select(0, part.to(flat_VD.device)).sum(dim=0, dtype=torch.float64).cpu()
    return total / max(1, len(ids))


def _std(flat_VD: Tensor, ids: Tensor, mean_D: Tensor) -> Tensor:
    """The standard deviation of each column over some rows, likewise."""
    squares = torch.zeros(flat_VD.shape[1], dtype=torch.float64)
    mean = mean_D.to(flat_VD.device, torch.float32)
    for part in ids.split(_ROWS_AT_ONCE):
        apart = flat_VD.index_select(0, part.to(flat_VD.device)).float().sub_(mean).square_()
        squares += apart.sum(dim=0, dtype=torch.float64).cpu()
    return (squares / max(1, len(ids))).sqrt()
