"""Token files of other tools: read into a corpus, and written from one.

Nothing is tokenised here: the ids stay what they are, and the tokenizer that made them has
to be named, because none of these formats does.
"""

from tokenspace.corpus.interchange.exporting import Format as Format
from tokenspace.corpus.interchange.exporting import export as export
from tokenspace.corpus.interchange.foreign import guess_format as guess_format
from tokenspace.corpus.interchange.megatron import import_megatron as import_megatron
from tokenspace.corpus.interchange.nanogpt import import_nanogpt as import_nanogpt
