"""A small decoder that reads the input embedding: GPT-2's architecture with any position scheme.

Pre-norm blocks, GELU (tanh form), biases everywhere, output head tied to the token
table unless told otherwise. It computes features and logits; losses, training and
files are elsewhere.

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", and
its released code. Axis letters: B batch, T length, D d_model, V vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn
from torch.nn import functional as F

from tokenspace import positions
from tokenspace.embedding import InputEmbedding, TokenEmbedding, init_recipe
from tokenspace.errors import SettingError, ShapeError, check_above_0, check_at_least
from tokenspace.model.attention import KeyValueCache, Prepared, SelfAttention
from tokenspace.model.generation import generate
from tokenspace.model.memory import SegmentMemory
from tokenspace.positions import Layout, ModelShape

_INIT_STD = 0.02  # of every matrix that is no table; GPT-2's


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """All that fixes a model's parameters, and nothing about its training.

    Attributes:
        vocab_size: Rows of the token table.
        d_model: Length of a token vector.
        num_layers: Blocks.
        num_heads: Attention heads a block; must divide `d_model`.
        context_length: Tokens of a training window; with `memory_length`, the most that `generate` looks back on.
        positions: Name of the position scheme.
        position_settings: Settings of the scheme beyond what the model's sizes imply.
        dropout: After the embedding, in attention and after each branch.
        tie_head: Whether the output head is the token table.
        init: Recipe of the first draw of the tables; see `tokenspace.embedding.init_recipe`.
        norm_eps: Added to the variance in every LayerNorm.
        memory_length: Vectors of the segments before that each layer looks back on; 0 for none.
        token_scale: Factor on the token vectors where they are read; None for what the scheme wants, which is the
            root of `d_model` for sinusoidal waves and 1 for all others.
        causal: Whether a token sees only those before it. One that sees both sides cannot be asked for the next
            token: it is trained to find hidden ones, and the last row of its table is the token that hides them.

    Raises:
        SettingError: a size or `dropout` is out of range, `num_heads` does not divide `d_model`, `norm_eps` or
            `token_scale` is not above 0, there is no such scheme, or a model that is not causal would have memory.
    """

    vocab_size: int
    d_model: int = 256
    num_layers: int = 4
    num_heads: int = 4
    context_length: int = 128
    positions: str = "learned"
    position_settings: dict[str, Any] = field(default_factory=dict)
    dropout: float = 0.0
    tie_head: bool = True
    init: str = "gpt2"
    norm_eps: float = 1e-5
    memory_length: int = 0
    causal: bool = True
    token_scale: float | None = None

    def __post_init__(self) -> None:
        check_at_least(
            1,
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            context_length=self.context_length,
        )
        check_at_least(0, memory_length=self.memory_length)
        if self.memory_length and not self.causal:
            next_step = "Leave memory_length out, or causal"
            raise SettingError("memory_length", "be 0 where causal is false", self.memory_length, next_step)
        if not 0.0 <= self.dropout < 1.0:
            raise SettingError("dropout", "lie in [0, 1)", self.dropout, "Use 0.0 for none")
        if not self.norm_eps > 0:
            raise SettingError("norm_eps", "be above 0", self.norm_eps, "Use 1e-5, as GPT-2 does")
        if self.token_scale is None:
            object.__setattr__(self, "token_scale", positions.token_scale(self.positions, self.d_model))
        check_above_0("Leave it out", token_scale=self.token_scale)
        if self.d_model % self.num_heads:
            nearest = max(1, round(self.d_model / self.num_heads)) * self.num_heads
            rule = f"be divisible by num_heads = {self.num_heads}"
            raise SettingError("d_model", rule, self.d_model, f"Use d_model = {nearest}, or other num_heads")

    @classmethod
    def stored(cls, fields: Mapping[str, Any]) -> Self:
        """The config of these stored fields; those stored before there was a `token_scale` had 1."""
        return cls(**{"token_scale": 1.0, **fields})

    @property
    def shape(self) -> ModelShape:
        """The sizes a position scheme may depend on."""
        return ModelShape(
            d_model=self.d_model,
            num_heads=self.num_heads,
            head_dim=self.d_model // self.num_heads,
            num_layers=self.num_layers,
            context_length=self.context_length,
            causal=self.causal,
        )


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d = config.d_model
        self.attention_norm = nn.LayerNorm(d, eps=config.norm_eps)
        self.attention = SelfAttention(config.shape, config.dropout)
        self.mlp_norm = nn.LayerNorm(d, eps=config.norm_eps)
        self.mlp_in = nn.Linear(d, 4 * d)
        self.mlp_out = nn.Linear(4 * d, d)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x_BTD: Tensor,
        prepared: Prepared,
        layer: int,
        cache: KeyValueCache | None = None,
        past_BMD: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D); `past_BMD` is what this block read in the segments before."""
        past_BMD = None if past_BMD is None else self.attention_norm(past_BMD)
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), prepared, layer, cache, past_BMD)
        hidden = F.gelu(self.mlp_in(self.mlp_norm(x_BTD)), approximate="tanh")
        return x_BTD + self.dropout(self.mlp_out(hidden))


class LanguageModel(nn.Module):
    """Token ids to the logits of the next token; of the token itself, where the model is not causal.

    The scheme is drawn last: models that differ in nothing else begin with the same other parameters.

    Args:
        config: Sizes and scheme; or give its fields as keywords.

    Attributes:
        embedding: The `InputEmbedding`: `embedding.token` and `embedding.position`.
        head: Linear from d_model to vocab_size; shares the token table's weight when tied.

    Example:
        >>> import torch
        >>> model = LanguageModel(vocab_size=100, d_model=16, num_layers=1, num_heads=2, context_length=8)
        >>> model(torch.zeros(2, 8, dtype=torch.long)).shape
        torch.Size([2, 8, 100])
    """

    def __init__(self, config: ModelConfig | None = None, **fields: Any) -> None:
        super().__init__()
        self.config = config or ModelConfig(**fields)
        config = self.config
        recipe = init_recipe(config.init, config.d_model)
        self.register_module("embedding", None)  # first among the parameters, though made last
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self._init_matrices()
        token = TokenEmbedding(config.vocab_size, config.d_model, init=config.init)
        scheme = positions.for_model(config.positions, config.shape, **config.position_settings)
        if config.memory_length and scheme.enters_input:
            rule = f"be 0 with {scheme.name!r} positions, which memory would keep"
            raise SettingError("memory_length", rule, config.memory_length, "Use positions such as 'transformer_xl'")
        self.embedding = InputEmbedding(token, scheme, dropout=config.dropout, scale=config.token_scale)
        scheme.reset_tables(recipe.position_std)
        if config.tie_head:
            self.head.weight = token.weight

    @staticmethod
    def from_pretrained(folder: str | Path) -> "LanguageModel":
        """The model in a folder of transformers' GPT-2; see `tokenspace.model.gpt2.load_gpt2`."""
        from tokenspace.model.gpt2 import load_gpt2  # that file builds models

        return load_gpt2(folder)

    def _init_matrices(self) -> None:
        """GPT-2's first draw: the residual branches' last matrices shrink with the depth."""
        residual_std = _INIT_STD * (2 * self.config.num_layers) ** -0.5
        for name, module in [*self.blocks.named_modules(), ("head", self.head)]:
            if isinstance(module, nn.Linear):
                is_last = name.endswith(("attention.out", "mlp_out"))
                nn.init.normal_(module.weight, std=residual_std if is_last else _INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def features(
        self,
        token_ids: Tensor,
        layout: Layout | None = None,
        *,
        cache: KeyValueCache | None = None,
        memory: SegmentMemory | None = None,
    ) -> Tensor:
        """What the head reads.

        Args:
            token_ids: Whole numbers, (B, T).
            layout: Where the tokens stand; None for positions 0 … T-1. With a cache or a memory, where
                they would stand alone: what those hold is put before them.
            cache: Read and extended, if given.
            memory: Read and moved on, if given: `token_ids` follow the tokens of the call before.

        Returns:
            (B, T, D).

        Raises:
            ShapeError: an id or a position lies outside its table, or memory has other rows or would keep padding.
            SettingError: both a cache and a memory are given, or one of them to a model that is not causal.
        """
        if cache is not None and memory is not None:
            raise SettingError("memory", "not be given with a cache", "both", "Give one of the two")
        if not self.config.causal and (cache is not None or memory is not None):
            next_step = "Give all tokens at once"
            raise SettingError("cache, memory", "be left out where the model is not causal", "given", next_step)
        plain = layout is None and (cache is None or cache.layout is None)
        layout = layout or Layout.contiguous(token_ids.shape[1], token_ids.device)
        if cache is not None:
            layout = layout.extend(cache, self.embedding.position.needs_raw_keys)
        if memory is not None:
            memory.check_rows(token_ids.shape[0])
            if layout.key_valid is not None:
                next_step = "Give whole segments, or leave memory out"
                raise ShapeError("layout", "have no padding with memory, which would keep it", "padded", next_step)
            layout = layout.with_memory(memory.length)
        prepared = Prepared.of(self.embedding.position, layout, self.config.causal)
        x_BTD = self.embedding(token_ids, None if plain else layout.query_positions)
        read = []
        for layer, block in enumerate(self.blocks):
            read.append(x_BTD)
            x_BTD = block(x_BTD, prepared, layer, cache, None if memory is None else memory.read(layer))
        if memory is not None:  # after all blocks, which may be run again in the backward pass
            memory.keep(read)
        if cache is not None:
            cache.layout = layout
        return self.norm(x_BTD)

    def forward(
        self,
        token_ids: Tensor,
        layout: Layout | None = None,
        *,
        cache: KeyValueCache | None = None,
        memory: SegmentMemory | None = None,
    ) -> Tensor:
        """Logits at every place, (B, T, V); see `features`."""
        return self.head(self.features(token_ids, layout, cache=cache, memory=memory))

    def new_memory(self) -> SegmentMemory | None:
        """An empty memory of the model's length; None where it has none."""
        return SegmentMemory(self.config.memory_length) if self.config.memory_length else None

    def num_parameters(self) -> int:
        """Numbers that training moves; a tied table counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def generate(self, token_ids: Sequence[int], max_new_tokens: int, **sampling: Any) -> Iterator[int]:
        """Yield new token ids after a prompt; see `tokenspace.model.generation.generate`."""
        return generate(self, token_ids, max_new_tokens, **sampling)
