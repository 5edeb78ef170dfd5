"""What an edit does to a model on a text: bits per byte, and how far the logits of the tokens that stayed moved.

A model is anything that maps ids (B, T) to logits (B, T, V), ours or one of transformers. Axis
letters: B batch, T length, V rows, P places that are compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenspace.model import LanguageModel
from tokenspace.tokenizer import Tokenizer
from tokenspace.vocabulary.edit import Edit

_COMPARED = 256  # places, at most: each takes a row of logits
_WINDOW = 512  # tokens, at most
_NEXT_TOKEN = ("ForCausalLM", "LMHeadModel")  # ends of the names of classes that may predict the next token
_LOGITS = ("logits", "prediction_logits")  # as outputs of transformers call them
_NOISE = 1e-6  # of logits: the same sums, in batches that differ elsewhere


@dataclass(frozen=True)
class Measured:
    """A model on a text.

    Attributes:
        tokens: Of the text.
        bytes: Of the text, as UTF-8.
        bits_per_byte: Of predicting all tokens but the first, over all bytes; None for a model that predicts
            no next token.
    """

    tokens: int
    bytes: int
    bits_per_byte: float | None


@torch.no_grad()
def measure(model: nn.Module | None, tokenizer: Tokenizer, text: str) -> Measured:
    """Tokens, bytes and bits per byte; None for the model gives the first two."""
    ids = tokenizer.encode(text)
    num_bytes = len(text.encode())
    if model is None or not num_bytes or not predicts(model):
        return Measured(len(ids), num_bytes, None)
    if tokenizer.eot_id is not None:
        ids = [tokenizer.eot_id, *ids]
    nats, step = 0.0, _window(model)
    for first in range(0, len(ids) - 1, step):
        window = ids[first : first + step + 1]
        logits_TV = logits(model, window[:-1])[:, : tokenizer.vocab_size]
        targets = torch.tensor(window[1:], device=logits_TV.device)
        nats += F.cross_entropy(logits_TV.float(), targets, reduction="sum").item()
    count = len(ids) - (tokenizer.eot_id is not None)
    return Measured(count, num_bytes, nats / math.log(2) / num_bytes)


def contexts(edit: Edit, text: str) -> tuple[list[int], list[int]]:
    """The same tokens by their ids before and after the edit, all of which stayed."""
    before = edit.old.encode(text)[:_COMPARED]
    after = [edit.new_id(token_id) for token_id in before]
    if None not in after:
        return before, after
    after = edit.new.encode(text)[:_COMPARED]
    return edit.source[torch.tensor(after, dtype=torch.int64)].tolist(), after


@torch.no_grad()
def logits(model: nn.Module, ids: Sequence[int]) -> Tensor:
    """Logits at every place, (T, V), in evaluation mode; the model's mode stays what it was."""
    training = model.training
    model.eval()
    try:
        ids_BT = torch.tensor([list(ids)], device=next(model.parameters()).device)
        if isinstance(model, LanguageModel):
            return model(ids_BT)[0]
        both = {"decoder_input_ids": ids_BT} if getattr(model.config, "is_encoder_decoder", False) else {}
        output = model(input_ids=ids_BT, **both)
        return next(output[name] for name in _LOGITS if output.get(name) is not None)[0]
    finally:
        model.train(training)


def compared(model: nn.Module, ids: Sequence[int], kept: Tensor) -> Tensor:
    """Logits of the tokens that stay, window by window, float32 on the CPU, (P, tokens that stay)."""
    step = _window(model)
    windows = [ids[first : first + step] for first in range(0, len(ids), step)]
    return torch.cat([logits(model, w).index_select(1, kept.to(_device(model))).float().cpu() for w in windows])


def divergence(before_PV: Tensor, after_PV: Tensor) -> float:
    """Mean KL divergence, in nats, of what came after from what was before, among the tokens that stayed.

    Example:
        >>> divergence(torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0, 6.0]]))
        0.0
    """
    before, after = before_PV.double().log_softmax(-1), after_PV.double().log_softmax(-1)
    mean = F.kl_div(after, before, reduction="batchmean", log_target=True).item()
    return max(0.0, round(mean, 12))


def why_not(model: nn.Module) -> str | None:
    """Why nothing can be measured on a model; None where something can."""
    if isinstance(model, LanguageModel):
        return None
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is None:
        return "it gives no logits"
    try:
        shape = tuple(logits(model, [0, 0]).shape)
    except Exception as error:  # another library's code, with inputs it may not be made for: sound, pictures
        return f"not on token ids alone ({type(error).__name__}: {' '.join(str(error).split())[:80]})"
    return None if shape == (2, len(head.weight)) else f"its logits have shape {shape}"


@torch.no_grad()
def predicts(model: nn.Module) -> bool:
    """Whether the model gives the next token's logits, which must not depend on it."""
    if isinstance(model, LanguageModel):
        return model.config.causal
    if not type(model).__name__.endswith(_NEXT_TOKEN):
        return False
    one, other = logits(model, [0, 0])[0].float(), logits(model, [0, 1])[0].float()
    return (one - other).abs().max().item() <= _NOISE * one.abs().max().item()


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _window(model: nn.Module) -> int:
    config = model.config
    names = ("context_length", "n_positions", "max_position_embeddings")
    lengths = [n for n in (getattr(config, name, None) for name in names) if isinstance(n, int) and n > 0]
    return min([_WINDOW, *lengths]) - (0 if isinstance(model, LanguageModel) else _first_position(config))


def _first_position(config: object) -> int:
    """RoBERTa's positions begin behind its padding."""
    kind = getattr(config, "model_type", "")
    return config.pad_token_id + 1 if kind in ("roberta", "xlm-roberta", "camembert") else 0
