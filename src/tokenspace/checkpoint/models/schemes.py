"""From a model's config.json to the position scheme it was trained with, by this package's names.

Every function takes the fields of a config with its family's defaults filled in, and gives the name of a scheme and its
settings, complete for `tokenspace.positions.get`. The numbers of a rotary scaling are handed over as they are;
`tokenspace.positions` checks them.

Source: transformers, ``modeling_rope_utils.py`` and the configurations of the families.
"""

from typing import Any

from tokenspace.errors import CheckpointError

NamedScheme = tuple[str, dict[str, Any]]
_NEED_LENGTH = ("llama3", "yarn", "longrope", "dynamic")  # kinds whose original length is the model's, if not given


def learned(config: dict[str, Any]) -> NamedScheme:
    """A table of positions: GPT-2, BERT, RoBERTa."""
    length, width = (_first(config, *names) for names in (("n_positions", "max_position_embeddings"), _WIDTH))
    return "learned", {"num_positions": length, "d_model": width}


def t5(config: dict[str, Any]) -> NamedScheme:
    """T5's bias; that of the encoder, which sees both sides."""
    return "t5", {
        "num_heads": config["num_heads"],
        "num_buckets": config["relative_attention_num_buckets"],
        "max_distance": config["relative_attention_max_distance"],
        "bidirectional": True,
    }


def alibi(config: dict[str, Any]) -> NamedScheme:
    """BLOOM's slopes."""
    return "alibi", {"num_heads": _first(config, "n_head", "num_attention_heads")}


def rotary(config: dict[str, Any]) -> NamedScheme:
    """Llama and its many relatives: one rotation for all layers."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return "rotary", _rotary(config, scaling, config["rope_theta"])


def rotary_by_layer(config: dict[str, Any]) -> NamedScheme:
    """Gemma 3: one rotation for layers that look at all, another for those with a window."""
    given = config.get("rope_parameters")
    if given is None:  # before transformers 5 the scaling was that of the global layers
        given = {"full_attention": config.get("rope_scaling") or {}}
    kinds = {"full_attention": config["rope_theta"], "sliding_attention": config["rope_local_base_freq"]}
    layers = config.get("layer_types") or _pattern(config)
    members = []
    for kind, theta in kinds.items():
        own = [layer for layer, found in enumerate(layers) if found == kind]
        if own:
            settings = _rotary(config, given.get(kind) or {}, theta)
            members.append({"name": "rotary", **settings, "layers": own})
    return "compose", {"members": members}


_WIDTH = ("n_embd", "hidden_size", "d_model")


def _rotary(config: dict[str, Any], scaling: Any, theta: float) -> dict[str, Any]:
    if not isinstance(scaling, dict):
        next_step = "Restore the config of the model"
        raise CheckpointError("rope_parameters of config.json", "be an object", scaling, next_step)
    scaling = {name: number for name, number in scaling.items() if number is not None}
    theta = float(scaling.pop("rope_theta", theta))
    kind = scaling.setdefault("rope_type", scaling.pop("type", "default"))
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    share = scaling.pop("partial_rotary_factor", config.get("partial_rotary_factor") or 1.0)
    if kind in _NEED_LENGTH:
        length = config.get("original_max_position_embeddings") or config["max_position_embeddings"]
        scaling.setdefault("original_max_position_embeddings", length)
    settings = {"head_dim": head_dim, "theta": theta}
    if share != 1.0:
        settings["rotary_dim"] = int(head_dim * share)
    return settings if kind == "default" else {**settings, "scaling": scaling}


def _pattern(config: dict[str, Any]) -> list[str]:
    """Every sixth layer looks at all, unless told otherwise."""
    every = config.get("sliding_window_pattern") or 6
    kinds = ("full_attention", "sliding_attention")
    return [kinds[bool((layer + 1) % every)] for layer in range(config["num_hidden_layers"])]


def _first(config: dict[str, Any], *names: str) -> Any:
    for name in names:
        if name in config:
            return config[name]
    raise CheckpointError("config.json", f"give {names[0]}", "absent", "Restore the config of the model")
