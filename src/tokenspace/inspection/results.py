"""What an inspection finds: plain data that shows itself as a table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from tokenspace.checkpoint import Tables
from tokenspace.tokenizer import Tokenizer


class Shown:
    """A result that knows itself as a table: `header` and `rows` of text, for terminals and notebooks."""

    def header(self) -> list[str]:
        """Names of the columns."""
        raise AssertionError  # every result has its own

    def rows(self) -> list[list[str]]:
        """The cells, as text."""
        raise AssertionError

    def fields(self) -> dict[str, Any]:
        """The result as plain dictionaries, lists and numbers, for JSON."""
        return asdict(self)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in self.header())
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True)
class TokenRow:
    """One token of a text, and the first components of its vectors."""

    position: int
    id: int
    label: str
    bytes: str
    token: list[float]
    position_vector: list[float]
    sum: list[float]


@dataclass(frozen=True)
class TokenRows(Shown):
    """A text as the first layer of a model reads it.

    Attributes:
        tokens: One row a token.
        d_model: Length of the whole vectors.
    """

    tokens: list[TokenRow]
    d_model: int

    def header(self) -> list[str]:
        """Names of the columns."""
        return ["pos", "id", "token", "bytes", "token vector", "+ position", "= sum"]

    def rows(self) -> list[list[str]]:
        """One a token."""
        return [
            [str(t.position), str(t.id), t.label, t.bytes, *(_numbers(v) for v in (t.token, t.position_vector, t.sum))]
            for t in self.tokens
        ]


@dataclass(frozen=True)
class Neighbour:
    """A token near another one, by cosine."""

    id: int
    label: str
    cosine: float


@dataclass(frozen=True)
class Neighbours(Shown):
    """The tokens whose vectors point most nearly the same way as one token's."""

    id: int
    label: str
    nearest: list[Neighbour]

    def header(self) -> list[str]:
        """Names of the columns."""
        return [f"nearest to {self.label}", "id", "cosine"]

    def rows(self) -> list[list[str]]:
        """Nearest first."""
        return [[n.label, str(n.id), f"{n.cosine:.3f}"] for n in self.nearest]


@dataclass(frozen=True)
class TableSummary(Shown):
    """One table in numbers.

    Attributes:
        name: Of the table.
        shape: Rows and columns.
        norm_mean: Mean length of a row.
        norm_std: Standard deviation of the lengths.
        norm_min: Shortest row.
        norm_max: Longest row.
        effective_rank: exp of the entropy of the singular values' shares (Roy & Vetterli 2007); None where they
            were not asked for.
        spectrum: Singular values, largest first.
    """

    name: str
    shape: tuple[int, int]
    norm_mean: float
    norm_std: float
    norm_min: float
    norm_max: float
    effective_rank: float | None
    spectrum: list[float]

    def header(self) -> list[str]:
        """Names of the columns."""
        return [self.name, "value"]

    def rows(self) -> list[list[str]]:
        """Shape, norms, rank and spectrum."""
        rows = [
            ["shape", f"{self.shape[0]:,} × {self.shape[1]}"],
            ["row norm, mean ± std", f"{self.norm_mean:.3f} ± {self.norm_std:.3f}"],
            ["row norm, least … most", f"{self.norm_min:.3f} … {self.norm_max:.3f}"],
        ]
        if self.effective_rank is None:
            return rows
        return [
            *rows,
            ["effective rank", f"{self.effective_rank:.1f} of {min(self.shape)}"],
            ["largest singular values", " ".join(f"{value:.2f}" for value in self.spectrum[:6])],
        ]


@dataclass(frozen=True)
class OrderWord:
    """One word of two texts.

    Attributes:
        word: Its tokens.
        positions: Of its first token in the first text and in the second.
        distance: Root mean square, over its tokens, of the distance between their two vectors with positions.
    """

    word: str
    positions: tuple[int, int]
    distance: float


@dataclass(frozen=True)
class OrderComparison(Shown):
    """Two texts of words, as bags of token vectors and as vectors with positions.

    Attributes:
        same_tokens: Whether the two have the same tokens, each as often.
        bag_distance: Between the sums of their token vectors; 0 for the same tokens.
        set_distance: Root mean square distance between the vectors with positions, each token
            with the same one of the other text. None where the tokens differ.
        words: Each word of the first text; empty where the tokens differ.
        scheme: Name of the position scheme.
    """

    same_tokens: bool
    bag_distance: float
    set_distance: float | None
    words: list[OrderWord]
    scheme: str

    def header(self) -> list[str]:
        """Names of the columns."""
        return ["word", "position in 1", "position in 2", "distance of its two vectors"]

    def rows(self) -> list[list[str]]:
        """One a word of the first text."""
        return [[w.word, str(w.positions[0]), str(w.positions[1]), f"{w.distance:.4f}"] for w in self.words]


def token_label(tokenizer: Tokenizer | Tables | None, token_id: int) -> str:
    r"""The tokenizer's label; ``\id{…}`` without one, and for a row beyond its vocabulary, which padded tables have."""
    has_label = tokenizer is not None and (isinstance(tokenizer, Tables) or token_id < tokenizer.vocab_size)
    return tokenizer.label(token_id) if has_label else f"\\id{{{token_id}}}"


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:+.2f}" for value in values)
