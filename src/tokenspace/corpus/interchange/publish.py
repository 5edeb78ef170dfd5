"""Batches of foreign ids -> a published corpus, in one pass and flat memory."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from tokenspace.corpus.build import numbered
from tokenspace.corpus.corpus import Corpus
from tokenspace.corpus.encoding import plain_name
from tokenspace.corpus.format import smallest_dtype
from tokenspace.corpus.interchange.counting import IdCounter
from tokenspace.corpus.interchange.foreign import Batch, TokenFile
from tokenspace.corpus.manifest import FILE_NAME, TOKENIZER_FILE, Manifest, Split, TokenizerStamp
from tokenspace.corpus.plan import GIBIBYTE
from tokenspace.corpus.publish import file_crc32
from tokenspace.corpus.writer import SplitWriter, Target
from tokenspace.errors import CorpusError
from tokenspace.files import new_folder
from tokenspace.store import LocalStore, Store
from tokenspace.tokenizer import Tokenizer


def publish(
    files: Sequence[TokenFile],
    batches: Callable[[Sequence[TokenFile]], Iterator[Batch]],
    tokenizer: Tokenizer,
    out: Path,
    progress: Callable[[int, int], None] | None,
) -> Corpus:
    """Write what `batches` gives as a corpus; the folder appears whole or not at all.

    Args:
        files: All files, of both splits.
        batches: Gives the ids of the files of one split, each document ended.
        tokenizer: What made the ids.
        out: Folder to make; must not exist.
        progress: Called with the bytes done and in all.

    Raises:
        SettingError: something stands at `out`.
        CorpusError: there is nothing to train on.
        DiskError: the disk is full; nothing is left behind.
    """
    if not sum(file.num_tokens for file in files if file.split == "train"):
        step = "Give a file of more than 0 bytes that is not named for validation"
        raise CorpusError("files", "hold at least one token for training", "without any", step)
    publication = _Publication(tokenizer, sum(file.num_tokens for file in files), progress)
    with new_folder(out) as folder:
        store = LocalStore(folder)
        splits = {}
        for name in ("train", "validation"):
            of_split = [file for file in files if file.split == name]
            if of_split and (split := publication.write(store, name, batches(of_split))):
                splits[name] = split
        store.create(TOKENIZER_FILE, tokenizer.to_json().encode())
        checksum = file_crc32(store, TOKENIZER_FILE)
        store.create(FILE_NAME, publication.manifest(splits, len(files), checksum).to_bytes())
    return Corpus.open(out)


class _Publication:
    def __init__(self, tokenizer: Tokenizer, num_tokens: int, progress: Callable[[int, int], None] | None) -> None:
        self._tokenizer = tokenizer
        self._dtype = smallest_dtype(tokenizer.vocab_size - 1)
        self._num_tokens = num_tokens
        self._progress = progress
        self._counter = IdCounter(tokenizer)
        self._documents: Counter[TokenFile] = Counter()  # that began in each file
        self._text_bytes = 0
        self._done = 0
        self._begun, self._last_id = 0, -1  # tokens of the document that is not ended yet; the last of them
        self._all_end = tokenizer.eot_id is not None  # with the end-of-text token

    def write(self, store: Store, name: str, batches: Iterator[Batch]) -> Split | None:
        writer = SplitWriter(Target(store, partial(numbered, name)), self._dtype, GIBIBYTE)
        at_document_end = True
        try:
            for batch in batches:
                begins = np.concatenate([[at_document_end], batch.ends[:-1]])
                writer.append(batch.encoded(self._origins(batch.file, begins)))
                self._note(batch)
                at_document_end = bool(batch.ends[-1])
            return writer.close()
        except BaseException:
            writer.abandon()
            raise

    def _origins(self, file: TokenFile, begins: np.ndarray) -> np.ndarray:
        """Each document by its number in the file in which it begins."""
        rows = self._documents[file] + np.cumsum(begins) - 1
        self._documents[file] += int(begins.sum())
        name = plain_name(str(file.path))
        return np.fromiter(((name, row, None) for row in rows.tolist()), object, len(rows))

    def _note(self, batch: Batch) -> None:
        self._text_bytes += self._counter.count(batch)
        stops = np.cumsum(batch.lengths)[batch.ends]
        lasts = np.concatenate([[self._last_id], batch.ids])[stops]
        sizes = np.diff(stops, prepend=-self._begun)
        self._all_end &= bool(((sizes > 0) & (lasts == self._tokenizer.eot_id)).all())
        self._begun += len(batch.ids)
        if len(stops):
            self._begun = len(batch.ids) - int(stops[-1])
        if len(batch.ids):
            self._last_id = int(batch.ids[-1])
        self._done += len(batch.ids)
        if self._progress:
            size = self._dtype.itemsize
            self._progress(self._done * size, self._num_tokens * size)

    def manifest(self, splits: dict[str, Split], num_sources: int, tokenizer_crc32: str) -> Manifest:
        return Manifest(
            tokenizer=TokenizerStamp.of(self._tokenizer),
            end_of_text="append" if self._all_end else "none",
            dtype=self._dtype.name,
            validation_fraction=0.0,  # none was asked for: the files came in two parts, or in one
            seed=0,
            splits=splits,
            num_sources=num_sources,
            text_bytes=self._text_bytes,
            statistics=self._counter.statistics,
            tokenizer_crc32=tokenizer_crc32,
        )
