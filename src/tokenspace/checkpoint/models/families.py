"""The families of models whose input side is known: names of tensors, offsets, scales, defaults.

One entry a family, by ``model_type`` of config.json. A new family is a new entry and its row in
the tests. Nothing here reads a tensor.

Source: transformers, ``modeling_*.py`` and ``configuration_*.py`` of each family.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenspace.checkpoint.models import schemes
from tokenspace.checkpoint.models.schemes import NamedScheme


@dataclass(frozen=True, kw_only=True)
class Family:
    """Where a family keeps its input side.

    Attributes:
        prefixes: What may stand before the names of `token`, `position`, `token_types` and `norm`: with a head,
            without one, as older files have it.
        token: Name of the token table.
        scheme: Its position scheme, from the config's fields.
        scheme_weight: Name of the scheme's one learned tensor, if it has one.
        token_types: Name of the table of token types.
        norm: Name of the LayerNorm over the sum, without ``.weight``.
        norm_eps: The config's name for what is added to its variance.
        copies: Further names under which files may hold the token table.
        head: Names that the head may have, whole; the first that is there counts.
        head_bias: Names that its bias may have, whole.
        tied: Whether the head is the token table, where the config is silent.
        offset: Added to every position, from the config's fields.
        scaled: Whether token vectors are multiplied by the root of d_model.
        defaults: What the config need not say.
    """

    prefixes: tuple[str, ...]
    token: str
    scheme: Callable[[dict[str, Any]], NamedScheme]
    scheme_weight: str | None = None
    token_types: str | None = None
    norm: str | None = None
    norm_eps: str = "layer_norm_eps"
    copies: tuple[str, ...] = ()
    head: tuple[str, ...] = ("lm_head.weight",)
    head_bias: tuple[str, ...] = ("lm_head.bias",)
    tied: bool = True
    offset: Callable[[dict[str, Any]], int] = lambda config: 0
    scaled: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)


_BERT = {
    "token": "embeddings.word_embeddings.weight",
    "scheme": schemes.learned,
    "scheme_weight": "embeddings.position_embeddings.weight",
    "token_types": "embeddings.token_type_embeddings.weight",
    "norm": "embeddings.LayerNorm",
}


def _llama(**differences: Any) -> Family:
    """Llama's form, which many share."""
    defaults = {"rope_theta": 10_000.0, **differences.pop("defaults", {})}
    common = {"prefixes": ("model.", ""), "token": "embed_tokens.weight", "scheme": schemes.rotary, "tied": False}
    return Family(**(common | differences), defaults=defaults)


def _t5() -> Family:
    bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return Family(
        prefixes=("",),
        token="shared.weight",
        scheme=schemes.t5,
        scheme_weight=f"encoder.{bias}",
        copies=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
        defaults={"num_heads": 8, "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128},
    )


def _gemma3(*prefixes: str) -> Family:
    defaults = {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "num_attention_heads": 8, "num_hidden_layers": 26}
    return _llama(
        prefixes=prefixes,
        scheme=schemes.rotary_by_layer,
        tied=True,
        scaled=True,
        defaults={"head_dim": 256, "max_position_embeddings": 131_072, **defaults},
    )


FAMILIES = {
    "gpt2": Family(
        prefixes=("transformer.", ""), token="wte.weight", scheme=schemes.learned, scheme_weight="wpe.weight"
    ),
    "bert": Family(
        prefixes=("bert.", ""),
        **_BERT,
        head=("cls.predictions.decoder.weight",),
        head_bias=("cls.predictions.bias", "cls.predictions.decoder.bias"),
        defaults={"layer_norm_eps": 1e-12, "max_position_embeddings": 512},
    ),
    "roberta": Family(
        prefixes=("roberta.", ""),
        **_BERT,
        head=("lm_head.decoder.weight",),
        head_bias=("lm_head.bias", "lm_head.decoder.bias"),
        offset=lambda config: config["pad_token_id"] + 1,
        defaults={"layer_norm_eps": 1e-12, "max_position_embeddings": 512, "pad_token_id": 1},
    ),
    "t5": _t5(),
    "mt5": _t5(),
    "bloom": Family(
        prefixes=("transformer.", ""),
        token="word_embeddings.weight",
        scheme=schemes.alibi,
        norm="word_embeddings_layernorm",
        norm_eps="layer_norm_epsilon",
        defaults={"layer_norm_epsilon": 1e-5},
    ),
    "llama": _llama(),
    "mistral": _llama(),
    "mixtral": _llama(defaults={"rope_theta": 1e6}),
    "qwen2": _llama(),
    "qwen2_moe": _llama(),
    "qwen3": _llama(defaults={"head_dim": 128}),
    "qwen3_moe": _llama(),
    "gemma": _llama(tied=True, scaled=True, defaults={"head_dim": 256}),
    "gemma2": _llama(tied=True, scaled=True, defaults={"head_dim": 256}),
    "gemma3_text": _gemma3("model.", ""),
    "gemma3": _gemma3("language_model.model.", "model.language_model.", "language_model.", "model."),
}
FAMILIES["xlm-roberta"] = FAMILIES["camembert"] = FAMILIES["roberta"]
