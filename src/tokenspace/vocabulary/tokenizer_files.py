"""The files in which transformers keeps a tokenizer, all in one vocabulary after an edit."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from tokenspace.checkpoint.models.folder import ModelFolder
from tokenspace.errors import CheckpointError
from tokenspace.vocabulary.closure import as_pair
from tokenspace.vocabulary.edit import Edit
from tokenspace.vocabulary.renumbering import spellings

TOKENIZER, CONFIG, MAP, ADDED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_FIELDS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")


def named_tokens(folder: ModelFolder) -> dict[str, str]:
    """Tokens that the tokenizer's settings name by their text, such as `eos_token`, each with its setting."""
    found: dict[str, str] = {}
    for name in (CONFIG, MAP):
        if folder.file(name).is_file():
            for setting, value in folder.json(name).items():
                if setting.endswith("_token"):
                    content = value.get("content") if isinstance(value, dict) else value
                    if isinstance(content, str):
                        found.setdefault(content, f"{setting} in {name}")
    return found


def write_tokenizer_files(folder: ModelFolder, out: Path, edit: Edit) -> set[str]:
    """Write them for the new vocabulary; gives their names."""
    raw = edit.respell(_numbered(_read(folder), edit.old.settings))
    if spellings(raw) != spellings(edit.new.settings):
        next_step = "Save its tokenizer again: AutoTokenizer.from_pretrained(…).save_pretrained(…)"
        raise CheckpointError(f"{TOKENIZER} of {folder.path}", "be as the library reads it", "otherwise", next_step)
    added = raw["added_tokens"]
    # not so the others, in which transformers writes integers beyond 64 bits
    written = {TOKENIZER: orjson.dumps(raw, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()}
    stays = edit.to.tolist()
    gone = {token for token, old_id in spellings(edit.old.settings).items() if stays[old_id] < 0}
    for name in (CONFIG, MAP):
        if folder.file(name).is_file():
            fields = folder.json(name)
            if "added_tokens_decoder" in fields:
                fields["added_tokens_decoder"] = {
                    str(token["id"]): {field: token[field] for field in _FIELDS} for token in added
                }
            for key in _LISTS:
                if isinstance(fields.get(key), list):
                    fields[key] = [token for token in fields[key] if _content(token) not in gone]
            written[name] = _json(fields)
    own = raw["model"]["vocab"]
    if folder.file(ADDED).is_file():
        outside = own if isinstance(own, Mapping) else {piece for piece, _ in own}
        written[ADDED] = _json({t["content"]: t["id"] for t in added if t["content"] not in outside})
    for name, text in _plain_files(raw):
        if folder.file(name).is_file():
            written[name] = text
    for name, text in written.items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")
    return set(written)


def _read(folder: ModelFolder) -> dict[str, Any]:
    """The tokenizer.json: a hundred thousand tokens, which orjson reads in a third of the time."""
    try:
        return orjson.loads(folder.file(TOKENIZER).read_bytes())
    except orjson.JSONDecodeError:  # NaN, which json reads
        return folder.json(TOKENIZER)


def _numbered(raw: dict[str, Any], read: dict[str, Any]) -> dict[str, Any]:
    """A file with the ids of added tokens that the library gives them, whatever ids stand there."""
    id_of = {token["content"]: token["id"] for token in read["added_tokens"]}
    return raw | {"added_tokens": [{**token, "id": id_of[token["content"]]} for token in raw.get("added_tokens") or ()]}


def _plain_files(settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    vocabulary = settings["model"]["vocab"]
    if isinstance(vocabulary, Mapping):
        yield "vocab.json", json.dumps(vocabulary, ensure_ascii=False)
        yield "vocab.txt", "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.__getitem__))
    if settings["model"].get("merges") is not None:
        lines = [" ".join(as_pair(merge)) for merge in settings["model"]["merges"]]
        yield "merges.txt", "\n".join(["#version: 0.2", *lines, ""])


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
