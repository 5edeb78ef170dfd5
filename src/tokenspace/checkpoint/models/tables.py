"""A model's input side and head, as tables on disk.

Axis letters: V rows of the token table, D d_model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tokenspace import positions
from tokenspace.checkpoint.models.folder import ModelFolder
from tokenspace.checkpoint.models.schemes import NamedScheme
from tokenspace.checkpoint.models.table import Table
from tokenspace.checkpoint.models.words import text_of, word_tokenizer
from tokenspace.embedding import InputEmbedding, TokenEmbedding
from tokenspace.errors import CheckpointError, TokenspaceError
from tokenspace.positions import ModelShape, Scheme
from tokenspace.positions.learned import Learned
from tokenspace.tokenizer import Tokenizer

_TOKENIZER = "tokenizer.json"
_NUMBERS_AT_ONCE = 4_000_000
_TABLES = ("learned", "t5")  # schemes whose sizes are those of their one table


class Norm(NamedTuple):
    """A LayerNorm over the sum of the input embedding."""

    weight: Table
    bias: Table
    eps: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Tables:
    """The tables of a model on disk; made by `open_tables`. No tensor is read before it is asked for.

    Attributes:
        path: The folder or file.
        family: What the model is: "tokenspace", a ``model_type`` such as "gpt2", or a format such as "npy".
        token: The token table, (num_rows, d_model).
        stored_head: The head's own tensor, where the file has one, tied or not.
        head_bias: The head's bias, (num_rows,).
        tie_flag: What the config says of the head being the token table; None where there is no head.
        copies: Further tensors that should be the token table.
        scheme: Name of the position scheme and its settings, as `positions.get` takes them; those that follow
            from `shape` may be missing.
        scheme_tensors: The scheme's learned tensors by their names in it.
        shape: The model's sizes, where the scheme's settings need them.
        position_offset: Added to every position.
        token_types: Table of token types, (types, d_model).
        norm: LayerNorm over the sum.
        scale: Factor on the token vectors, rounded to the table's dtype.
        config: The model's own settings as they stand in its file; empty for files of vectors.
        words: What stands for each row in files of vectors, as it stands there; `texts` reads it.
        tokenizer_json: The text of a tokenizer.json that lies in the file itself.
    """

    path: Path
    family: str
    token: Table
    stored_head: Table | None = None
    head_bias: Table | None = None
    tie_flag: bool | None = None
    copies: tuple[Table, ...] = ()
    scheme: NamedScheme = ("none", {})
    scheme_tensors: Mapping[str, Table] = field(default_factory=dict)
    shape: ModelShape | None = None
    position_offset: int = 0
    token_types: Table | None = None
    norm: Norm | None = None
    scale: float = 1.0
    config: Mapping[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] | None = None
    tokenizer_json: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        shape = self.token.shape
        if len(shape) != 2 or not all(shape) or not self.token.dtype.is_floating_point:
            self._refuse(self.token, "be floats of shape (rows, columns)")
        for table in filter(None, (self.stored_head, self.token_types, self.position)):
            if len(table.shape) != 2 or table.shape[1] != shape[1]:
                self._refuse(table, f"be of shape (rows, {shape[1]})")
        for table in () if self.norm is None else self.norm[:2]:
            if table.shape != shape[1:]:
                self._refuse(table, f"be of shape ({shape[1]},)")

    @property
    def num_rows(self) -> int:
        """Rows of the token table, padding included."""
        return self.token.shape[0]

    @property
    def d_model(self) -> int:
        """Length of a token vector."""
        return self.token.shape[1]

    @cached_property
    def vocab_size(self) -> int | None:
        """The tokenizer's size, which may differ from `num_rows`; None where there is no tokenizer."""
        return None if self.tokenizer is None else self.tokenizer.vocab_size

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """That of the folder, or one of the file's words; opened when first asked for, None where there is none.

        Raises:
            TokenizerError: the file is damaged.
        """
        if self.texts is not None:
            return word_tokenizer(self.texts, self.path.name)
        if self.tokenizer_json is not None:
            return Tokenizer.from_json(self.tokenizer_json, self.path.name)
        if not self.path.is_dir():
            return None
        file = ModelFolder(self.path).file(_TOKENIZER)
        return Tokenizer.from_file(file) if file.is_file() else None

    @cached_property
    def texts(self) -> tuple[str, ...] | None:
        """The text of each row, in files of vectors that have words: labels of tokens read back."""
        return None if self.words is None else tuple(map(text_of, self.words))

    def label(self, row: int) -> str:
        r"""A printable name of a row without white space, different for every row; ``\id{…}`` where it has no token."""
        if self.words is not None:
            return self.words[row]
        if self.vocab_size is not None and row < self.vocab_size:
            return self.tokenizer.label(row)
        return f"\\id{{{row}}}"

    @property
    def is_run(self) -> bool:
        """Whether it is a run folder of this package."""
        return (self.path / "config.toml").is_file()

    @cached_property
    def tied(self) -> bool | None:
        """Whether the head is the token table; None where there is no head.

        Where the flag says so and the file holds a head all the same, the two are compared: transformers ties
        them only if they are equal.
        """
        if not self.tie_flag or self.stored_head is None:
            return self.tie_flag
        return same_tensors(self.stored_head, self.token)

    @property
    def head(self) -> Table | None:
        """The head's table; None where it is tied, or there is none."""
        return None if self.tied else self.stored_head

    @property
    def position(self) -> Table | None:
        """The table of learned positions; None under other schemes."""
        return self.scheme_tensors["weight"] if self.scheme[0] == Learned.name else None

    def position_scheme(self) -> Scheme:
        """The position scheme, with what it learned.

        Raises:
            CheckpointError: the settings are none of the scheme's, or a tensor does not fit them.
        """
        try:
            if self.scheme[0] in _TABLES:  # compared before memory is taken: a config may name any size
                with torch.device("meta"):
                    self._compare(self._scheme())
            with torch.random.fork_rng([]):  # the first draw, overwritten at once, is none of the caller's
                scheme = self._scheme()
        except CheckpointError:
            raise
        except (TokenspaceError, TypeError, RuntimeError) as error:  # torch's words for sizes that overflow
            found, next_step = str(error).splitlines()[0], "Restore the model's config"
            raise CheckpointError(f"positions of {self.path}", "have settings that fit", found, next_step) from error
        self._compare(scheme)
        scheme.load_state_dict({key: t.tensor().clone() for key, t in self.scheme_tensors.items()}, assign=True)
        return scheme

    def embedding(self) -> InputEmbedding:
        """The model's input embedding, its tables copied, in evaluation mode.

        Returns:
            A module whose output equals that of the model's own input side.

        Raises:
            CheckpointError: a tensor does not fit the config.
        """
        with torch.device("meta"):  # no first draw, which the stored rows would replace
            token = TokenEmbedding(self.num_rows, self.d_model)
        token.weight = nn.Parameter(self.token.tensor().clone())
        return InputEmbedding(
            token,
            self.position_scheme(),
            scale=self.scale,
            position_offset=self.position_offset,
            after=None if self.norm is None else _layer_norm(self.norm),
            token_types=None
            if self.token_types is None
            else nn.Embedding.from_pretrained(self.token_types.tensor().clone(), freeze=False),
        ).eval()

    def _refuse(self, table: Table, rule: str) -> None:
        found = f"{str(table.dtype).removeprefix('torch.')} of shape {list(table.shape)}"
        next_step = "Name another with --table"
        if not table.dtype.is_floating_point:
            next_step = "If the model is quantised, save it without: dequantize().save_pretrained(…)"
        raise CheckpointError(f"{table.key or 'table'} of {table.file}", rule, found, next_step)

    def _scheme(self) -> Scheme:
        name, settings = self.scheme
        if self.shape is None:
            return positions.get(name, **settings)
        return positions.for_model(name, self.shape, **settings)

    def _compare(self, scheme: Scheme) -> None:
        own = scheme.state_dict()
        for key in sorted(own.keys() | self.scheme_tensors.keys()):
            wanted = list(own[key].shape) if key in own else "absent"
            found = list(self.scheme_tensors[key].shape) if key in self.scheme_tensors else "absent"
            if wanted != found:
                stored = self.scheme_tensors[key].key if key in self.scheme_tensors else key
                raise CheckpointError(f"{stored} in {self.path}", f"be {wanted}", found, "Restore the model's config")


def same_tensors(first: Table, second: Table) -> bool:
    """Whether two tables hold the same numbers, read a part at a time."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    a, b = first.tensor(), second.tensor()
    return all(torch.equal(a[rows], b[rows]) for rows in row_slices(a))


def row_slices(table_VD: Tensor) -> list[slice]:
    """Rows a few million numbers at a time, for passes over tables that need not fit into memory."""
    step = max(1, _NUMBERS_AT_ONCE // max(1, table_VD[:1].numel()))
    return [slice(first, first + step) for first in range(0, len(table_VD), step)]


def _layer_norm(norm: Norm) -> nn.LayerNorm:
    with torch.device("meta"):
        module = nn.LayerNorm(norm.weight.shape, eps=norm.eps)
    module.load_state_dict({"weight": norm.weight.tensor().clone(), "bias": norm.bias.tensor().clone()}, assign=True)
    return module
