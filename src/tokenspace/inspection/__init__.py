"""Looking at token and position vectors; every answer is plain data that shows itself in notebooks.

Everything is exact: neighbours are found over the whole table, spectra from all rows.
Nothing here prints, trains or changes what it looks at.
"""

from tokenspace.inspection.indicators import IndicatedToken as IndicatedToken
from tokenspace.inspection.indicators import Indicators as Indicators
from tokenspace.inspection.indicators import cosine_indicator as cosine_indicator
from tokenspace.inspection.indicators import norm_indicator as norm_indicator
from tokenspace.inspection.indicators import untrained_indicators as untrained_indicators
from tokenspace.inspection.indicators import unused_tokens as unused_tokens
from tokenspace.inspection.nearest import NearestRows as NearestRows
from tokenspace.inspection.nearest import nearest_rows as nearest_rows
from tokenspace.inspection.results import Neighbour as Neighbour
from tokenspace.inspection.results import Neighbours as Neighbours
from tokenspace.inspection.results import OrderComparison as OrderComparison
from tokenspace.inspection.results import OrderWord as OrderWord
from tokenspace.inspection.results import Shown as Shown
from tokenspace.inspection.results import TableSummary as TableSummary
from tokenspace.inspection.results import TokenRow as TokenRow
from tokenspace.inspection.results import TokenRows as TokenRows
from tokenspace.inspection.tables import frequent_words as frequent_words
from tokenspace.inspection.tables import neighbours as neighbours
from tokenspace.inspection.tables import position_similarity as position_similarity
from tokenspace.inspection.tables import position_vectors as position_vectors
from tokenspace.inspection.tables import summary as summary
from tokenspace.inspection.texts import order as order
from tokenspace.inspection.texts import random_embedding as random_embedding
from tokenspace.inspection.texts import tokens as tokens
from tokenspace.inspection.training import LedgerToken as LedgerToken
from tokenspace.inspection.training import MovedTokens as MovedTokens
from tokenspace.inspection.training import UntrainedTokens as UntrainedTokens
from tokenspace.inspection.training import moved as moved
from tokenspace.inspection.training import untrained as untrained
from tokenspace.inspection.verification import Finding as Finding
from tokenspace.inspection.verification import Verification as Verification
from tokenspace.inspection.verification import verify as verify
