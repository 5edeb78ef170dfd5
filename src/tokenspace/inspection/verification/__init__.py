"""Checking a model's tables, tokenizer, ties, positions and files: each finding says what to do.

Tables are read a part at a time, so that models of any size can be checked. What only a run of the
model would show is not found here.
"""

from collections.abc import Iterator
from pathlib import Path

from tokenspace.checkpoint.models import Table, Tables, open_tables
from tokenspace.inspection.verification.files import file_findings
from tokenspace.inspection.verification.finding import LEVELS, Finding, Progress, Verification
from tokenspace.inspection.verification.places import position_findings
from tokenspace.inspection.verification.rows import RowStatistics, row_findings, row_statistics
from tokenspace.inspection.verification.ties import tie_findings
from tokenspace.inspection.verification.tokens import (
    config_findings,
    labels_of,
    opened_tokenizer,
    special_token_findings,
    tokenizer_findings,
)
from tokenspace.tokenizer import Tokenizer

__all__ = ["Finding", "RowStatistics", "Verification", "row_statistics", "verify"]


def verify(
    path: str | Path, *, table: str | None = None, progress: Progress = lambda task, done, total: None
) -> Verification:
    """Check a model: its files, rows, ties, tokenizer, special tokens and positions.

    Args:
        path: Whatever `open_tables` opens.
        table: As in `open_tables`.
        progress: Called with what is being read, how much of it is, and how much there is.

    Raises:
        CheckpointError: there is no such thing, or its tables cannot be found.

    Example:
        >>> import tempfile, numpy
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     numpy.save(f"{folder}/vectors.npy", numpy.diag([1.0, 1.0, 0.0]))
        ...     [(finding.name, finding.ids) for finding in verify(f"{folder}/vectors.npy").findings]
        [('zero-rows', [2])]
    """
    tables = open_tables(path, table=table)
    tokenizer, damaged = opened_tokenizer(tables)
    findings = [*damaged, *file_findings(tables), *tie_findings(tables)]
    if tokenizer is not None or not damaged:
        findings += tokenizer_findings(tables, tokenizer)
    findings += [*config_findings(tables, tokenizer), *_row_findings(tables, tokenizer, progress)]
    findings += position_findings(tables)
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    vocab_size = None if tokenizer is None else tokenizer.vocab_size
    return Verification(str(tables.path), tables.family, tables.num_rows, vocab_size, findings)


def _row_findings(tables: Tables, tokenizer: Tokenizer | None, progress: Progress) -> Iterator[Finding]:
    label = labels_of(tables, tokenizer)
    used = range(tables.num_rows if tokenizer is None else tokenizer.vocab_size)
    padding = tables.config.get("pad_token_id")
    statistics = _measured(tables.token, progress)
    yield from row_findings(statistics, tables.token.key or tables.path.name, used, label, padding)
    if tokenizer is not None and tables.words is None:
        yield from special_token_findings(tables, tokenizer, statistics)
    if tables.head is not None:
        yield from row_findings(_measured(tables.head, progress), tables.head.key, used, label, padding)
    for other, first in ((tables.position, tables.position_offset), (tables.token_types, 0)):
        if other is not None:
            yield from row_findings(_measured(other, progress), other.key, range(first, other.shape[0]))


def _measured(table: Table, progress: Progress) -> RowStatistics:
    name = table.key or table.file.name
    return row_statistics(table, lambda done, total: progress(name, done, total))
