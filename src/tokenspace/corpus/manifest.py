"""`manifest.json`: what the token files themselves do not say, under a checksum.

Published last, so that a corpus without it is none. Nothing in it depends on when or where
it was written: the same input gives the same bytes. Version 1, which knew neither tasks nor
origins, is still read.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenspace.errors import CorpusError
from tokenspace.files import sealed_json, unseal_json
from tokenspace.tokenizer import Tokenizer, TokenStatistics

FILE_NAME = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"
FORMAT = "tokenspace corpus"
VERSION = 2
BLOCK_BYTES = 4 << 20

_SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # no path, no "..", no suffix


@dataclass(frozen=True)
class Shard:
    """One `.bin` with its `.idx`, and the `.origins` of its documents.

    Attributes:
        name: Of all files, without suffix.
        num_tokens: Ids in the `.bin`.
        num_documents: Documents in the `.idx`, and rows in the `.origins`.
        bin_bytes: Size of the `.bin`.
        idx_bytes: Size of the `.idx`.
        idx_crc32: Of the whole `.idx`, 8 hexadecimal digits.
        block_crc32s: Of each 4 MiB of the `.bin`, in order.
        task: Which task of the plan made it; None where there was no plan.
        continues: Whether its first document goes on from the shard before.
        origins_bytes: Size of the `.origins`; None where there is none.
        origins_crc32: Of the whole `.origins`, 8 hexadecimal digits.
    """

    name: str
    num_tokens: int
    num_documents: int
    bin_bytes: int
    idx_bytes: int
    idx_crc32: str
    block_crc32s: tuple[str, ...]
    task: int | None = None
    continues: bool = False
    origins_bytes: int | None = None
    origins_crc32: str | None = None

    @property
    def files(self) -> dict[str, int]:
        """The names of its files and their sizes."""
        sizes = {".bin": self.bin_bytes, ".idx": self.idx_bytes, ".origins": self.origins_bytes}
        return {self.name + suffix: size for suffix, size in sizes.items() if size is not None}


@dataclass(frozen=True)
class Split:
    """The shards of "train" or "validation", in the order of their tokens.

    Attributes:
        num_tokens: Of all shards.
        num_documents: Of all shards; one that goes on over several counts once.
        max_id: Largest id.
        shards: At least one.
    """

    num_tokens: int
    num_documents: int
    max_id: int
    shards: tuple[Shard, ...]

    @classmethod
    def of(cls, shards: Iterable[Shard], max_id: int) -> "Split":
        """The split of these shards; at least one."""
        shards = tuple(shards)
        return cls(
            num_tokens=sum(shard.num_tokens for shard in shards),
            num_documents=sum(shard.num_documents - shard.continues for shard in shards),
            max_id=max_id,
            shards=shards,
        )

    @classmethod
    def from_fields(cls, fields: dict) -> "Split":
        """A split from JSON.

        Raises:
            CorpusError: the name of a shard is more than a file name.
            TypeError, KeyError: fields are missing or unknown.
        """
        shards = tuple(Shard(**{**shard, "block_crc32s": tuple(shard["block_crc32s"])}) for shard in fields["shards"])
        for shard in shards:
            if not _SHARD_NAME.fullmatch(shard.name):
                raise CorpusError(FILE_NAME, "name shards by plain file names", shard.name, "Build the corpus again")
        return cls(**{**fields, "shards": shards})


@dataclass(frozen=True)
class TokenizerStamp:
    """Which tokenizer made the ids; `identity` decides, the rest is for people."""

    identity: str
    name: str
    vocab_size: int
    eot_id: int | None

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "TokenizerStamp":
        """The stamp of a tokenizer."""
        return cls(tokenizer.identity, tokenizer.name, tokenizer.vocab_size, tokenizer.eot_id)


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
        num_sources: Files that the text came from.
        text_bytes: Of all text as UTF-8, both splits together.
        statistics: Counts over all text, both splits together.
        tokenizer_crc32: Of the file `tokenizer.json`; None in version 1.
        plan_crc32: Of the file `plan.json`; None where there was no plan.
        first_identity: Of a corpus that was written as version 1, whose content is another text now.
    """

    tokenizer: TokenizerStamp
    end_of_text: str
    dtype: str
    validation_fraction: float
    seed: int
    splits: dict[str, Split]
    num_sources: int
    text_bytes: int
    statistics: TokenStatistics
    tokenizer_crc32: str | None = None
    plan_crc32: str | None = None
    first_identity: str | None = None

    @property
    def identity(self) -> str:
        """SHA-256 of the content, in hexadecimal: tells corpora apart, ids and all."""
        return self.first_identity or hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """The text of `manifest.json`."""
        fields = asdict(self)
        del fields["first_identity"]
        return sealed_json({"format": FORMAT, "version": VERSION, "block_bytes": BLOCK_BYTES, **fields})

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read and check `manifest.json`.

        Raises:
            CorpusError: it is missing, damaged, altered, or of another format or version.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            why = error.strerror or str(error)
            raise CorpusError(str(path), "be a file that can be read", why, "Check the path") from error
        return cls.from_bytes(data, str(path))

    @classmethod
    def from_bytes(cls, data: bytes, path: str = FILE_NAME) -> "Manifest":
        """The same, from the content of the file.

        Raises:
            CorpusError: as `read`.
        """
        fields = unseal_json(data, path, CorpusError)
        found = (fields.pop("format", None), fields.pop("version", None), fields.pop("block_bytes", None))
        if found not in [(FORMAT, version, BLOCK_BYTES) for version in (1, VERSION)]:
            step = "Open it with the version of tokenspace that made it, or build it again"
            raise CorpusError(FILE_NAME, f"be of {FORMAT!r}, version {VERSION} or 1", f"{found[0]!r}, {found[1]}", step)
        try:
            if found[1] == 1:
                sources = fields.pop("sources")
                fields |= {"num_sources": len(sources), "text_bytes": sum(source["text_bytes"] for source in sources)}
                fields["first_identity"] = hashlib.sha256(data).hexdigest()
            return cls._from_fields(fields)
        except (TypeError, KeyError, AttributeError) as error:
            step = "Build the corpus again"
            raise CorpusError(FILE_NAME, "have the fields of a manifest", f"wrong ({error})", step) from error

    @classmethod
    def _from_fields(cls, fields: dict) -> "Manifest":
        return cls(
            **{
                **fields,
                "tokenizer": TokenizerStamp(**fields["tokenizer"]),
                "splits": {name: Split.from_fields(split) for name, split in fields["splits"].items()},
                "statistics": TokenStatistics(**fields["statistics"]),
            }
        )
