"""What a ledger tells of the tokens: those that training never saw, and those that moved most."""

from dataclasses import dataclass

import numpy as np

from tokenspace.errors import check_at_least
from tokenspace.inspection.results import Shown, token_label
from tokenspace.ledger import STATES, LedgerRecord
from tokenspace.tokenizer import Tokenizer


@dataclass(frozen=True)
class LedgerToken:
    """What training did to one token.

    Attributes:
        id: Its row.
        label: Its printable name.
        state: One of `tokenspace.ledger.STATES`.
        input_count: How often it was an input.
        target_count: How often it was a target.
        last_step: The step in which it was last seen, 0 for never.
        displacement: Straight from where it began to where it is.
        path: The way in between, measured now and then: at least this long.
        norm_start: Length of its vector at the start.
        norm_now: Length of its vector now.
    """

    id: int
    label: str
    state: str
    input_count: int
    target_count: int
    last_step: int
    displacement: float
    path: float
    norm_start: float
    norm_now: float


@dataclass(frozen=True)
class UntrainedTokens(Shown):
    """The tokens that training never saw.

    Attributes:
        step: Optimiser steps of the ledger.
        states: How many tokens are in each of the four states.
        tokens: Those never seen, by id.
    """

    step: int
    states: dict[str, int]
    tokens: list[LedgerToken]

    def header(self) -> list[str]:
        """Names of the columns."""
        return ["never seen", "id", "moved by", "norm before", "now"]

    def rows(self) -> list[list[str]]:
        """One a token."""
        return [
            [t.label, str(t.id), f"{t.displacement:.4f}", f"{t.norm_start:.3f}", f"{t.norm_now:.3f}"]
            for t in self.tokens
        ]


@dataclass(frozen=True)
class MovedTokens(Shown):
    """The tokens that stand farthest from where they began.

    Attributes:
        step: Optimiser steps of the ledger.
        every: Steps between two measurements of a token's path.
        tokens: Farthest first.
    """

    step: int
    every: int
    tokens: list[LedgerToken]

    def header(self) -> list[str]:
        """Names of the columns."""
        return ["moved most", "id", "by", "path ≥", "norm before", "now", "inputs", "targets", "last seen"]

    def rows(self) -> list[list[str]]:
        """One a token."""
        return [
            [
                t.label,
                str(t.id),
                *(f"{length:.3f}" for length in (t.displacement, t.path, t.norm_start, t.norm_now)),
                *(f"{count:,}" for count in (t.input_count, t.target_count, t.last_step)),
            ]
            for t in self.tokens
        ]


def untrained(record: LedgerRecord, tokenizer: Tokenizer) -> UntrainedTokens:
    """All tokens that were neither input nor target, by id: exactly, by count.

    Args:
        record: `Run.ledger`, or `Ledger.record()` in a loop of one's own.
        tokenizer: The one that the table belongs to.
    """
    states = record.states
    never = np.flatnonzero(states >= STATES.index("never seen, yet moved"))
    return UntrainedTokens(
        step=record.step,
        states={name: int(np.count_nonzero(states == number)) for number, name in enumerate(STATES)},
        tokens=_tokens(record, tokenizer, never),
    )


def moved(record: LedgerRecord, tokenizer: Tokenizer, k: int = 20) -> MovedTokens:
    """The `k` tokens that stand farthest from where they began, farthest first.

    Raises:
        SettingError: `k` is below 1.
    """
    check_at_least(1, k=k)
    farthest = np.argsort(-record.displacement, kind="stable")[:k]
    return MovedTokens(step=record.step, every=record.every, tokens=_tokens(record, tokenizer, farthest))


def _tokens(record: LedgerRecord, tokenizer: Tokenizer, ids: np.ndarray) -> list[LedgerToken]:
    states = record.states
    return [
        LedgerToken(
            id=token_id,
            label=token_label(tokenizer, token_id),
            state=STATES[states[token_id]],
            input_count=int(record.input_count[token_id]),
            target_count=int(record.target_count[token_id]),
            last_step=int(max(record.last_input[token_id], record.last_target[token_id])),
            displacement=float(record.displacement[token_id]),
            path=float(record.path[token_id]),
            norm_start=float(record.norm_start[token_id]),
            norm_now=float(record.norm_now[token_id]),
        )
        for token_id in ids.tolist()
    ]
