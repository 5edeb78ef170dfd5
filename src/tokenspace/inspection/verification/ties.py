"""The head and the token table: what the config says of them against what the tensors are."""

from collections.abc import Iterator

from tokenspace.checkpoint.models import Table, Tables
from tokenspace.checkpoint.models.tables import row_slices, same_tensors
from tokenspace.inspection.verification.finding import Finding

_FLAG = "tie_word_embeddings"


def tie_findings(tables: Tables) -> Iterator[Finding]:
    """The tie flag against the tensors; other copies of the table; sizes of head and bias."""
    head, token = tables.stored_head, tables.token
    flag = "tie_head" if tables.family == "tokenspace" else _FLAG
    if tables.tie_flag and head is not None and not tables.tied:
        found = f"{flag} is true, but {head.key} differs from {token.key} {_difference(head, token)}"
        next_step = f"Set {flag} to false: a tool that ties them loses one of the two"
        yield Finding("error", "tie-flag", head.key, found, next_step)
    elif tables.tie_flag is False and head is None:
        found = f"{flag} is false, and the files hold no head"
        next_step = f"Set {flag} to true if the head is the table, else save the model again with its head"
        yield Finding("error", "head-missing", str(tables.path), found, next_step)
    elif tables.tie_flag is False and same_tensors(head, token):
        found = f"{flag} is false, but {head.key} is equal to {token.key}"
        yield Finding("warning", "tie-flag", head.key, found, f"Set {flag} to true, unless the two are to part")
    for copy in tables.copies:
        if not same_tensors(copy, token):
            found = f"it differs from {token.key}, which it should be {_difference(copy, token)}"
            yield Finding("error", "copies", copy.key, found, "Find out which of the two was trained, and remove it")
    yield from _size_findings(tables)


def _size_findings(tables: Tables) -> Iterator[Finding]:
    rows = tables.num_rows
    for table in (tables.stored_head, tables.head_bias):
        if table is not None and table.shape[0] != rows:
            found = f"{table.shape[0]:,} rows, where the token table has {rows:,}"
            yield Finding("error", "head-rows", table.key, found, "Resize both together: `tokenspace vocab resize`")
    vocab_size = tables.config.get("model" if tables.family == "tokenspace" else "text_config", tables.config)
    stated = vocab_size.get("vocab_size") if isinstance(vocab_size, dict) else None
    if stated is not None and stated != rows:
        found = f"vocab_size is {stated}, but {tables.token.key} has {rows:,} rows"
        yield Finding("error", "vocab-size", "config", found, f"Set vocab_size to {rows}")


def _difference(one: Table, other: Table) -> str:
    if one.shape != other.shape:
        return f"(shape {list(one.shape)} against {list(other.shape)})"
    a, b = one.tensor(), other.tensor()
    rows = sum(int((a[part] != b[part]).any(dim=1).sum()) for part in row_slices(a))
    return f"in {rows:,} of {len(a):,} rows" if rows else f"({one.dtype} against {other.dtype})"
