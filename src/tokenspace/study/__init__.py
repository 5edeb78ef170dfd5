"""The study: which position scheme for my text?

The same model is trained with several schemes and seeds (`studying`), each run in a run folder
of its own (`running`, `workers`), and measured (`measuring`): loss by position and beyond the
trained length (`lengths`), and four probes of what it knows of order (`pairs`, `tasks`). What
can be concluded is a matter of intervals over seeds (`summary`, `student`).

Example:
    >>> from tokenspace import study
    >>> study.SCHEMES[:2]
    ('none', 'learned')
"""

from tokenspace.study.comparison import SCHEMES as SCHEMES
from tokenspace.study.comparison import Comparison as Comparison
from tokenspace.study.estimating import Estimate as Estimate
from tokenspace.study.plan import StudyPlan as StudyPlan
from tokenspace.study.plan import StudySettings as StudySettings
from tokenspace.study.running import RunProgress as RunProgress
from tokenspace.study.studying import Study as Study
from tokenspace.study.studying import compare as compare
from tokenspace.study.studying import estimate as estimate
from tokenspace.study.studying import prepare as prepare
from tokenspace.study.summary import Measure as Measure
from tokenspace.study.summary import Summary as Summary
