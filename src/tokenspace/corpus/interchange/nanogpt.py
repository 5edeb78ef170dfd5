"""nanoGPT's token files, and those with a header of llm.c and modded-nanogpt, into a corpus.

nanoGPT's are raw ids and say nothing of themselves. A header is 256 numbers of 4 bytes, magic,
version and the number of ids first; ids of 2 bytes or of 4 follow. Only the end-of-text token
tells documents apart: nanoGPT's scripts set it after each document, those of the others before.

Source: data/openwebtext/prepare.py of karpathy/nanoGPT, dev/data/data_common.py of karpathy/llm.c.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from tokenspace.corpus.corpus import Corpus
from tokenspace.corpus.interchange.foreign import Batch, TokenFile, blocks, list_bins
from tokenspace.corpus.interchange.publish import publish
from tokenspace.errors import CorpusError, SettingError
from tokenspace.tokenizer import Tokenizer

HEADER_BYTES = 1024
HEADERS = {np.dtype("<u2"): (20240520, 1), np.dtype("<u4"): (20240801, 7)}  # magic and version
DTYPES = {name: np.dtype(name).newbyteorder("<") for name in ("uint16", "uint32", "int32")}

EndOfText = Literal["append", "prepend"]


def import_nanogpt(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    tokenizer: Tokenizer,
    dtype: str = "uint16",
    end_of_text: EndOfText | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Make a corpus of `.bin` files of nanoGPT, llm.c or modded-nanogpt.

    Files with `val` as a word in their names are for validation, the others for training. A document
    may go on from one file of a split into the next. Without an end-of-text token in the vocabulary
    each split is one document.

    Args:
        paths: Files, or folders of them; read in this order.
        out: Folder to make; must not exist.
        tokenizer: What made the ids; it is stored with the corpus.
        dtype: Of the ids of files without a header: uint16, uint32 or int32.
        end_of_text: "append" if the end-of-text token ends a document, "prepend" if it begins one;
            None for what each split's first file suggests: "prepend" with a header, else "append".
        progress: Called with the bytes done and in all.

    Returns:
        The training part of the new corpus.

    Raises:
        SettingError: an argument breaks its rule, or something stands at `out`.
        CorpusError: a file is damaged or holds what is no id of `tokenizer`.
        DiskError: the disk is full; nothing is left behind.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> np.array([505, 734, 50256, 15542, 50256], "<u2").tofile(folder + "/train.bin")
        >>> corpus = import_nanogpt([folder], folder + "/corpus", tokenizer=Tokenizer.gpt2())
        >>> corpus.document(1).tolist()
        [15542, 50256]
    """
    if dtype not in DTYPES:
        raise SettingError("dtype", f"be one of {', '.join(DTYPES)}", dtype, "nanoGPT's own files are uint16")
    if end_of_text not in (None, "append", "prepend"):
        raise SettingError("end_of_text", "be 'append' or 'prepend'", end_of_text, "nanoGPT's own scripts append it")
    files = [read_header(path, DTYPES[dtype]) for path in list_bins(paths)]

    def batches(files: Sequence[TokenFile]) -> Iterator[Batch]:
        begins = end_of_text == "prepend" if end_of_text else bool(files[0].offset)
        return _batches(files, tokenizer, begins)

    return publish(files, batches, tokenizer, Path(out), progress)


def read_header(path: Path, dtype: np.dtype) -> TokenFile:
    """Find out what a `.bin` holds.

    Args:
        path: The file.
        dtype: Of the ids, if there is no header.

    Raises:
        CorpusError: the size is not what the header or the dtype asks for, or the version is unknown.
    """
    size = path.stat().st_size
    header = np.fromfile(path, "<i4", HEADER_BYTES // 4)
    for of_header, (magic, version) in HEADERS.items():
        if len(header) < 3 or header[0] != magic:
            continue
        if header[1] != version:
            raise CorpusError(
                str(path), f"be version {version}", f"version {header[1]}", "Write it again with llm.c's scripts"
            )
        num_tokens = int(header[2])
        if size != (wanted := HEADER_BYTES + num_tokens * of_header.itemsize):
            rule = f"have {wanted} bytes, for the {num_tokens} tokens in its header"
            raise CorpusError(str(path), rule, f"{size} bytes long", "Copy it again from where it is whole")
        return TokenFile(path, of_header, num_tokens, HEADER_BYTES)
    if size % dtype.itemsize:
        rule = f"have a multiple of {dtype.itemsize} bytes, for ids of {dtype.name}"
        step = "Give the dtype it was written with, or copy it again from where it is whole"
        raise CorpusError(str(path), rule, f"{size} bytes long", step)
    return TokenFile(path, dtype, size // dtype.itemsize)


def _batches(files: Sequence[TokenFile], tokenizer: Tokenizer, begins: bool) -> Iterator[Batch]:
    eot_id = -1 if tokenizer.eot_id is None else tokenizer.eot_id
    at_document_end = True
    for file in files:
        for low, high in blocks(0, file.num_tokens):
            ids = file.read(low, high, tokenizer)
            ends = np.flatnonzero(ids == eot_id) + (not begins)
            if begins and at_document_end:
                ends = ends[ends > 0]  # nothing has begun that it could end
            batch = Batch.cut(file, ids, ends)
            at_document_end = bool(batch.ends[-1])
            yield batch
    if not at_document_end:
        yield Batch.cut(file, ids[:0], np.zeros(1, np.int64))
