"""Model folders that transformers opens, edited on disk: a new folder, written whole or not at all.

Only the files of tensors with a row a token are written anew, as safetensors; the others are
copied. Settings, tokenizer files and the index of shards are brought into line.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokenspace.checkpoint import Table, Tables, open_tables
from tokenspace.checkpoint.models.families import FAMILIES
from tokenspace.checkpoint.models.folder import ModelFolder, is_zip
from tokenspace.checkpoint.models.tables import same_tensors
from tokenspace.errors import CheckpointError, SettingError
from tokenspace.files import new_folder
from tokenspace.vocabulary.accounting import Account
from tokenspace.vocabulary.changes import Change
from tokenspace.vocabulary.edit import Edit
from tokenspace.vocabulary.lengths import resize_length_settings, resized_table
from tokenspace.vocabulary.receipt import FILE_NAME, Changed, Receipt
from tokenspace.vocabulary.renumbering import spellings
from tokenspace.vocabulary.running import CannotRunError, load_model
from tokenspace.vocabulary.settings import check_fixed, check_named, named_ids, renumber_settings
from tokenspace.vocabulary.tokenizer_files import named_tokens, write_tokenizer_files
from tokenspace.vocabulary.writing import DTYPES, Entry, entries_of, metadata_of, write_tensors

_CONFIG, _GENERATION, _INDEX = "config.json", "generation_config.json", "model.safetensors.index.json"
_WEIGHTS = (".bin", ".safetensors", ".h5", ".msgpack", ".ot", ".onnx", ".gguf", ".pt", ".pth", ".tflite")
_POSITION_IDS = "embeddings.position_ids"  # a buffer that older files hold


@torch.no_grad()
def edit_folder(tables: Tables, out: Path, change: Change, text: str | None = None) -> Receipt:
    """Write an edited model folder.

    Raises:
        TokenspaceError: the change cannot be made; nothing is left behind.
    """
    folder = ModelFolder(tables.path)
    if tables.tokenizer is None:
        next_step = "Save its tokenizer there: AutoTokenizer.from_pretrained(…).save_pretrained(…)"
        raise CheckpointError(str(tables.path), "have a tokenizer.json", "without", next_step)
    named = _named(folder, tables)
    edit = change.plan(tables.tokenizer, tables.num_rows, named)
    check_named(named, edit)
    check_fixed({tables.position_offset - 1: "pad_token_id"} if tables.position_offset else {}, edit)
    if edit.num_positions is not None and tables.position is None:
        rule = "be left out for positions without a table"
        found = f"given, and the scheme is {tables.scheme[0]!r}"
        raise SettingError("num_positions", rule, found, "Leave it out")
    account = _account(edit, tables, text)
    account.remarks += _remarks(tables)
    with new_folder(out) as part:
        if edit.changes_nothing:
            new, changed = {}, []
            _copy(folder, part)
        else:
            new, changed = _tensors(folder, tables, edit)
            _write(folder, tables, edit, part, new, account.remarks)
        if account.model is not None:
            account.model = None  # before the next one is read: one at a time
            account.model = load_model(open_tables(part))
        after = ModelFolder(part).table(tables.token.key).tensor()
        receipt = account.close(after, tables.tied, changed, account.told)
        receipt.save(part / FILE_NAME)
    return receipt


def _account(edit: Edit, tables: Tables, text: str | None) -> Account:
    """The model before the edit, run where a text is given and it can be."""
    model, reason = None, ""
    if text is not None:
        try:
            model = load_model(tables)
        except CannotRunError as error:
            reason = error.args[2]
    return Account.open(edit, tables.token.tensor(), text, model=model, why_not_run=reason)


def _copy(folder: ModelFolder, out: Path) -> None:
    """All files as they are; links are followed no farther than elsewhere."""
    for path in sorted(folder.path.iterdir()):
        if path.is_dir() and not path.is_symlink():
            (out / path.name).mkdir()
            _copy(ModelFolder(path), out / path.name)
        elif path.name != FILE_NAME:
            folder.copy_file(path.name, out)


def _named(folder: ModelFolder, tables: Tables) -> dict[int, str]:
    """Ids that settings name, by id or by text."""
    named: dict[int, str] = {}
    id_of = spellings(tables.tokenizer.settings)
    for token, setting in named_tokens(folder).items():
        if token in id_of:
            named[id_of[token]] = setting
    for name in (_GENERATION, _CONFIG):
        if folder.file(name).is_file():
            for token_id, setting in named_ids(folder.json(name), tables.num_rows).items():
                named[token_id] = f"{setting} in {name}"
    return named


def _remarks(tables: Tables) -> list[str]:
    if tables.tie_flag and tables.stored_head is not None and not tables.tied:
        return ["the config said the head is tied, but the file holds another one: tie_word_embeddings is now false"]
    return []


def _tensors(folder: ModelFolder, tables: Tables, edit: Edit) -> tuple[dict[str, Entry], list[Changed]]:
    """The tensors that change, by key."""
    drawer = edit.drawer()
    padding = len(edit.fresh) - len(edit.texts)
    token = tables.token.tensor()
    fresh = drawer.draw(token, padding, is_input=True)
    found = {tables.token.key: (tables.token, fresh)}
    for table in (*tables.copies, *filter(None, [tables.stored_head])):
        is_input = table is not tables.stored_head
        own = fresh if same_tensors(table, tables.token) else drawer.draw(table.tensor(), padding, is_input=is_input)
        found[table.key] = table, own
    for table in _biases(folder, tables):
        found[table.key] = table, drawer.draw(table.tensor(), padding, is_input=False)
    for table, _ in found.values():
        if table.shape[0] != tables.num_rows:
            rule = f"have the token table's {tables.num_rows:,} rows"
            raise CheckpointError(
                f"{table.key} in {table.file}", rule, f"{table.shape[0]:,}", "Make the two equal first"
            )
    new = {} if edit.keeps_rows else {k: Entry.gathered(t.tensor(), edit.source, own) for k, (t, own) in found.items()}
    changed = [Changed(key, found[key][0].shape, entry.shape) for key, entry in new.items()]
    if edit.num_positions is not None:
        old = tables.position
        made = resized_table(old.tensor(), edit.num_positions, edit.interpolate, tables.position_offset)
        new[old.key] = Entry.of(made)
        changed.append(Changed(old.key, old.shape, tuple(made.shape)))
        for key in folder.keys:
            if key.endswith(_POSITION_IDS):
                new[key] = Entry.of(torch.arange(len(made)).unsqueeze(0))
    return new, changed


def _biases(folder: ModelFolder, tables: Tables) -> list[Table]:
    """All biases of the head: files may hold one that is shared under two names."""
    family = FAMILIES.get(tables.family)
    names = () if family is None else family.head_bias
    return [folder.table(name) for name in names if name in folder.keys]


def _write(
    folder: ModelFolder, tables: Tables, edit: Edit, out: Path, new: dict[str, Entry], remarks: list[str]
) -> None:
    written = _write_weights(folder, out, new)
    for name in (_CONFIG, _GENERATION):
        if folder.file(name).is_file():
            fields = folder.json(name)
            _edit_settings(fields, name, tables, edit, new)
            (out / name).write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            written.add(name)
    if edit.new is not edit.old:
        written |= write_tokenizer_files(folder, out, edit)
    left = []
    for path in sorted(folder.path.iterdir()):
        stale = path.suffix in _WEIGHTS or (path.suffix == ".model" and edit.new is not edit.old)
        if path.name in written or path.name == FILE_NAME or path.name.endswith(".index.json"):
            continue
        if path.is_dir() or stale:
            left.append(path.name)
        else:
            folder.copy_file(path.name, out)
    left = [name for name in left if folder.path / name not in folder.files]
    if left:
        remarks.append(f"left out, as they may hold the old vocabulary: {', '.join(left)}")


def _edit_settings(fields: dict[str, Any], name: str, tables: Tables, edit: Edit, new: dict[str, Entry]) -> None:
    renumber_settings(fields, edit)
    if name != _CONFIG:
        return
    text = fields.get("text_config")
    if "vocab_size" not in fields and not (isinstance(text, dict) and "vocab_size" in text):
        fields["vocab_size"] = edit.new_num_rows
    if tables.tie_flag and tables.stored_head is not None and not tables.tied:
        fields["tie_word_embeddings"] = False
    if edit.num_positions is not None:
        resize_length_settings(fields, new[tables.position.key].shape[0])


def _write_weights(folder: ModelFolder, out: Path, new: dict[str, Entry]) -> set[str]:
    """All files of tensors; gives their names."""
    names, weight_map, total = set(), {}, 0
    for file in folder.files:
        name = file.name
        if file.suffix == ".safetensors":
            entries, metadata = entries_of(file), metadata_of(file)
        else:
            name = name.replace("pytorch_model", "model").removesuffix(".bin") + ".safetensors"
            entries, metadata = _pickled_entries(file), {"format": "pt"}
        if file.suffix == ".safetensors" and not new.keys() & entries.keys():
            shutil.copyfile(file, out / name)
        else:
            entries = {key: new.get(key, entry) for key, entry in entries.items()}
            write_tensors(out / name, entries, metadata)
        names.add(name)
        weight_map |= dict.fromkeys(entries, name)
        total += sum(entry.num_bytes for entry in entries.values())
    if names != {"model.safetensors"}:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (out / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        names.add(_INDEX)
    return names


def _pickled_entries(file: Path) -> dict[str, Entry]:
    """The tensors of a pytorch_model.bin, which `ModelFolder` has opened and checked."""
    tensors: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip(file))
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided:
            raise CheckpointError(f"{key} in {file}", "be a dense tensor", str(tensor.layout), "Save the model again")
        if tensor.dtype not in DTYPES:
            rule = "be of a type that safetensors files hold"
            raise CheckpointError(f"{key} in {file}", rule, str(tensor.dtype), "Save it in another type")
    return {key: Entry.of(nn.Parameter(tensor, requires_grad=False).data) for key, tensor in tensors.items()}
