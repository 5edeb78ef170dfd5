"""`manifest.json`: what the token files themselves do not say, under a checksum.

Published last, so that a corpus without it is none. Nothing in it depends on when or where
it was written: the same input gives the same bytes.
"""

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenspace.errors import CorpusError
from tokenspace.files import read_sealed_json, sealed_json
from tokenspace.tokenizer import TokenStatistics

FILE_NAME = "manifest.json"
FORMAT = "tokenspace corpus"
VERSION = 1
BLOCK_BYTES = 4 << 20

_SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # no path, no "..", no suffix


@dataclass(frozen=True)
class Shard:
    """One `.bin` with its `.idx`.

    Attributes:
        name: Of both files, without suffix.
        num_tokens: Ids in the `.bin`.
        num_documents: Documents in the `.idx`.
        bin_bytes: Size of the `.bin`.
        idx_bytes: Size of the `.idx`.
        idx_crc32: Of the whole `.idx`, 8 hexadecimal digits.
        block_crc32s: Of each 4 MiB of the `.bin`, in order.
    """

    name: str
    num_tokens: int
    num_documents: int
    bin_bytes: int
    idx_bytes: int
    idx_crc32: str
    block_crc32s: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """The shards of "train" or "validation", in the order of their tokens."""

    num_tokens: int
    num_documents: int
    max_id: int
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class TokenizerStamp:
    """Which tokenizer made the ids; `identity` decides, the rest is for people."""

    identity: str
    name: str
    vocab_size: int
    eot_id: int | None


@dataclass(frozen=True)
class Source:
    """What one file gave; sizes are of the text as UTF-8, not of the file."""

    name: str
    num_documents: int
    text_bytes: int


@dataclass(frozen=True)
class Manifest:
    """All that is known of a corpus.

    Attributes:
        tokenizer: Which tokenizer made the ids.
        end_of_text: "append" where each document ends with the end-of-text token, else "none".
        dtype: Of the ids, "uint16" or "int32".
        validation_fraction: The share of tokens that was asked for.
        seed: Of the choice of validation documents.
        splits: "train", and "validation" where it is not empty.
        sources: What each file gave, in the order of reading.
        statistics: Counts over all text, both splits together.
    """

    tokenizer: TokenizerStamp
    end_of_text: str
    dtype: str
    validation_fraction: float
    seed: int
    splits: dict[str, Split]
    sources: tuple[Source, ...]
    statistics: TokenStatistics

    @property
    def identity(self) -> str:
        """SHA-256 of the content, in hexadecimal: tells corpora apart, ids and all."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """The text of `manifest.json`."""
        return sealed_json({"format": FORMAT, "version": VERSION, "block_bytes": BLOCK_BYTES, **asdict(self)})

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read and check `manifest.json`.

        Raises:
            CorpusError: it is missing, damaged, altered, or of another format or version.
        """
        fields = read_sealed_json(path, CorpusError)
        found = (fields.pop("format", None), fields.pop("version", None), fields.pop("block_bytes", None))
        if found != (FORMAT, VERSION, BLOCK_BYTES):
            step = "Open it with the version of tokenspace that made it, or build it again"
            raise CorpusError(path.name, f"be of {FORMAT!r}, version {VERSION}", f"{found[0]!r}, {found[1]}", step)
        try:
            return cls._from_fields(fields)
        except (TypeError, KeyError, AttributeError) as error:
            step = "Build the corpus again"
            raise CorpusError(path.name, "have the fields of a manifest", f"wrong ({error})", step) from error

    @classmethod
    def _from_fields(cls, fields: dict) -> "Manifest":
        return cls(
            **{
                **fields,
                "tokenizer": TokenizerStamp(**fields["tokenizer"]),
                "splits": {name: _split_from(split) for name, split in fields["splits"].items()},
                "sources": tuple(Source(**source) for source in fields["sources"]),
                "statistics": TokenStatistics(**fields["statistics"]),
            }
        )


def _split_from(fields: dict) -> Split:
    shards = tuple(Shard(**{**shard, "block_crc32s": tuple(shard["block_crc32s"])}) for shard in fields["shards"])
    for shard in shards:
        if not _SHARD_NAME.fullmatch(shard.name):
            raise CorpusError(FILE_NAME, "name shards by plain file names", shard.name, "Build the corpus again")
    return Split(**{**fields, "shards": shards})
