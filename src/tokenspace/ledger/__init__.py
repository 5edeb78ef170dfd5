"""The training ledger: what training did to each row of a token table."""

from tokenspace.ledger.ledger import Ledger
from tokenspace.ledger.record import STATES, LedgerRecord

__all__ = ["STATES", "Ledger", "LedgerRecord"]
