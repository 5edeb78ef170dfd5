"""Looking at token and position vectors; every answer is plain data that shows itself in notebooks.

Everything is exact: neighbours are found over the whole table, spectra from all rows.
Nothing here prints, trains or changes what it looks at.

Axis letters: T length, D d_model, V vocabulary, P positions.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenspace import positions
from tokenspace.embedding import InputEmbedding, TokenEmbedding
from tokenspace.errors import SettingError, check_at_least
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
        return ["position", "id", "token", "bytes", "token vector", "+ position vector", "= sum"]

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
        effective_rank: exp of the entropy of the singular values' shares (Roy & Vetterli 2007).
        spectrum: Singular values, largest first.
    """

    name: str
    shape: tuple[int, int]
    norm_mean: float
    norm_std: float
    norm_min: float
    norm_max: float
    effective_rank: float
    spectrum: list[float]

    def header(self) -> list[str]:
        """Names of the columns."""
        return [self.name, "value"]

    def rows(self) -> list[list[str]]:
        """Shape, norms, rank and spectrum."""
        return [
            ["shape", f"{self.shape[0]:,} × {self.shape[1]}"],
            ["row norm, mean ± std", f"{self.norm_mean:.3f} ± {self.norm_std:.3f}"],
            ["row norm, least … most", f"{self.norm_min:.3f} … {self.norm_max:.3f}"],
            ["effective rank", f"{self.effective_rank:.1f} of {min(self.shape)}"],
            ["largest singular values", _numbers(self.spectrum[:6])],
        ]


@dataclass(frozen=True)
class OrderWord:
    """One word in two sentences: where it stands, and how far apart its vectors are."""

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
            matched with the same token of the other text (the k-th with the k-th). None where
            the tokens differ.
        words: Each token of the first text with its match; empty where the tokens differ.
        scheme: Name of the position scheme.
    """

    same_tokens: bool
    bag_distance: float
    set_distance: float | None
    words: list[OrderWord]
    scheme: str

    def header(self) -> list[str]:
        """Names of the columns."""
        return ["token", "position in 1", "position in 2", "distance of its two vectors"]

    def rows(self) -> list[list[str]]:
        """One a token of the first text."""
        return [[w.word, str(w.positions[0]), str(w.positions[1]), f"{w.distance:.4f}"] for w in self.words]


def random_embedding(
    vocab_size: int, d_model: int = 64, num_positions: int = 1024, scheme: str = "learned", seed: int = 123
) -> InputEmbedding:
    """An untrained input embedding, the same for the same seed: something to look at before there is a run.

    Example:
        >>> random_embedding(10, d_model=4).token.weight.shape
        torch.Size([10, 4])
    """
    shape = positions.ModelShape(
        d_model=d_model, num_heads=1, head_dim=d_model, num_layers=1, context_length=num_positions
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        token = TokenEmbedding(vocab_size, d_model)
        position = positions.for_model(scheme, shape)
        position.reset_tables(1.0)
    return InputEmbedding(token, position).eval()


@torch.no_grad()
def tokens(text: str, tokenizer: Tokenizer, embedding: InputEmbedding, components: int = 3) -> TokenRows:
    """A text as the first layer of a model reads it, one row a token.

    Args:
        text: Any text of at least one token.
        tokenizer: The one that the table belongs to.
        embedding: The tables.
        components: How many components of each vector are given.

    Raises:
        SettingError: the text has no token.
        ShapeError: it has more tokens than positions, or tokens that the table lacks.
    """
    check_at_least(1, components=components)
    ids = tokenizer.encode(text)
    if not ids:
        raise SettingError("text", "have at least one token", text, "Give a word")
    token_TD, position_TD, sum_TD = _vectors(ids, embedding)
    rows = [
        TokenRow(
            position=place,
            id=token_id,
            label=tokenizer.label(token_id),
            bytes=_shown_bytes(tokenizer, token_id),
            token=token_TD[place, :components].tolist(),
            position_vector=position_TD[place, :components].tolist(),
            sum=sum_TD[place, :components].tolist(),
        )
        for place, token_id in enumerate(ids)
    ]
    return TokenRows(rows, sum_TD.shape[1])


@torch.no_grad()
def order(first: str, second: str, tokenizer: Tokenizer, embedding: InputEmbedding) -> OrderComparison:
    """Compare two texts as bags of token vectors and with positions.

    Every word, the first one too, is encoded with one space before it: otherwise byte-level
    vocabularies give a word another token where it opens the text. Note that adding positions
    leaves the *sum* over a text as it was; what differs is each vector, which is what
    attention reads.

    Raises:
        SettingError: a text has no word.
        ShapeError: a text has more tokens than there are positions.
    """
    ids = [_word_ids(text, tokenizer) for text in (first, second)]
    token, _, with_positions = zip(*(_vectors(some, embedding) for some in ids), strict=True)
    # summed in the order of the ids, in float64, so that the same tokens give the same bits
    bags = [t[torch.tensor(some).argsort(stable=True)].double().sum(dim=0) for t, some in zip(token, ids, strict=True)]
    same = sorted(ids[0]) == sorted(ids[1])
    words = []
    if same:
        for here, there in _matched(ids[0], ids[1]):
            distance = (with_positions[0][here] - with_positions[1][there]).norm().item()
            words.append(OrderWord(tokenizer.label(ids[0][here]), (here, there), distance))
    return OrderComparison(
        same_tokens=same,
        bag_distance=(bags[0] - bags[1]).norm().item(),
        set_distance=(sum(w.distance**2 for w in words) / len(words)) ** 0.5 if same else None,
        words=words,
        scheme=embedding.position.name,
    )


@torch.no_grad()
def neighbours(
    table_VD: Tensor, token_id: int, tokenizer: Tokenizer, k: int = 10, among: Tensor | None = None
) -> Neighbours:
    """The `k` tokens nearest to one by cosine, exactly, over the whole table.

    Args:
        table_VD: Token vectors.
        token_id: The token; it is not its own neighbour.
        tokenizer: For the labels.
        k: How many.
        among: bool, (V,): tokens to look among; None for all.

    Raises:
        SettingError: `token_id` lies outside the table, or `k` is below 1.
    """
    check_at_least(1, k=k)
    if not 0 <= token_id < len(table_VD):
        raise SettingError("token", f"have an id in [0, {len(table_VD)})", token_id, "Use an id of this vocabulary")
    cosines = F.cosine_similarity(table_VD.float(), table_VD[token_id].float(), dim=-1)
    cosines[token_id] = -torch.inf
    if among is not None:
        cosines[~among] = -torch.inf
    best = cosines.topk(min(k, len(table_VD) - 1))
    nearest = [
        Neighbour(index, tokenizer.label(index), cosine)
        for cosine, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        if cosine > -torch.inf
    ]
    return Neighbours(token_id, tokenizer.label(token_id), nearest)


@torch.no_grad()
def summary(table_RD: Tensor, name: str) -> TableSummary:
    """Norms, spectrum and effective rank of a table, from all of its rows R.

    Example:
        >>> summary(torch.eye(4), "identity").effective_rank
        4.0
    """
    norms = table_RD.float().norm(dim=1)
    rows = table_RD.double()
    small = rows.T @ rows if rows.shape[0] > rows.shape[1] else rows @ rows.T
    spectrum = torch.linalg.eigvalsh(small).flip(0).clamp(min=0).sqrt()
    shares = spectrum / spectrum.sum().clamp(min=torch.finfo(spectrum.dtype).tiny)
    entropy = torch.special.entr(shares).sum()
    return TableSummary(
        name=name,
        shape=tuple(table_RD.shape),
        norm_mean=norms.mean().item(),
        norm_std=norms.std(correction=0).item(),
        norm_min=norms.min().item(),
        norm_max=norms.max().item(),
        effective_rank=round(entropy.exp().item(), 6),
        spectrum=spectrum.tolist(),
    )


@torch.no_grad()
def position_vectors(embedding: InputEmbedding, num_positions: int) -> Tensor:
    """What a scheme adds at the positions 0 … P-1, float32, (P, D); zeros where it does not enter here."""
    x = torch.zeros(1, num_positions, embedding.token.weight.shape[1])
    return embedding.position.embed(x)[0]


def position_similarity(embedding: InputEmbedding, num_positions: int) -> Tensor:
    """Cosine of every position's vector with every other's, (P, P)."""
    vectors = position_vectors(embedding, num_positions)
    return F.cosine_similarity(vectors.unsqueeze(1), vectors.unsqueeze(0), dim=-1)


def frequent_words(counts: Sequence[int] | Tensor, tokenizer: Tokenizer, number: int) -> list[int]:
    """Ids of the most frequent tokens that are whole words of four letters or more, each word once.

    Args:
        counts: How often each token occurs, (V,).
        tokenizer: For the tokens' text.
        number: How many; fewer where the vocabulary has no more.
    """
    found: dict[str, int] = {}
    for token_id in torch.as_tensor(counts).argsort(descending=True, stable=True).tolist():
        text = tokenizer.decode([token_id])
        word = text.strip().lower()
        begins_word = text.startswith(" ") or tokenizer.label(token_id).startswith("▁")
        if begins_word and len(word) >= 4 and all(unicodedata.category(c)[0] in "LM" for c in word):
            found.setdefault(word, token_id)
        if len(found) == number:
            break
    return list(found.values())


def _vectors(ids: list[int], embedding: InputEmbedding) -> tuple[Tensor, Tensor, Tensor]:
    """Token vectors, position vectors and what the model reads, each (T, D)."""
    batch = torch.tensor([ids])
    training = embedding.training
    embedding.eval()  # no dropout
    try:
        return embedding.token(batch)[0], position_vectors(embedding, len(ids)), embedding(batch)[0]
    finally:
        embedding.train(training)


def _word_ids(text: str, tokenizer: Tokenizer) -> list[int]:
    ids = [token_id for word in text.split() for token_id in tokenizer.encode(f" {word}")]
    if not ids:
        raise SettingError("text", "have at least one word", text, "Give a sentence")
    return ids


def _matched(first: list[int], second: list[int]) -> list[tuple[int, int]]:
    """Places of the same tokens in two lists, the k-th of a token with its k-th."""
    places: dict[int, list[int]] = {}
    for place, token_id in enumerate(second):
        places.setdefault(token_id, []).append(place)
    return [(place, places[token_id].pop(0)) for place, token_id in enumerate(first)]


def _shown_bytes(tokenizer: Tokenizer, token_id: int) -> str:
    try:
        return tokenizer.token_bytes(token_id).hex(" ")
    except ValueError:  # a family whose tokens are no bytes
        return "–"


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:+.3f}" for value in values)
