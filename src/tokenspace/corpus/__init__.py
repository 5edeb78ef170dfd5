"""Token files on disk: documents -> shards of ids under one manifest, and back as arrays.

The files are Megatron-core's indexed format (`format`), bound together by a manifest
(`manifest`); `build` writes a corpus, `Corpus` opens it. Windows are no matter of this room.
"""

from tokenspace.corpus.build import build_corpus as build_corpus
from tokenspace.corpus.corpus import Corpus as Corpus
from tokenspace.corpus.corpus import is_corpus as is_corpus
from tokenspace.corpus.manifest import Manifest as Manifest
from tokenspace.corpus.source import TextSource as TextSource
from tokenspace.corpus.source import build_from_source as build_from_source
from tokenspace.corpus.source import readable_twice as readable_twice
