"""Documents that are at hand -> a published corpus, in one pass and flat memory.

The folder appears whole or not at all. For text in files there is `driver`, which can go on
where it was stopped and work in several processes.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from tokenspace.corpus.corpus import Corpus
from tokenspace.corpus.encoding import DocumentEncoder
from tokenspace.corpus.format import smallest_dtype
from tokenspace.corpus.manifest import FILE_NAME, TOKENIZER_FILE, Manifest, TokenizerStamp
from tokenspace.corpus.plan import GIBIBYTE, BuildSettings
from tokenspace.corpus.publish import check_splits, file_crc32
from tokenspace.corpus.split import split_stream
from tokenspace.corpus.task import SPLITS, write_splits
from tokenspace.corpus.writer import Target
from tokenspace.files import new_folder
from tokenspace.store import LocalStore
from tokenspace.text import Piece
from tokenspace.tokenizer import Tokenizer


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
    settings = BuildSettings(validation_fraction, seed, end_of_text, shard_bytes)
    out = Path(out)
    encoder = DocumentEncoder(tokenizer, tokenizer.eot_id if end_of_text else None, settings.split_seed, progress)
    dtype = smallest_dtype(tokenizer.vocab_size - 1)
    with new_folder(out) as folder:
        store = LocalStore(folder)
        batches = split_stream(encoder.encode(pieces), settings.validation_fraction)
        targets = {name: Target(store, partial(numbered, name)) for name in SPLITS}
        splits = write_splits(targets, dtype, settings.shard_bytes, batches)
        check_splits(splits, encoder.statistics)
        store.create(TOKENIZER_FILE, tokenizer.to_json().encode())
        manifest = Manifest(
            tokenizer=TokenizerStamp.of(tokenizer),
            end_of_text="none" if encoder.eot_id is None else "append",
            dtype=dtype.name,
            validation_fraction=validation_fraction,
            seed=seed,
            splits=splits,
            num_sources=encoder.num_sources,
            text_bytes=encoder.text_bytes,
            statistics=encoder.statistics,
            tokenizer_crc32=file_crc32(store, TOKENIZER_FILE),
        )
        store.create(FILE_NAME, manifest.to_bytes())
    return Corpus.open(out)


def numbered(split: str, nth: int) -> str:
    """The name of the nth shard of a split that was written in one go."""
    return f"{split}-{nth:05d}"
