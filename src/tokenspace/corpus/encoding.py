"""Pieces of text -> ids in batches, with the counts that the manifest reports.

Many short documents are encoded together, a long one piece by piece, so that memory stays
flat and the tokenizer can use its threads. Nothing is written here.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from tokenspace.errors import TextError, TokenizerError
from tokenspace.text.pieces import PIECE_CHARACTERS, Piece, join_pieces
from tokenspace.tokenizer import Tokenizer, TokenStatistics

_BATCH_CHARACTERS = 4 << 20
_BATCH_PIECES = 1 << 16  # documents may be empty

Origin = tuple[str, int, str | None]  # source, row, id


def plain_name(name: str) -> str:
    """The name of a file without half surrogates, which no UTF-8 file can hold."""
    return name.encode(errors="replace").decode()


@dataclass(frozen=True)
class Encoded:
    """The ids of consecutive pieces.

    Attributes:
        ids: All of them, one after another, uint32; end-of-text tokens included.
        lengths: Ids a piece, int64.
        ends: Whether the piece ends its document, bool.
        keys: Seeded hash of the piece's text, uint64.
        short: Whether the piece is a whole document of at most 1 Mi characters, bool.
        origins: Source, row and id of the piece's document, or None; object.
    """

    ids: np.ndarray
    lengths: np.ndarray
    ends: np.ndarray
    keys: np.ndarray
    short: np.ndarray
    origins: np.ndarray

    @classmethod
    def join(cls, parts: Iterable["Encoded"]) -> "Encoded":
        """The pieces of all parts, in order; of one part at least."""
        parts = list(parts)
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))

    def take(self, chosen: np.ndarray) -> "Encoded":
        """The pieces where `chosen` (bool, one a piece) is true."""
        if chosen.all():
            return self
        parts = (getattr(self, name)[chosen] for name in ("lengths", "ends", "keys", "short", "origins"))
        return Encoded(self.ids[np.repeat(chosen, self.lengths)], *parts)


class DocumentEncoder:
    """Encodes a stream of pieces and counts what went through.

    Args:
        tokenizer: Turns text into ids.
        eot_id: Id appended to each document, or None.
        seed: Of the pieces' keys; None where nothing is drawn by them, which leaves them 0.
        progress: Called after each batch with the characters and the ids so far.
        continues: Whether the first piece goes on with a document that began elsewhere.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        eot_id: int | None,
        seed: int | None,
        progress: Callable[[int, int], None] | None,
        continues: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self.eot_id = eot_id
        self._seeded = None if seed is None else hashlib.blake2b(b"%d:" % seed, digest_size=8)
        self._progress = progress
        self.statistics = TokenStatistics()  # so far
        self.text_bytes = 0  # so far, as UTF-8
        self.num_sources = 0  # so far
        self._source: str | None = None
        self._at_start = not continues  # of a document

    def encode(self, pieces: Iterable[Piece]) -> Iterator[Encoded]:
        """The ids of `pieces`, a batch at a time.

        A tokenizer that does not encode pieces as it encodes the whole gets whole documents.

        Raises:
            TextError: a text has half a surrogate pair.
            TokenizerError: the tokenizer gives an id beyond its vocabulary.
        """
        if not self._tokenizer.splits_at_spaces:
            pieces = join_pieces(pieces)
        batch: list[Piece] = []
        size = 0
        for piece in pieces:
            batch.append(piece)
            size += len(piece.text)
            if size >= _BATCH_CHARACTERS or len(batch) >= _BATCH_PIECES:
                yield self._encode_batch(batch)
                batch, size = [], 0
        if batch:
            yield self._encode_batch(batch)

    def _encode_batch(self, batch: list[Piece]) -> Encoded:
        texts = [piece.text for piece in batch]
        data = [self._utf8(piece) for piece in batch]
        ids, offsets = self._tokenizer.encode_batch(texts)
        self._count(texts, data, ids)
        ends = np.array([piece.ends_document for piece in batch])
        lengths = np.diff(offsets)
        if self.eot_id is not None:
            ids = np.insert(ids, offsets[1:][ends], self.eot_id)
            lengths = lengths + ends
        origins = np.fromiter((self._origin(piece) for piece in batch), object, len(batch))
        return Encoded(ids, lengths, ends, self._keys(data), self._short(batch, ends), origins)

    def _utf8(self, piece: Piece) -> bytes:
        try:
            data = piece.text.encode()
        except UnicodeEncodeError as error:
            name, found = f"{piece.source}, row {piece.row}", f"half a surrogate pair at character {error.start}"
            raise TextError(name, "be valid Unicode", found, "Replace it before encoding") from error
        self.text_bytes += len(data)
        return data

    def _origin(self, piece: Piece) -> Origin:
        if piece.source != self._source:
            self._source = piece.source
            self._plain_source = plain_name(piece.source)
            self.num_sources += 1
        return self._plain_source, piece.row, piece.id

    def _count(self, texts: list[str], data: list[bytes], ids: np.ndarray) -> None:
        if len(ids) and (largest := int(ids.max())) >= self._tokenizer.vocab_size:
            step = "Give its added tokens ids inside the vocabulary"
            raise TokenizerError(
                "token id", f"be below {self._tokenizer.vocab_size}, the vocabulary size", largest, step
            )
        self.statistics += TokenStatistics.of(texts, ids, self._tokenizer.partial_utf8, data)
        if self._progress:
            self._progress(self.statistics.characters, self.statistics.tokens)

    def _keys(self, data: list[bytes]) -> np.ndarray:
        if self._seeded is None:
            return np.zeros(len(data), np.uint64)
        digests = []
        for text in data:
            seeded = self._seeded.copy()
            seeded.update(text)
            digests.append(seeded.digest())
        return np.frombuffer(b"".join(digests), "<u8")

    def _short(self, batch: list[Piece], ends: np.ndarray) -> np.ndarray:
        """True where a piece begins and ends a document that is short enough to move as one."""
        fits = np.array([len(piece.text) <= PIECE_CHARACTERS for piece in batch])
        begins = np.concatenate([[self._at_start], ends[:-1]])
        self._at_start = bool(ends[-1])
        return begins & ends & fits
