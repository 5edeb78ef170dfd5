"""The study: the same model under several position schemes, with seeds.

Example:
    >>> from tokenspace import study
    >>> study.SCHEMES[:2]
    ('none', 'learned')
"""

from tokenspace.study.studying import SCHEMES as SCHEMES
from tokenspace.study.studying import Study as Study
