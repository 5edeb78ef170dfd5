"""Which tokens look untrained in a model that has no ledger: indicators from its weights, never a proof.

Source: Land & Bartolo, "Fishing for Magikarp" (EMNLP 2024, arXiv 2405.05417), section 2.2. Its
third step, asking the model to repeat each candidate, is not done here.

Axis letters: V vocabulary, D d_model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenspace.embedding import check_token_ids
from tokenspace.errors import SettingError, check_at_least
from tokenspace.inspection.results import Shown, token_label
from tokenspace.tokenizer import Tokenizer

_ROWS_AT_ONCE = 1_000  # so that a mapped table need not fit into memory
_NEVER_IN_UTF8 = frozenset([0xC0, 0xC1, *range(0xF5, 0x100)])


@dataclass(frozen=True)
class IndicatedToken:
    """A token and what its weights indicate.

    Attributes:
        id: Its row.
        label: Its printable name.
        norm: Length of its row in the token table.
        cosine_distance: Of its output row to the mean unused one; None where no token is known to be unused.
        known_unused: Whether it is one of those that were compared with.
    """

    id: int
    label: str
    norm: float
    cosine_distance: float | None
    known_unused: bool


@dataclass(frozen=True)
class Indicators(Shown):
    """The tokens whose weights look most untrained: indicators, not counts.

    Attributes:
        name: What they are ranked by, lowest first.
        unused: Ids known to be unused, which were compared with.
        tokens: Those that look most untrained.
    """

    name: str
    unused: list[int]
    tokens: list[IndicatedToken]

    def header(self) -> list[str]:
        """Names of the columns."""
        return ["looks untrained", "id", "cosine distance", "norm", "known unused"]

    def rows(self) -> list[list[str]]:
        """Lowest first."""
        return [
            [
                t.label,
                str(t.id),
                "" if t.cosine_distance is None else f"{t.cosine_distance:.4f}",
                f"{t.norm:.4f}",
                "yes" if t.known_unused else "",
            ]
            for t in self.tokens
        ]


def unused_tokens(tokenizer: Tokenizer, num_rows: int) -> list[int]:
    """Rows that no text can ever touch: ids without a token, and tokens of bytes that UTF-8 never has.

    Args:
        tokenizer: The one that the table belongs to.
        num_rows: Of the table, which may have more than the vocabulary.

    Example:
        >>> from tokenspace import Tokenizer
        >>> unused_tokens(Tokenizer.gpt2(), num_rows=50304)[:15]
        [124, 125, 177, 178, 179, 180, 181, 182, 183, 184, 185, 186, 187, 50257, 50258]
    """
    inside = min(tokenizer.vocab_size, num_rows)
    return [*(i for i in range(inside) if _is_unused(tokenizer, i)), *range(tokenizer.vocab_size, num_rows)]


@torch.no_grad()
def cosine_indicator(output_VD: Tensor, unused: Sequence[int]) -> Tensor:
    """Cosine distance of each output row to the mean unused row, without the first principal component.

    Args:
        output_VD: The head's weight; where the head is tied, the token table.
        unused: Ids known to be unused.

    Returns:
        (V,), float64, 0 to 2; low for rows that look like the unused ones.

    Raises:
        SettingError: `unused` is empty.
        ShapeError: an id lies outside the table.
    """
    if not len(unused):
        raise SettingError("unused", "name at least one token that is known to be unused", "empty", "Give its id")
    ids = torch.as_tensor(unused)
    check_token_ids(ids, len(output_VD), "unused")
    component = _first_component(output_VD)

    def without_component(rows: Tensor) -> Tensor:
        rows = rows.cpu().double()
        return rows.addr_(rows @ component, component, alpha=-1)

    mean = sum(without_component(output_VD[some]).sum(dim=0) for some in ids.split(_ROWS_AT_ONCE)) / len(ids)
    parts = (without_component(rows) for rows in output_VD.split(_ROWS_AT_ONCE))
    return 1 - torch.cat([torch.cosine_similarity(part, mean.unsqueeze(0), dim=1) for part in parts])


def _first_component(table_VD: Tensor) -> Tensor:
    """The direction in which rows differ most, (D,), float64."""
    V, D = table_VD.shape
    mean = sum(rows.cpu().double().sum(dim=0) for rows in table_VD.split(_ROWS_AT_ONCE)) / V
    products = torch.zeros(D, D, dtype=torch.float64)
    for rows in table_VD.split(_ROWS_AT_ONCE):
        centred = rows.cpu().double() - mean
        products.addmm_(centred.T, centred)
    return torch.linalg.eigh(products).eigenvectors[:, -1]


@torch.no_grad()
def norm_indicator(input_VD: Tensor) -> Tensor:
    """Length of each row of an untied token table, (V,), float64; low for rows that only weight decay moved."""
    return torch.cat([rows.cpu().double().norm(dim=1) for rows in input_VD.split(_ROWS_AT_ONCE)])


def untrained_indicators(
    input_VD: Tensor,
    tokenizer: Tokenizer,
    *,
    output_VD: Tensor | None = None,
    unused: Sequence[int] | None = None,
    k: int = 20,
) -> Indicators:
    """The `k` tokens that look most untrained.

    Args:
        input_VD: The token table.
        tokenizer: The one that the table belongs to.
        output_VD: The head's weight where it is not tied; the ranking is then by `norm_indicator` of the
            table, otherwise by `cosine_indicator`.
        unused: Ids known to be unused; None for `unused_tokens`.
        k: How many tokens.

    Raises:
        SettingError: the table is tied and no token is known to be unused.
        ShapeError: an id in `unused` lies outside the table.
    """
    check_at_least(1, k=k)
    tied = output_VD is None
    if unused is None:
        unused = unused_tokens(tokenizer, len(input_VD))
    cosine = cosine_indicator(input_VD if tied else output_VD, unused) if tied or len(unused) else None
    norm = norm_indicator(input_VD)
    ranked = (cosine if tied else norm).argsort(stable=True)[:k].tolist()
    known = set(unused)
    return Indicators(
        name="cosine distance of the tied table" if tied else "norm of the token table",
        unused=sorted(known),
        tokens=[
            IndicatedToken(
                id=token_id,
                label=token_label(tokenizer, token_id),
                norm=norm[token_id].item(),
                cosine_distance=None if cosine is None else cosine[token_id].item(),
                known_unused=token_id in known,
            )
            for token_id in ranked
        ],
    )


def _is_unused(tokenizer: Tokenizer, token_id: int) -> bool:
    if tokenizer.partial_utf8[token_id]:
        return not _NEVER_IN_UTF8.isdisjoint(tokenizer.token_bytes(token_id))
    return tokenizer.label(token_id) == f"\\id{{{token_id}}}"  # that of an id without a token
