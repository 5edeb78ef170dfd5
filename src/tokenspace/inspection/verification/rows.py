"""The rows of one table: not finite, zero, equal to others, of a length out of line. Read once, a part at a time.

Axis letters: V rows, D columns.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenspace.checkpoint.models import Table
from tokenspace.checkpoint.models.tables import row_slices
from tokenspace.inspection.verification.finding import Finding, listed

_OUT_OF_LINE = 4.0  # times the median, or its fraction: what a table's own spread does not reach
_SPREADS = 8.0


@dataclass(frozen=True)
class RowStatistics:
    """What one pass over a table tells.

    Attributes:
        norms: Length of each row, (V,), float64.
        mean: Mean of the finite rows, (D,), float64.
        not_finite: Rows with a NaN or an infinity.
        zero: Rows of nothing but zeros.
        duplicates: Groups of rows that are equal bit for bit, zeros left out.
    """

    norms: Tensor
    mean: Tensor
    not_finite: list[int]
    zero: list[int]
    duplicates: list[list[int]]

    @property
    def out_of_line(self) -> list[int]:
        """Rows whose length is far from the others': 4 times the median or a quarter, and 8 times the usual spread."""
        usual = torch.isfinite(self.norms) & (self.norms > 0)
        if not usual.any():
            return []
        logarithms = self.norms.clamp(min=torch.finfo(torch.float64).tiny).log()
        away = (logarithms - logarithms[usual].median()).abs()
        spread = 1.4826 * away[usual].median()  # the standard deviation, where lengths are normal
        limit = max(torch.tensor(_OUT_OF_LINE).log().item(), _SPREADS * spread.item())
        return ((away > limit) & usual).nonzero().flatten().tolist()


@torch.no_grad()
def row_statistics(table: Table, advance: Callable[[int, int], None] = lambda done, total: None) -> RowStatistics:
    """Measure all rows of a table; a few million numbers are in memory at a time.

    Args:
        table: Floats, (V, D).
        advance: Called with the rows read, and how many there are.
    """
    stored_VD = table.tensor()
    norms, total, count = [], torch.zeros(table.shape[1], dtype=torch.float64), 0
    not_finite, zero = [], []
    by_digest: dict[bytes, list[int]] = defaultdict(list)
    for rows in row_slices(stored_VD):
        part = stored_VD[rows]
        part_float = part.float() if part.dtype.itemsize < 4 else part
        lengths = torch.linalg.vector_norm(part_float, dim=1, dtype=torch.float64)
        finite = torch.isfinite(part_float).all(dim=1)
        norms.append(lengths.masked_fill(~finite, torch.nan))
        total += part_float[finite].sum(dim=0, dtype=torch.float64)
        count += int(finite.sum())
        not_finite += _ids(~finite, rows.start)
        zero += _ids(lengths == 0, rows.start)
        for row, digest in enumerate(_digests(part), start=rows.start):
            by_digest[digest].append(row)
        advance(min(rows.stop, table.shape[0]), table.shape[0])
    left_out = {*zero, *not_finite}
    groups = [group for group in by_digest.values() if len(group) > 1 and group[0] not in left_out]
    return RowStatistics(torch.cat(norms), total / max(1, count), not_finite, zero, sorted(groups))


def row_findings(
    statistics: RowStatistics, place: str, used: range, label: Callable[[int], str] = str, padding: int | None = None
) -> Iterator[Finding]:
    """What is wrong with the rows of a table.

    Args:
        statistics: Of the table.
        place: Its name.
        used: Rows that something uses; the others may be zero or alike.
        label: Name of a row.
        padding: The row of the padding token, which may be zero.
    """
    yield from _of_rows(
        "error",
        "not-finite-rows",
        place,
        "hold NaN or infinity",
        statistics.not_finite,
        "Take these rows from an earlier checkpoint; training or conversion overflowed",
        label,
    )
    zero = [row for row in statistics.zero if row in used and row != padding]
    next_step = "Give them vectors (`tokenspace vocab`), unless nothing uses them: a head scores all of them 0"
    yield from _of_rows("warning", "zero-rows", place, "are zero", zero, next_step, label)
    alike = [[row for row in group if row in used] for group in statistics.duplicates]
    alike = [group for group in alike if len(group) > 1]
    if alike:
        rows = sorted(row for group in alike for row in group)
        shown = "; ".join(" = ".join(label(row) for row in group[:4]) for group in alike[:4])
        found = f"{len(rows):,} rows in {len(alike):,} groups are equal bit for bit: {shown}"
        next_step = "Check whether they were ever trained: added tokens often share one vector"
        yield Finding("warning", "duplicate-rows", place, found, next_step, rows)
    lengths = statistics.norms[torch.isfinite(statistics.norms) & (statistics.norms > 0)]
    if lengths.numel():
        out = [row for row in statistics.out_of_line if row in used]
        what = f"have a length out of line with the median {lengths.median().item():.4g}"
        next_step = "Look at them with `tokenspace inspect --token ID`; scaled rows upset quantisation and softmax"
        yield from _of_rows("warning", "norms", place, what, out, next_step, label)


def _of_rows(
    level: str, name: str, place: str, what: str, ids: list[int], next_step: str, label: Callable[[int], str]
) -> Iterator[Finding]:
    if ids:
        yield Finding(level, name, place, f"{len(ids):,} rows {what}: {listed(ids, label)}", next_step, ids)


def _ids(mask: Tensor, first: int) -> list[int]:
    return (mask.nonzero().flatten() + first).tolist()


def _digests(part: Tensor) -> Iterator[bytes]:
    data = memoryview(part.contiguous().view(torch.uint8).numpy().reshape(-1))
    width = len(data) // max(1, len(part))
    for row in range(len(part)):
        yield hashlib.blake2b(data[row * width : (row + 1) * width], digest_size=16).digest()
