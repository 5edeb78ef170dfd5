"""A corpus in another vocabulary: its documents decoded, and encoded anew.

Splits, order and origins of the documents stay; one document that the two splits share is encoded
as one, and cut again where it was, by its share of tokens. No source is read. Ids that are not what their
own text encodes to (special tokens inside a document, text that a normaliser changed) could not
be told from other text, so such a corpus is refused.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from tokenspace.corpus.build import numbered
from tokenspace.corpus.corpus import Corpus
from tokenspace.corpus.encoding import DocumentEncoder, Encoded
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
    corpora = {name: Corpus.open(corpus, split=name) for name in before.splits}
    total, done, splits = sum(split.num_tokens for split in before.splits.values()), 0, {}
    shared = _shared_document(corpora, old.eot_id if appends else None)
    parts = {} if shared is None else _both_parts(corpora, shared, encoder, appends)
    with new_folder(Path(out)) as folder:
        store = LocalStore(folder)
        for name, part in corpora.items():
            writer = SplitWriter(Target(store, partial(numbered, name)), dtype, GIBIBYTE)
            at = None if shared is None else shared if name == "train" else 0
            try:
                for batch in _batches(part, encoder, appends, at, parts.get(name)):
                    writer.append(batch)
                splits[name] = writer.close()
            except BaseException:
                writer.abandon()
                raise
            done += part.num_tokens
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


def _batches(
    corpus: Corpus, encoder: DocumentEncoder, appends: bool, shared: int | None, part: Encoded | None
) -> Iterator[Encoded]:
    """A split encoded anew, with `part` in the place of the document that it shares."""
    if part is None:
        yield from encoder.encode(_pieces(corpus, appends, range(corpus.num_documents)))
        return
    yield from encoder.encode(_pieces(corpus, appends, range(shared)))
    yield part
    yield from encoder.encode(_pieces(corpus, appends, range(shared + 1, corpus.num_documents)))


def _shared_document(corpora: Mapping[str, Corpus], eot_id: int | None) -> int | None:
    """The document of the training part that goes on as the first of the validation part; None if none does."""
    if len(corpora) < 2:
        return None
    train = corpora["train"]
    (wanted,) = _origins(corpora["validation"], np.zeros(1, np.int64))
    for numbers in _some_at_a_time(range(train.num_documents)):
        bounds = train.document_begins(np.append(numbers, numbers[-1] + 1))
        has_tokens = np.diff(bounds) > 0
        numbers, lasts = numbers[has_tokens], bounds[1:][has_tokens] - 1
        if eot_id is not None:
            numbers = numbers[train.gather(lasts, 1)[:, 0] != eot_id]
        for number, origin in zip(numbers.tolist(), _origins(train, numbers), strict=True):
            if origin == wanted:
                return number
    return None


def _both_parts(
    corpora: Mapping[str, Corpus], shared: int, encoder: DocumentEncoder, appends: bool
) -> dict[str, Encoded]:
    """The document that both splits share, encoded as one and cut again."""
    train, validation = corpora["train"], corpora["validation"]
    old = train.tokenizer()
    head, tail = train.document(shared), validation.document(0)
    body = _without_end([tail], old, appends)[0]
    ids = np.concatenate([head, body])
    text = old.decode(ids)
    _check([text], [ids], old, train, shared)
    (origin,) = _origins(train, np.array([shared]))
    whole = Encoded.join(encoder.encode([Piece(text, True, *origin)]))
    cut = max(1, min(len(whole.ids) - 1, round(len(whole.ids) * len(head) / (len(head) + len(tail)))))
    parts = {}
    for name, own in (("train", whole.ids[:cut]), ("validation", whole.ids[cut:])):
        parts[name] = replace(whole, ids=own, lengths=np.array([len(own)]))
    return parts


def _pieces(corpus: Corpus, appends: bool, documents: range) -> Iterator[Piece]:
    """The text of some documents, in order."""
    tokenizer = corpus.tokenizer()
    for numbers in _some_at_a_time(documents):
        bounds = corpus.document_begins(np.append(numbers, numbers[-1] + 1)).tolist()
        ids = corpus.tokens(bounds[0], bounds[-1])
        cut = [ids[begin - bounds[0] : end - bounds[0]] for begin, end in itertools.pairwise(bounds)]
        bodies = _without_end(cut, tokenizer, appends)
        texts = [tokenizer.decode(own) for own in bodies]
        _check(texts, bodies, tokenizer, corpus, int(numbers[0]))
        for text, origin in zip(texts, _origins(corpus, numbers), strict=True):
            yield Piece(text, True, *origin)


def _some_at_a_time(documents: range) -> Iterator[np.ndarray]:
    for first in documents[::_DOCUMENTS_AT_ONCE]:
        yield np.arange(first, min(first + _DOCUMENTS_AT_ONCE, documents.stop))


def _without_end(documents: list[np.ndarray], tokenizer: Tokenizer, appends: bool) -> list[np.ndarray]:
    if not appends:
        return documents
    return [own[:-1] if len(own) and own[-1] == tokenizer.eot_id else own for own in documents]


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
