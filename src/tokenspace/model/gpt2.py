"""GPT-2 folders as transformers writes them: opened as a `LanguageModel`, and written from one.

A folder holds ``config.json`` and the tensors: ``model.safetensors``, shards of it with an
index, or an old ``pytorch_model.bin``, which is opened as plain tensors only. Matrices are
stored as (in, out), the transpose of ``nn.Linear``. A setting that would change the
mathematics is refused by name. Nothing is downloaded.

Source: transformers, ``models/gpt2/modeling_gpt2.py`` and ``configuration_gpt2.py``.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tokenspace.errors import CheckpointError, SettingError
from tokenspace.files import new_folder
from tokenspace.model.language_model import LanguageModel, ModelConfig
from tokenspace.positions.learned import Learned
from tokenspace.tokenizer import Tokenizer

_CONFIG, _TENSORS, _INDEX, _OLD_TENSORS = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
)
_SIZES = {
    "vocab_size": "vocab_size",
    "d_model": "n_embd",
    "num_layers": "n_layer",
    "num_heads": "n_head",
    "context_length": "n_positions",
}
_DROPOUTS = ("embd_pdrop", "attn_pdrop", "resid_pdrop")
_MATHEMATICS = {  # what `LanguageModel` computes; other values give other logits
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
}
_RENAMED = {  # in this order: "norm." stands in longer names
    "embedding.token.": "wte.",
    "embedding.position.": "wpe.",
    "blocks.": "h.",
    "attention_norm.": "ln_1.",
    "attention.qkv.": "attn.c_attn.",
    "attention.out.": "attn.c_proj.",
    "mlp_norm.": "ln_2.",
    "mlp_in.": "mlp.c_fc.",
    "mlp_out.": "mlp.c_proj.",
    "norm.": "ln_f.",
    "head.": "lm_head.",
}
_TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
_HEAD, _TABLE, _PREFIX = "lm_head.weight", "wte.weight", "transformer."
_MASKS = (".attn.bias", ".attn.masked_bias")  # causal masks that older files carry
_SAVE_AGAIN = "Save the model again with save_pretrained"


def load_gpt2(folder: str | Path) -> LanguageModel:
    """Open a folder that transformers' ``GPT2LMHeadModel.save_pretrained`` wrote.

    Args:
        folder: Holds config.json and the tensors.

    Returns:
        The model, float32 whatever the files hold, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: a file is missing or damaged, a tensor is missing, unknown or of another
            shape, or the config asks for mathematics that `LanguageModel` does not do.

    Example:
        >>> load_gpt2("no/such/folder")
        Traceback (most recent call last):
        ...
        tokenspace.errors.CheckpointError: `no/such/folder/config.json` must be a file that can be read, but is ...
    """
    folder = Path(folder)
    model = _empty_model(folder / _CONFIG)
    model.load_state_dict(_own_tensors(_read_tensors(folder), model, folder), assign=True)
    if model.config.tie_head:
        model.head.weight = model.embedding.token.weight
    return model.eval()


def save_gpt2(model: LanguageModel, out: str | Path, tokenizer: Tokenizer | None = None) -> None:
    """Write a folder that transformers' ``GPT2LMHeadModel.from_pretrained`` opens with the same logits.

    Args:
        model: With learned positions, the only ones GPT-2's form has room for.
        out: The folder to make; it appears whole or not at all.
        tokenizer: Saved beside the model, for ``AutoTokenizer.from_pretrained``; its end-of-text id
            goes into the config.

    Raises:
        SettingError: the model's positions are not learned, its tokens are scaled, it is not causal, or `out` exists.
        DiskError: the disk is full.

    Example:
        >>> import tempfile
        >>> model = LanguageModel(vocab_size=9, d_model=8, num_layers=1, num_heads=2, context_length=4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_gpt2(model, Path(folder) / "hf")
        ...     sorted(path.name for path in (Path(folder) / "hf").iterdir())
        ['config.json', 'model.safetensors']
    """
    scheme = model.embedding.position
    if not isinstance(scheme, Learned):
        next_step = "Export a model with learned positions"
        raise SettingError("positions", "be 'learned' to fit into GPT-2's form", scheme.name, next_step)
    if model.config.token_scale != 1.0:
        next_step = "Export a model without a scale"
        raise SettingError("token_scale", "be 1 to fit into GPT-2's form", model.config.token_scale, next_step)
    if not model.config.causal:
        next_step = "Export a causal model"
        raise SettingError("model", "be causal to fit into GPT-2's form", "not causal", next_step)
    eot_id = None if tokenizer is None else tokenizer.eot_id
    config = _gpt2_config(model.config, num_positions=scheme.max_position + 1, eot_id=eot_id)
    config["dtype"] = str(model.embedding.token.weight.dtype).removeprefix("torch.")
    with new_folder(Path(out)) as part:
        _write_json(part / _CONFIG, config)
        save_file(_gpt2_tensors(model), part / _TENSORS, metadata={"format": "pt"})
        if tokenizer is not None:
            tokenizer.save(part / "tokenizer.json")
            _write_json(part / "tokenizer_config.json", _tokenizer_config(tokenizer))


def _empty_model(path: Path) -> LanguageModel:
    """A model of the sizes in a config.json, without memory for its tensors."""
    fields = _read_json(path)
    for name, wanted in _MATHEMATICS.items():
        _check_field(path, name, fields.get(name, wanted), (wanted,))
    _check_field(path, "tie_word_embeddings", fields.get("tie_word_embeddings", True), (True, False))
    missing = [name for name in _SIZES.values() if name not in fields]
    if missing:
        raise CheckpointError(f"{missing[0]} in {path}", "be given", "absent", _SAVE_AGAIN)
    dropouts = {name: fields.get(name, 0.1) for name in _DROPOUTS}  # GPT-2's own where the file is silent
    for name, dropout in dropouts.items():  # `LanguageModel` has one share for all three places
        _check_field(path, name, dropout, (dropouts[_DROPOUTS[0]],))
    try:
        with torch.device("meta"):  # no first draw, which the stored tensors would replace
            model = LanguageModel(
                **{own: fields[name] for own, name in _SIZES.items()},
                dropout=float(dropouts[_DROPOUTS[0]]),
                norm_eps=float(fields.get("layer_norm_epsilon", 1e-5)),
                tie_head=fields.get("tie_word_embeddings", True),
            )
    except (SettingError, TypeError, ValueError, RuntimeError) as error:  # RuntimeError: sizes that overflow
        raise CheckpointError(str(path), "hold the settings of a model", f"wrong ({error})", _SAVE_AGAIN) from error
    _check_field(path, "n_inner", fields.get("n_inner"), (None, 4 * model.config.d_model))
    return model


def _check_field(path: Path, name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        rule = f"be {' or '.join(str(one) for one in allowed)}"
        raise CheckpointError(f"{name} in {path}", rule, value, "Other forms of GPT-2 cannot be opened")


def _gpt2_config(config: ModelConfig, num_positions: int, eot_id: int | None) -> dict[str, Any]:
    sizes = {name: getattr(config, own) for own, name in _SIZES.items()}
    return {
        "architectures": ["GPT2LMHeadModel"],
        **_MATHEMATICS,
        **sizes,
        "n_positions": num_positions,
        "n_inner": None,
        **dict.fromkeys(_DROPOUTS, config.dropout),
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tie_head,
        "bos_token_id": eot_id,
        "eos_token_id": eot_id,
    }


def _tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """Without the class, transformers would split text by GPT-2's pattern, whatever tokenizer.json says."""
    names = {token_id: name for name, token_id in tokenizer.special_tokens.items()}
    end = names.get(tokenizer.eot_id)
    return {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": end, "eos_token": end}


def _gpt2_tensors(model: LanguageModel) -> dict[str, Tensor]:
    tensors = {}
    for own_name, tensor in model.state_dict().items():
        name = _gpt2_name(own_name)
        if name == _HEAD and model.config.tie_head:
            continue
        stored = tensor.t() if name.endswith(_TRANSPOSED) else tensor
        tensors[name if name == _HEAD else _PREFIX + name] = stored.contiguous()
    return tensors


def _own_tensors(stored: dict[str, Tensor], model: LanguageModel, folder: Path) -> dict[str, Tensor]:
    """The stored tensors under this package's names, in float32, checked against the model's shapes."""
    empty = model.state_dict()
    own_names = {_gpt2_name(own_name): own_name for own_name in empty}
    unknown = sorted(stored.keys() - own_names.keys())
    if unknown:
        raise CheckpointError(f"{unknown[0]} in {folder}", "be a tensor of GPT-2", "unknown", _SAVE_AGAIN)
    tied = model.config.tie_head
    if tied and _TABLE in stored:
        stored = {_HEAD: stored[_TABLE], **stored}
    tensors = {}
    for name, own_name in own_names.items():
        tensor, shape = stored.get(name), list(empty[own_name].shape)
        if name.endswith(_TRANSPOSED):
            shape.reverse()
        found = "absent" if tensor is None else f"{tensor.dtype} of shape {list(tensor.shape)}"
        if tensor is None or list(tensor.shape) != shape or not tensor.is_floating_point():
            raise CheckpointError(f"{name} in {folder}", f"be floats of shape {shape}", found, _SAVE_AGAIN)
        tensor = tensor.t() if name.endswith(_TRANSPOSED) else tensor
        # a copy: what `load_file` gives is still the file, and changes with it
        tensors[own_name] = tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if tied and not torch.equal(stored[_HEAD], stored[_TABLE]):
        next_step = "Set tie_word_embeddings to false in config.json"
        raise CheckpointError(f"{_HEAD} in {folder}", "equal the token table it is tied to", "another", next_step)
    return tensors


def _gpt2_name(own_name: str) -> str:
    """GPT-2's name of a tensor, without its prefix."""
    for own, theirs in _RENAMED.items():
        own_name = own_name.replace(own, theirs)
    return own_name


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of the model, by GPT-2's names without their prefix."""
    if (folder / _TENSORS).is_file():
        tensors = _read_file(folder / _TENSORS)
    elif (folder / _INDEX).is_file():
        tensors = {name: tensor for path in _shards(folder) for name, tensor in _read_file(path).items()}
    elif (folder / _OLD_TENSORS).is_file():
        tensors = _read_old_file(folder / _OLD_TENSORS)
    else:
        raise CheckpointError(str(folder), f"hold {_TENSORS}, its index or {_OLD_TENSORS}", "without", _SAVE_AGAIN)
    return {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items() if not name.endswith(_MASKS)}


def _shards(folder: Path) -> list[Path]:
    path = folder / _INDEX
    weight_map = _read_json(path).get("weight_map")
    names = set(weight_map.values()) if isinstance(weight_map, dict) else {weight_map}
    for name in names:  # a name with a folder in it would read outside
        if not isinstance(name, str) or not name.endswith(".safetensors") or set(name) & set("/\\:"):
            raise CheckpointError(str(path), "name files of its own folder", name, _SAVE_AGAIN)
    return [folder / name for name in sorted(names)]


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(str(path), "be a whole safetensors file", f"damaged ({error})", _SAVE_AGAIN) from error


def _read_old_file(path: Path) -> dict[str, Tensor]:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)  # tensors, never code
    except Exception as error:  # a damaged file makes torch's reader raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(str(path), "be a whole file of plain tensors", reason, _SAVE_AGAIN) from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise CheckpointError(str(path), "be a state dict", type(tensors).__name__, _SAVE_AGAIN)
    return tensors


def _write_json(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8", newline="\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_bytes())
    except OSError as error:
        next_step = "Give a folder that save_pretrained wrote"
        raise CheckpointError(str(path), "be a file that can be read", error.strerror or error, next_step) from error
    except ValueError as error:
        raise CheckpointError(str(path), "be whole JSON", f"damaged ({error})", _SAVE_AGAIN) from error
    if not isinstance(fields, dict):
        raise CheckpointError(str(path), "be a JSON object", type(fields).__name__, _SAVE_AGAIN)
    return fields
