"""Text from a model, one token at a time.

Greedy at temperature 0, otherwise sampled. Within the context a key-value cache is
used; beyond it the window slides and is read anew for every token. No beam search.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from tokenspace.embedding import check_token_ids
from tokenspace.errors import SettingError, check_at_least
from tokenspace.model.attention import KeyValueCache

if TYPE_CHECKING:  # the model imports this file
    from tokenspace.model.language_model import LanguageModel


def generate(
    model: "LanguageModel",
    token_ids: Sequence[int],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
    stop_id: int | None = None,
) -> Iterator[int]:
    """Yield new token ids after a prompt.

    Args:
        model: Any device; set to evaluation mode while a token is computed, then put back.
        token_ids: The prompt; at least one token.
        max_new_tokens: Upper bound.
        temperature: Divides the logits; 0 takes the most probable token.
        top_k: Sample among so many most probable tokens; None for all.
        seed: Of the sampling; None draws from torch's generator.
        stop_id: End when this token comes, which is not yielded.

    Raises:
        SettingError: the prompt is empty, a setting is out of range, or the model is not causal.
        ShapeError: a prompt id lies outside the model's vocabulary.

    Example:
        >>> from tokenspace.model import LanguageModel
        >>> model = LanguageModel(vocab_size=9, d_model=8, num_layers=1, num_heads=1, context_length=4)
        >>> len(list(generate(model, [1, 2], max_new_tokens=5)))
        5
    """
    check_at_least(0, max_new_tokens=max_new_tokens)
    if not model.config.causal:
        raise SettingError("model", "be causal to go on with a text", "not causal", "Train one with causal = true")
    if not len(token_ids):
        raise SettingError("prompt", "have at least one token", 0, "Begin with a word, or with the end-of-text token")
    if not temperature >= 0:
        raise SettingError("temperature", "be at least 0", temperature, "Use 0 for the most probable token")
    if top_k is not None:
        check_at_least(1, top_k=top_k)
    device = next(model.parameters()).device
    read = list(token_ids)
    check_token_ids(torch.tensor(read), model.config.vocab_size)
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    return _tokens(model, read, max_new_tokens, temperature, top_k, generator, stop_id)


def _tokens(
    model: "LanguageModel",
    read: list[int],
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    generator: torch.Generator | None,
    stop_id: int | None,
) -> Iterator[int]:
    context = model.config.context_length + model.config.memory_length
    device = next(model.parameters()).device
    cache = KeyValueCache(context)
    for _ in range(max_new_tokens):
        if len(read) > context:
            cache = KeyValueCache(context)  # the window slides: every position has changed
        unread = read[-context:][cache.length :]
        logits = _last_logits(model, torch.tensor([unread], device=device), cache)
        next_id = _choose(logits, temperature, top_k, generator)
        if next_id == stop_id:
            return
        read.append(next_id)
        yield next_id


@torch.no_grad()  # of its own: a generator's caller may switch gradients on between two tokens
def _last_logits(model: "LanguageModel", token_ids: torch.Tensor, cache: KeyValueCache) -> torch.Tensor:
    training = model.training
    model.eval()
    try:
        return model.head(model.features(token_ids, cache=cache)[0, -1]).float()
    finally:
        model.train(training)


def _choose(logits: torch.Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None) -> int:
    if temperature == 0:
        return int(logits.argmax())
    logits = logits / temperature
    if top_k is not None and top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
    return int(torch.multinomial(logits.softmax(dim=-1), 1, generator=generator))
