"""Token files on disk: documents -> shards of ids under one manifest, and back as arrays.

The files are Megatron-core's indexed format (`format`), bound together by a manifest
(`manifest`). Text in files is built by a plan of tasks (`plan`, `task`, `publish`, `driver`),
documents at hand in one go (`build`); `Corpus` opens what was published. Windows are no matter
of this room.
"""

from tokenspace.corpus.build import build_corpus as build_corpus
from tokenspace.corpus.checking import Fault as Fault
from tokenspace.corpus.checking import find_faults as find_faults
from tokenspace.corpus.checking import repair as repair
from tokenspace.corpus.concat import concatenate as concatenate
from tokenspace.corpus.corpus import Corpus as Corpus
from tokenspace.corpus.corpus import is_corpus as is_corpus
from tokenspace.corpus.corpus import local_folder as local_folder
from tokenspace.corpus.driver import build_planned as build_planned
from tokenspace.corpus.driver import plan_corpus as plan_corpus
from tokenspace.corpus.driver import run_job as run_job
from tokenspace.corpus.estimating import Estimate as Estimate
from tokenspace.corpus.estimating import estimate as estimate
from tokenspace.corpus.manifest import Manifest as Manifest
from tokenspace.corpus.plan import BuildSettings as BuildSettings
from tokenspace.corpus.plan import Plan as Plan
from tokenspace.corpus.publish import publish_job as publish_job
from tokenspace.corpus.reencoding import reencode as reencode
from tokenspace.corpus.source import TextSource as TextSource
from tokenspace.corpus.source import build_from_source as build_from_source
from tokenspace.corpus.source import readable_twice as readable_twice
from tokenspace.corpus.task import Job as Job
