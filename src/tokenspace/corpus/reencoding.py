"""A corpus in another vocabulary: its documents decoded, and encoded anew.

Splits, order and origins of the documents stay. No source is read. Ids that are not what their
own text encodes to (special tokens inside a document, text that a normaliser changed) could not
be told from other text, so such a corpus is refused.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from tokenspace.corpus.build import numbered
from tokenspace.corpus.corpus import Corpus
from tokenspace.corpus.encoding import DocumentEncoder
from tokenspace.corpus.format import smallest_dtype
from tokenspace.corpus.manifest import FILE_NAME, TOKENIZER_FILE, Manifest, TokenizerStamp
from tokenspace.corpus.plan import GIBIBYTE
from tokenspace.corpus.publish import file_crc32
from tokenspace.corpus.writer import SplitWriter, Target
from tokenspace.errors import CorpusError
from tokenspace.files import new_folder
from tokenspace.store import LocalStore
from tokenspace.text import Piece
from tokenspace.tokenizer import Tokenizer

_DOCUMENTS_AT_ONCE = 1024


def reencode(
    corpus: str | Path,
    tokenizer: Tokenizer,
    out: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Publish a corpus of the same documents in another vocabulary.

    Args:
        corpus: Folder or URL of a corpus.
        tokenizer: What encodes them now.
        out: Folder to make; must not exist.
        progress: Called with the tokens before, done and in all.

    Returns:
        The new manifest; it has no plan.

    Raises:
        SettingError: something stands at `out`.
        CorpusError: the corpus is missing or damaged, or its ids are not what their text encodes to.
        DiskError: the disk is full; nothing is left behind.
    """
    first = Corpus.open(corpus)
    before, old = first.manifest, first.tokenizer()
    appends = before.end_of_text == "append"
    encoder = DocumentEncoder(tokenizer, tokenizer.eot_id if appends else None, before.seed, None)
    dtype = smallest_dtype(tokenizer.vocab_size - 1)
    total, done, splits = sum(split.num_tokens for split in before.splits.values()), 0, {}
    with new_folder(Path(out)) as folder:
        store = LocalStore(folder)
        for name, split in before.splits.items():
            writer = SplitWriter(Target(store, partial(numbered, name)), dtype, GIBIBYTE)
            pieces = _documents(Corpus.open(corpus, split=name), old, appends)
            try:
                for batch in encoder.encode(pieces):
                    writer.append(batch)
                splits[name] = writer.close()
            except BaseException:
                writer.abandon()
                raise
            done += split.num_tokens
            if progress:
                progress(done, total)
        store.create(TOKENIZER_FILE, tokenizer.to_json().encode())
        manifest = replace(
            before,
            tokenizer=TokenizerStamp.of(tokenizer),
            end_of_text="none" if encoder.eot_id is None else "append",
            dtype=dtype.name,
            splits=splits,
            text_bytes=encoder.text_bytes,
            statistics=encoder.statistics,
            tokenizer_crc32=file_crc32(store, TOKENIZER_FILE),
            plan_crc32=None,
            first_identity=None,
        )
        store.create(FILE_NAME, manifest.to_bytes())
    return manifest


def _documents(corpus: Corpus, tokenizer: Tokenizer, appends: bool) -> Iterator[Piece]:
    """The text of every document of a split, in order."""
    for first in range(0, corpus.num_documents, _DOCUMENTS_AT_ONCE):
        numbers = np.arange(first, min(first + _DOCUMENTS_AT_ONCE, corpus.num_documents))
        bounds = corpus.document_begins(np.append(numbers, numbers[-1] + 1)).tolist()
        ids = corpus.tokens(bounds[0], bounds[-1])
        documents = [ids[b - bounds[0] : e - bounds[0]] for b, e in itertools.pairwise(bounds)]
        if appends:
            documents = [own[:-1] if len(own) and own[-1] == tokenizer.eot_id else own for own in documents]
        texts = [tokenizer.decode(own) for own in documents]
        _check(texts, documents, tokenizer, corpus, first)
        for text, origin in zip(texts, _origins(corpus, numbers), strict=True):
            yield Piece(text, True, *origin)


def _check(texts: list[str], documents: Sequence[np.ndarray], tokenizer: Tokenizer, corpus: Corpus, at: int) -> None:
    ids, offsets = tokenizer.encode_batch(texts)
    for number, own in enumerate(documents):
        if not np.array_equal(ids[offsets[number] : offsets[number + 1]], own):
            name = f"document {at + number:,} of {corpus.path}"
            next_step = "Build the corpus from its text again with the new tokenizer"
            raise CorpusError(name, "encode to the ids that it has", "text that does not", next_step)


def _origins(corpus: Corpus, documents: np.ndarray) -> list[tuple[str, int, str | None]]:
    try:
        return corpus.origins(documents)
    except CorpusError:  # a corpus of the first version keeps none
        return [(str(corpus.path), number, None) for number in documents.tolist()]
