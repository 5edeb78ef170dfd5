"""Vocabularies edited with a receipt: tokens added, removed, trimmed, put in another order; rows of padding.

Table, head, bias, tokenizer, ledger and optimiser state change together, and ties are kept, in a
live model (`grow` and the others) or on disk (`edit_model`).
"""

from tokenspace.vocabulary.changes import Add as Add
from tokenspace.vocabulary.changes import Change as Change
from tokenspace.vocabulary.changes import Remove as Remove
from tokenspace.vocabulary.changes import Reorder as Reorder
from tokenspace.vocabulary.changes import Resize as Resize
from tokenspace.vocabulary.disk import edit_model as edit_model
from tokenspace.vocabulary.live import Edited as Edited
from tokenspace.vocabulary.live import apply as apply
from tokenspace.vocabulary.live import grow as grow
from tokenspace.vocabulary.live import remove as remove
from tokenspace.vocabulary.live import reorder as reorder
from tokenspace.vocabulary.live import resize as resize
from tokenspace.vocabulary.live import trim as trim
from tokenspace.vocabulary.receipt import Receipt as Receipt
from tokenspace.vocabulary.rows import NewRows as NewRows
from tokenspace.vocabulary.trimming import Trim as Trim
