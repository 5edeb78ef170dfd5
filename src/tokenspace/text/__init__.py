"""Text sources -> documents, streamed in pieces, never whole.

Files, folders, stores, JSON Lines, Parquet, standard input and strings; see `sources` for what
is read how, and `spans` for parts of files. Nothing here knows of tokens.
"""

from tokenspace.text.pieces import Piece as Piece
from tokenspace.text.pieces import join_documents as join_documents
from tokenspace.text.pieces import read_strings as read_strings
from tokenspace.text.sources import STDIN as STDIN
from tokenspace.text.sources import list_files as list_files
from tokenspace.text.sources import read_documents as read_documents
from tokenspace.text.sources import source_bytes as source_bytes
from tokenspace.text.spans import SourceFile as SourceFile
from tokenspace.text.spans import Span as Span
from tokenspace.text.spans import plan_spans as plan_spans
from tokenspace.text.spans import read_span as read_span
