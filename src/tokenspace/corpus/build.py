"""Documents -> a published corpus, in one pass and flat memory.

The folder appears whole or not at all. One process builds it; what it does to a stream of
pieces (encode, split, write) is in rooms of its own, for other ways of building to use.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from tokenspace.corpus.corpus import TOKENIZER_FILE, Corpus
from tokenspace.corpus.encoding import DocumentEncoder, Encoded
from tokenspace.corpus.format import smallest_dtype
from tokenspace.corpus.manifest import FILE_NAME, Manifest, Split, TokenizerStamp
from tokenspace.corpus.split import split_stream
from tokenspace.corpus.writer import SplitWriter
from tokenspace.errors import CorpusError, SettingError, check_at_least
from tokenspace.files import new_folder
from tokenspace.text import Piece
from tokenspace.tokenizer import Tokenizer

GIBIBYTE = 1 << 30


def build_corpus(
    pieces: Iterable[Piece],
    tokenizer: Tokenizer,
    out: str | Path,
    *,
    validation_fraction: float = 0.1,
    seed: int = 0,
    end_of_text: bool = True,
    shard_bytes: int = GIBIBYTE,
    progress: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Encode documents and publish them as a corpus.

    Args:
        pieces: Documents, from `tokenspace.text.read_documents` or `read_strings`.
        tokenizer: What encodes them; it is stored with the corpus.
        out: Folder to make; must not exist.
        validation_fraction: Share of the tokens for validation, from 0 (none) to 0.5; which
            documents is a matter of their content and `seed` (see `corpus.split`).
        seed: Of that choice.
        end_of_text: Append the tokenizer's end-of-text token to each document, where it has one.
        shard_bytes: Size at which a `.bin` is closed, at the next end of a document.
        progress: Called with the characters and the tokens so far.

    Returns:
        The training part of the new corpus.

    Raises:
        SettingError: an argument breaks its rule, or something stands at `out`.
        CorpusError: there is no text at all, or none on one side of the split.
        DiskError: the disk is full; nothing is left behind.
        TextError, TokenizerError: what the pieces and the tokenizer raise.

    Example:
        >>> import tempfile
        >>> from tokenspace.text import read_strings
        >>> from tokenspace.tokenizer import Tokenizer
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     texts = read_strings(["one two", "three"])
        ...     corpus = build_corpus(texts, Tokenizer.gpt2(), folder + "/corpus", validation_fraction=0)
        ...     corpus.tokens(0, 5).tolist()
        [505, 734, 50256, 15542, 50256]
    """
    check_at_least(0, seed=seed)
    check_at_least(1, shard_bytes=shard_bytes)
    if not 0 <= validation_fraction <= 0.5:
        raise SettingError("validation_fraction", "be from 0 to 0.5", validation_fraction, "Give 0 for no validation")
    out = Path(out)
    encoder = DocumentEncoder(tokenizer, tokenizer.eot_id if end_of_text else None, seed, progress)
    dtype = smallest_dtype(tokenizer.vocab_size - 1)
    with new_folder(out) as folder:
        splits = _write_splits(folder, dtype, shard_bytes, split_stream(encoder.encode(pieces), validation_fraction))
        if not encoder.statistics.tokens:
            raise CorpusError("text", "hold at least one token", "empty", "Give a text that is not empty")
        if "train" not in splits:
            step = "Give another seed, or a validation_fraction of 0"
            raise CorpusError("documents", "fall on both sides of the split", "all on one, being alike", step)
        manifest = Manifest(
            tokenizer=TokenizerStamp(tokenizer.identity, tokenizer.name, tokenizer.vocab_size, tokenizer.eot_id),
            end_of_text="none" if encoder.eot_id is None else "append",
            dtype=dtype.name,
            validation_fraction=validation_fraction,
            seed=seed,
            splits=splits,
            sources=encoder.sources,
            statistics=encoder.statistics,
        )
        (folder / TOKENIZER_FILE).write_text(tokenizer.to_json(), encoding="utf-8", newline="\n")
        (folder / FILE_NAME).write_bytes(manifest.to_bytes())
    return Corpus.open(out)


def _write_splits(
    folder: Path, dtype: np.dtype, shard_bytes: int, batches: Iterable[tuple[Encoded, bool]]
) -> dict[str, Split]:
    train, validation = (SplitWriter(folder, name, dtype, shard_bytes) for name in ("train", "validation"))
    try:
        for batch, validates in batches:
            (validation if validates else train).append(batch)
        splits = {"train": train.close(), "validation": validation.close()}
    finally:
        train.abandon()
        validation.abandon()
    return {name: split for name, split in splits.items() if split}
