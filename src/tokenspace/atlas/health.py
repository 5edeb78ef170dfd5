"""How healthy a token table is, in a few numbers, and its rows that are exactly alike.

Axis letters: V vocabulary, D d_model.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenspace import inspection
from tokenspace.checkpoint.components import finite_rows


def health(table_VD: Tensor, duplicates: np.ndarray) -> tuple[dict[str, float | int], np.ndarray]:
    """Numbers of a table from its rows without NaN, and its singular values.

    Returns:
        ``rows``, ``finite_rows``, ``norm_mean``, ``norm_std``, ``norm_min``, ``norm_max``, ``effective_rank``
        (Roy & Vetterli 2007), ``mean_cosine`` of all pairs of rows, ``isotropy`` (`partition_ratio`),
        ``duplicates``: rows that equal an earlier one.
        float32, (min(V, D),), largest first.
    """
    rows = table_VD[finite_rows(table_VD)]
    summary = inspection.summary(rows, "token table")
    numbers = {
        "rows": len(table_VD),
        "finite_rows": len(rows),
        "norm_mean": summary.norm_mean,
        "norm_std": summary.norm_std,
        "norm_min": summary.norm_min,
        "norm_max": summary.norm_max,
        "effective_rank": summary.effective_rank,
        "mean_cosine": mean_cosine(rows),
        "isotropy": partition_ratio(rows),
        "duplicates": len(duplicates),
    }
    return numbers, np.array(summary.spectrum, dtype=np.float32)


def mean_cosine(table_VD: Tensor) -> float:
    """Mean cosine of all pairs of different rows: 0 where they point everywhere, 1 where all point one way.

    Exact, without a (V, V) product: the squared length of the sum of unit rows holds every pair.

    Source: Ethayarajh 2019 (arXiv:1909.00512), section 3.2, who samples it.

    Example:
        >>> mean_cosine(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))
        0.3333333333333333
    """
    unit = F.normalize(table_VD.double())
    number, own = len(unit), unit.square().sum()  # a row of zeros has cosine 0 with all
    pairs = number * (number - 1)
    return ((unit.sum(dim=0).square().sum() - own) / pairs).item() if pairs else 0.0


def partition_ratio(table_VD: Tensor) -> float:
    """Isotropy, 0 to 1: the least over the largest ``Z(c) = sum over rows w of exp(c · w)``, c the eigenvectors.

    Each of them stands for both of its directions, which Z tells apart and an eigenvector does not.

    Source: Mu & Viswanath 2018, "All-but-the-Top" (arXiv:1702.01417), section 2.

    Example:
        >>> partition_ratio(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        1.0
    """
    rows = table_VD.double()
    axes = torch.linalg.eigh(rows.t() @ rows).eigenvectors
    along = rows @ axes
    logarithms = torch.stack([torch.logsumexp(sign * along, dim=0) for sign in (1, -1)])  # long rows would overflow
    return (logarithms.amin() - logarithms.amax()).exp().item()


def equal_rows(table_VD: Tensor) -> np.ndarray:
    """Rows that equal an earlier one, bit for bit but for the sign of zeros, each with the first of its kind.

    Returns:
        uint32, (pairs, 2), in the order of the second.

    Example:
        >>> equal_rows(torch.tensor([[0.0, 1.0], [2.0, 3.0], [-0.0, 1.0]])).tolist()
        [[0, 2]]
    """
    rows = (table_VD + 0.0).contiguous().numpy()
    first: dict[bytes, int] = {}
    pairs = []
    for number in finite_rows(table_VD).tolist():
        earlier = first.setdefault(hashlib.blake2b(rows[number].tobytes(), digest_size=16).digest(), number)
        if earlier != number:
            pairs.append((earlier, number))
    return np.array(pairs, dtype=np.uint32).reshape(-1, 2)
