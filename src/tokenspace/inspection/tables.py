"""One table at a time: neighbours, norms, spectrum, and what a scheme adds at each position.

Axis letters: D d_model, V vocabulary, P positions, R rows of any table.
"""

import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenspace.checkpoint.models.tables import Tables, row_slices
from tokenspace.embedding import InputEmbedding
from tokenspace.errors import SettingError, check_at_least
from tokenspace.inspection.results import Neighbour, Neighbours, TableSummary, token_label
from tokenspace.tokenizer import Tokenizer

_NUMBERS_AT_ONCE = 2_000_000  # some 8 MB, which a cache may hold


@torch.no_grad()
def neighbours(
    table_VD: Tensor, token_id: int, tokenizer: Tokenizer | Tables | None, k: int = 10, among: Tensor | None = None
) -> Neighbours:
    """The `k` tokens nearest to one by cosine, exactly, over the whole table.

    Args:
        table_VD: Token vectors.
        token_id: The token; it is not its own neighbour.
        tokenizer: For the labels; or the model's tables, which know them too; None where there is none.
        k: How many.
        among: bool, (V,): tokens to look among; None for all.

    Raises:
        SettingError: `token_id` lies outside the table, or `k` is below 1.
    """
    check_at_least(1, k=k)
    if not 0 <= token_id < len(table_VD):
        raise SettingError("token", f"have an id in [0, {len(table_VD)})", token_id, "Use an id of this vocabulary")
    cosines = _cosines(table_VD, table_VD[token_id].float())
    cosines[token_id] = -torch.inf
    if among is not None:
        cosines[~among] = -torch.inf
    best = cosines.topk(min(k, len(table_VD) - 1))
    nearest = [
        Neighbour(index, token_label(tokenizer, index), cosine)
        for cosine, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        if cosine > -torch.inf
    ]
    return Neighbours(token_id, token_label(tokenizer, token_id), nearest)


def _cosines(table_VD: Tensor, vector_D: Tensor) -> Tensor:
    """Of every row with one vector, float32, (V,); a part at a time, so that it is read once."""
    vector_D = vector_D / vector_D.norm().clamp(min=1e-8)
    step = max(1, _NUMBERS_AT_ONCE // table_VD.shape[1])
    cosines = torch.empty(len(table_VD), device=table_VD.device)
    for first in range(0, len(table_VD), step):
        part = table_VD[first : first + step].float()
        cosines[first : first + step] = (part @ vector_D) / torch.linalg.vector_norm(part, dim=1).clamp(min=1e-8)
    return cosines


@torch.no_grad()
def summary(table_RD: Tensor, name: str, *, spectrum: bool = True) -> TableSummary:
    """Norms, spectrum and effective rank of a table, from all of its rows R.

    Args:
        table_RD: The rows; read a part at a time, so that a mapped table need not fit into memory.
        name: Of the table.
        spectrum: Whether the singular values are wanted, which take R * D² operations.

    Example:
        >>> summary(torch.eye(4), "identity").effective_rank
        4.0
    """
    norms = torch.cat([table_RD[rows].float().norm(dim=1) for rows in row_slices(table_RD)])
    values = _singular_values(table_RD) if spectrum else torch.empty(0)
    shares = values / values.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return TableSummary(
        name=name,
        shape=tuple(table_RD.shape),
        norm_mean=norms.mean().item(),
        norm_std=norms.std(correction=0).item(),
        norm_min=norms.min().item(),
        norm_max=norms.max().item(),
        effective_rank=round(torch.special.entr(shares).sum().exp().item(), 6) if spectrum else None,
        spectrum=values.tolist(),
    )


def _singular_values(table_RD: Tensor) -> Tensor:
    """Largest first, float64; from the smaller of the two products of the table with itself."""
    R, D = table_RD.shape
    if R <= D:
        small = table_RD.double() @ table_RD.double().T
    else:
        small = torch.zeros(D, D, dtype=torch.float64, device=table_RD.device)
        for rows in row_slices(table_RD):
            part = table_RD[rows].double()
            small.addmm_(part.T, part)
    return torch.linalg.eigvalsh(small).flip(0).clamp(min=0).sqrt()


@torch.no_grad()
def position_vectors(embedding: InputEmbedding, num_positions: int) -> Tensor:
    """What a scheme adds at the positions 0 … P-1, float32, (P, D); zeros where it does not enter here."""
    device, offset = embedding.token.weight.device, embedding.position_offset
    x = torch.zeros(1, num_positions, embedding.token.weight.shape[1], device=device)
    return embedding.position.embed(x, torch.arange(num_positions, device=device) + offset if offset else None)[0]


def position_similarity(embedding: InputEmbedding, num_positions: int) -> Tensor:
    """Cosine of every position's vector with every other's, (P, P)."""
    vectors = position_vectors(embedding, num_positions)
    return F.cosine_similarity(vectors.unsqueeze(1), vectors.unsqueeze(0), dim=-1)


def frequent_words(counts: Sequence[int] | Tensor, tokenizer: Tokenizer, number: int) -> list[int]:
    """Ids of the most frequent tokens that are whole words of four letters or more, each word once.

    Tokens that do not occur are left out.

    Args:
        counts: How often each token occurs, (V,).
        tokenizer: For the tokens' text.
        number: How many; fewer where there are no more.
    """
    counts = torch.as_tensor(counts)
    found: dict[str, int] = {}
    for token_id in counts.argsort(descending=True, stable=True)[: counts.count_nonzero()].tolist():
        text = tokenizer.decode([token_id])
        word = text.strip().lower()
        begins_word = text.startswith(" ") or tokenizer.label(token_id).startswith("▁")
        if begins_word and len(word) >= 4 and all(unicodedata.category(c)[0] in "LM" for c in word):
            found.setdefault(word, token_id)
        if len(found) == number:
            break
    return list(found.values())
