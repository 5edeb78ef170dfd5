"""`Tokenizer`: text to ids and back, the same for every family the `tokenizers` library opens.

It adds to that library: GPT-2 without a download, exact bytes and printable labels of tokens,
an identity, a faster engine that is checked before use, and text that stays text (a document
cannot smuggle in `<|endoftext|>`). Begin-of-text and [CLS] marks of a file are not added.
"""

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from tokenspace.errors import SettingError, TokenizerError
from tokenspace.files import write_file
from tokenspace.tokenizer import bpe_training, gpt2
from tokenspace.tokenizer.engine import Engine
from tokenspace.tokenizer.identity import identity_of
from tokenspace.tokenizer.opening import open_library
from tokenspace.tokenizer.splitting import splits_at_spaces
from tokenspace.tokenizer.vocabulary import Vocabulary

_MOST_IDS_WITHOUT_TOKEN = 100_000
# The ends of text of GPT-2 and Qwen, Llama 3, Llama 2 and T5, Gemma, BERT; the first that is found counts.
_ENDS_OF_TEXT = (gpt2.END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[SEP]")


class Tokenizer:
    """Text to token ids and back.

    Made by `gpt2()`, `from_file()`, `train()` or `from_spec()`.

    Args:
        library: A tokenizer of the `tokenizers` library; belongs to this object from now on.
        name: Where it comes from, for messages and records.

    Example:
        >>> tokenizer = Tokenizer.gpt2()
        >>> tokenizer.encode("A point in space")
        [32, 966, 287, 2272]
        >>> tokenizer.decode([32, 966, 287, 2272])
        'A point in space'
    """

    def __init__(self, library: tokenizers.Tokenizer, name: str) -> None:
        dropout = getattr(library.model, "dropout", None)
        if dropout:
            raise TokenizerError(
                f"dropout of {name}", "be null", dropout, "Set it to null: ids must not be left to chance"
            )
        library.no_truncation()
        library.no_padding()
        self.name = name
        self._library = library
        self._vocabulary = Vocabulary(library)
        self._engines = {frozenset[str](): Engine(library)}

    @classmethod
    def gpt2(cls) -> "Tokenizer":
        """GPT-2's 50,257 tokens, without a download.

        Raises:
            TokenizerError: the vocabulary files are missing or not the published ones.

        Example:
            >>> Tokenizer.gpt2().vocab_size
            50257
        """
        return cls(gpt2.build(), "gpt2")

    @classmethod
    def from_file(cls, path: str | Path) -> "Tokenizer":
        """Any `tokenizer.json`: byte-level or SentencePiece-style BPE, Unigram, WordPiece.

        Raises:
            TokenizerError: the file is missing or damaged, or encodes by chance (BPE dropout).
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "no UTF-8 text"
            raise TokenizerError(str(path), "be a tokenizer.json", why, "Check the path") from error
        return cls.from_json(text, name=path.name)

    @classmethod
    def from_json(cls, text: str, name: str = "tokenizer.json") -> "Tokenizer":
        """A tokenizer from the text of a `tokenizer.json`.

        Raises:
            TokenizerError: the text is no such thing.
        """
        tokenizer = cls(open_library(text, name), name)
        size, count = tokenizer.vocab_size, tokenizer._library.get_vocab_size(with_added_tokens=True)
        if size > count + _MOST_IDS_WITHOUT_TOKEN:  # all that is by id would be of any size
            rule = f"have ids of which at most {_MOST_IDS_WITHOUT_TOKEN:,} have no token"
            raise TokenizerError(name, rule, f"one with id {size - 1:,} and {count:,} tokens", "Correct its ids")
        return tokenizer

    @classmethod
    def train(
        cls, documents: Iterable[str], vocab_size: int, *, progress: bpe_training.Progress | None = None
    ) -> "Tokenizer":
        """A byte-level BPE trained on `documents`; words keep their combining marks.

        The same documents give the same tokenizer. `<|endoftext|>` has the last id.

        Args:
            documents: The texts, read once, as a stream.
            vocab_size: Tokens wanted, at least 257; a text too small for so many gives fewer.
            progress: Called with the documents and the characters read so far.

        Raises:
            SettingError: `vocab_size` is below 257.
            TokenizerError: a document holds a lone surrogate.

        Example:
            >>> tokenizer = Tokenizer.train(["to be or not to be"] * 9, vocab_size=270)
            >>> [tokenizer.label(token_id) for token_id in tokenizer.encode("or to be")]
            ['or', '␣to', '␣be']
        """
        return cls(bpe_training.train(documents, vocab_size, progress), f"train:{vocab_size}")

    @classmethod
    def from_spec(
        cls,
        spec: str,
        documents: Iterable[str] | None = None,
        *,
        progress: bpe_training.Progress | None = None,
    ) -> "Tokenizer":
        """What `--tokenizer` means: `gpt2`, `train:8000`, or the path of a `tokenizer.json`.

        Args:
            spec: One of the three forms.
            documents: The texts to train on; needed by `train:` alone.
            progress: As in `train`.

        Raises:
            SettingError: `spec` has none of the three forms, or there is nothing to train on.
            TokenizerError: the file is damaged.
        """
        if spec == "gpt2":
            return cls.gpt2()
        kind, _, size = spec.partition(":")
        if kind == "train" and size.isdecimal():
            if documents is None:
                raise SettingError("tokenizer", "be 'gpt2' or a file here", spec, "There is no text to train one on")
            return cls.train(documents, int(size), progress=progress)
        if not Path(spec).is_file():
            forms = "be 'gpt2', a tokenizer.json file, or 'train:' and a size"
            raise SettingError("tokenizer", forms, spec, "Give gpt2, train:8000, or the path of a file that exists")
        return cls.from_file(spec)

    def to_json(self) -> str:
        """The text of its `tokenizer.json`."""
        return self._vocabulary.json

    @property
    def settings(self) -> dict[str, Any]:
        """The content of its `tokenizer.json`; not to be changed."""
        return self._vocabulary.settings

    def save(self, path: str | Path) -> None:
        """Write a `tokenizer.json` that `from_file` and other tools open; it appears whole or not at all."""
        write_file(Path(path), self.to_json().encode())

    def encode(self, text: str, allowed_special: Collection[str] = ()) -> list[int]:
        """The ids of `text`.

        Args:
            text: Any Unicode text. Special tokens in it are text.
            allowed_special: Special tokens to parse all the same, by name; "all" for every one.

        Raises:
            TokenizerError: the text holds a lone surrogate, or a character this vocabulary cannot write.
            SettingError: a name in `allowed_special` is none of a special token.

        Example:
            >>> Tokenizer.gpt2().encode("a<|endoftext|>", allowed_special={"<|endoftext|>"})
            [64, 50256]
        """
        return self._engine(allowed_special).encode(text)

    def encode_batch(
        self, texts: Sequence[str], allowed_special: Collection[str] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ids of many texts in one array.

        Returns:
            ids: uint32, all texts end to end.
            offsets: int64, one more than texts; text `i` is `ids[offsets[i]:offsets[i + 1]]`.

        Raises:
            TokenizerError, SettingError: as `encode`.

        Example:
            >>> ids, offsets = Tokenizer.gpt2().encode_batch(["A point", "", "in space"])
            >>> ids.tolist(), offsets.tolist()
            ([32, 966, 259, 2272], [0, 2, 2, 4])
        """
        return self._engine(allowed_special).encode_batch(texts)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`; bytes that are no valid UTF-8 become U+FFFD, and ids without a token nothing.

        Raises:
            TokenizerError: an id lies outside the vocabulary.
        """
        if self._vocabulary.is_byte_level:
            return self.decode_bytes(ids).decode("utf-8", errors="replace")
        return self._library.decode(self._vocabulary.checked(ids), skip_special_tokens=False)

    def decode_bytes(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """The bytes of `ids`, end to end.

        Raises:
            TokenizerError: an id lies outside the vocabulary, or its bytes are not defined.
        """
        checked = self._vocabulary.checked(ids)
        pieces = [self._vocabulary.bytes[token_id] for token_id in checked]
        if None in pieces:
            token_id = checked[pieces.index(None)]
            rule = "be one that has bytes of its own in this kind of tokenizer"
            raise TokenizerError(f"token {token_id}", rule, self.label(token_id), "Use label() or decode() for it")
        return b"".join(pieces)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes this token stands for, its leading space among them; none for an id without a token.

        In SentencePiece-style vocabularies the space that decoding takes from the front of a text is included.

        Raises:
            TokenizerError: the id lies outside the vocabulary, or its bytes are not defined: WordPiece and other
                vocabularies that drop white space, and marks for what is unknown.

        Example:
            >>> Tokenizer.gpt2().token_bytes(966)
            b' point'
        """
        return self.decode_bytes([token_id])

    def label(self, token_id: int) -> str:
        r"""A printable name, different for every token: `␣` is a space, `\n` a line break, `\xe0` a torn byte.

        Raises:
            TokenizerError: the id lies outside the vocabulary.

        Example:
            >>> Tokenizer.gpt2().label(966)
            '␣point'
        """
        (token_id,) = self._vocabulary.checked([token_id])
        return self._vocabulary.labels[token_id]

    def spelling(self, token_id: int) -> str:
        """The token as the vocabulary writes it; empty for an id without a token.

        Raises:
            TokenizerError: the id lies outside the vocabulary.

        Example:
            >>> Tokenizer.gpt2().spelling(966)
            'Ġpoint'
        """
        (token_id,) = self._vocabulary.checked([token_id])
        return self._vocabulary.tokens[token_id] or ""

    @property
    def vocab_size(self) -> int:
        """The largest id plus 1: the rows a table needs. Ids between may have no token."""
        return self._vocabulary.size

    @property
    def special_tokens(self) -> dict[str, int]:
        """The special tokens and their ids."""
        return dict(self._vocabulary.special_tokens)

    @property
    def eot_id(self) -> int | None:
        """The id that ends a text: `<|endoftext|>`, `<|end_of_text|>`, `</s>`, `<eos>` or `[SEP]`, if special."""
        special = self._vocabulary.special_tokens
        return next((special[text] for text in _ENDS_OF_TEXT if text in special), None)

    @cached_property
    def identity(self) -> str:
        """SHA-256, in hexadecimal, over all that decides the ids; files that encode alike share it."""
        return identity_of(self._vocabulary.settings)

    @property
    def engine(self) -> str:
        """One line: which library encodes, and why."""
        return self._engines[frozenset()].description

    @cached_property
    def splits_at_spaces(self) -> bool:
        """Whether a text may be cut just before a space (U+0020) that follows a letter, and encoded in pieces."""
        return splits_at_spaces(self._vocabulary.settings, self.encode)

    @property
    def partial_utf8(self) -> np.ndarray:
        """For every id, whether its token is no valid UTF-8 by itself: bool, `vocab_size` long, read-only."""
        return self._vocabulary.partial_utf8

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, vocab_size={self.vocab_size})"

    def _engine(self, allowed_special: Collection[str]) -> Engine:
        if allowed_special == "all":
            allowed = frozenset(self._vocabulary.special_tokens)
        else:
            allowed = frozenset([allowed_special] if isinstance(allowed_special, str) else allowed_special)
        special = self._vocabulary.special_tokens
        unknown = sorted(allowed - set(special))
        if unknown:
            names = ", ".join(special) or "nothing (this tokenizer has no special tokens)"
            raise SettingError("allowed_special", f"name {names}", unknown[0], "Correct or remove it")
        if allowed not in self._engines:
            self._engines[allowed] = Engine(self._library, allowed)
        return self._engines[allowed]
