"""Looks at a model before and after an edit, and writes the receipt."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from tokenspace.ledger import Ledger, LedgerRecord
from tokenspace.tokenizer import Tokenizer
from tokenspace.vocabulary import measuring
from tokenspace.vocabulary.duplicates import count_equal, near_rows
from tokenspace.vocabulary.edit import Edit
from tokenspace.vocabulary.measuring import Measured, measure
from tokenspace.vocabulary.receipt import Changed, Receipt, Size, runs_of
from tokenspace.vocabulary.renumbering import spellings


@dataclass(eq=False, kw_only=True)
class Account:
    """One edit, from before to after.

    Attributes:
        edit: The edit.
        before: The vocabulary before.
        told: How new rows begin, in words.
        text: What is measured on.
        model: What can be run, the same object before and after; None where nothing can.
        ledger: The model's, before and after the edit.
        compared: Ids after the edit, and the logits at them before.
        remarks: For the receipt.
    """

    edit: Edit
    before: Size
    told: str
    text: str | None
    model: nn.Module | None
    ledger: Ledger | None
    compared: tuple[list[int], Tensor] | None
    remarks: list[str]

    @classmethod
    def open(
        cls,
        edit: Edit,
        table_VD: Tensor,
        text: str | None = None,
        *,
        model: nn.Module | None = None,
        ledger: Ledger | None = None,
        why_not_run: str = "",
    ) -> Self:
        """Look at a model before the edit."""
        remarks = []
        if text is not None:
            reason = why_not_run if model is None else measuring.why_not(model)
            if reason:
                model = None
                remarks.append(f"the model cannot be run here, {reason}: no bits per byte, no KL")
            elif not measuring.predicts(model):
                remarks.append("the model predicts no next token from those before: no bits per byte")
        measured, compared = None, None
        if text is not None:
            measured = measure(model, edit.old, text)
            if model is not None and measured.tokens:
                before_ids, after_ids = measuring.contexts(edit, text)
                compared = after_ids, measuring.compared(model, before_ids, edit.kept)
        untrained = _untrained(edit.old_ids, edit.num_rows, ledger)
        before = _size(edit.old, edit.num_rows, table_VD, edit.old_ids, untrained, measured)
        told = edit.drawer().told(table_VD) if edit.texts else ""
        return cls(
            edit=edit,
            before=before,
            told=told,
            text=text,
            model=model,
            ledger=ledger,
            compared=compared,
            remarks=remarks,
        )

    def close(self, table_VD: Tensor, tied: bool | None, changed: list[Changed], recipe: str) -> Receipt:
        """Look at the model after the edit; gives the receipt."""
        edit = self.edit
        ids = torch.cat([edit.to[edit.kept], edit.fresh[: len(edit.texts)]]).sort().values
        untrained = _untrained(ids, edit.new_num_rows, self.ledger) + (0 if self.ledger else len(edit.texts))
        measured = None if self.text is None else measure(self.model, edit.new, self.text)
        divergence = None
        if self.compared is not None:
            after = measuring.compared(self.model, self.compared[0], edit.to[edit.kept])
            divergence = measuring.divergence(self.compared[1], after)
        pieces = edit.drawer().pieces
        added = [{"id": i, "token": t, "pieces": p} for i, t, p in zip(edit.added, edit.texts, pieces, strict=True)]
        written = {token_id: token for token, token_id in spellings(edit.old.settings).items()}
        near = near_rows(table_VD, edit.added, ids)
        return Receipt(
            verb=edit.verb,
            before=self.before,
            after=_size(edit.new, edit.new_num_rows, table_VD, ids, untrained, measured),
            tied=tied,
            changed=changed,
            added=added,
            removed={token_id: written[token_id] for token_id in edit.removed},
            runs=runs_of(edit.to[: edit.old.vocab_size].tolist()),
            recipe=recipe,
            near=[{"id": n.id, "other": n.other, "cosine": n.cosine} for n in near],
            basis="ledger" if self.ledger else "rows without a token, and new ones",
            text_bytes=None if measured is None else measured.bytes,
            divergence=divergence,
            remarks=self.remarks,
        )


def _untrained(ids: Tensor, num_rows: int, ledger: Ledger | None) -> int:
    if ledger is None:
        return num_rows - len(ids)
    record: LedgerRecord = ledger.record()
    never = (record.input_count == 0) & (record.target_count == 0)
    return int(np.count_nonzero(never[ids.numpy()]))


def _size(
    tokenizer: Tokenizer, num_rows: int, table_VD: Tensor, ids: Tensor, untrained: int, measured: Measured | None
) -> Size:
    return Size(
        vocab_size=tokenizer.vocab_size,
        num_rows=num_rows,
        identity=tokenizer.identity,
        equal_rows=count_equal(table_VD, ids),
        untrained=untrained,
        tokens=None if measured is None else measured.tokens,
        bits_per_byte=None if measured is None else measured.bits_per_byte,
    )
