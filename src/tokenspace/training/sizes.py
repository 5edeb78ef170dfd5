"""Sizes of model and training that suit a text, where the caller gives none.

The rule is about money: `minutes` on two ordinary cores buy some number of floating-point
operations; the text decides how large a model they are spent on, and for how many
passes. It asks neither the clock nor the machine, so the same text gives the same run.
"""

from typing import Any

from tokenspace.errors import SettingError, check_at_least
from tokenspace.training.config import Budget
from tokenspace.windows import num_windows

_FLOPS_PER_MINUTE = 5e12  # two cores of 2024, measured through this package's own training loop
_MOST_EPOCHS = 30
_SIZES = ("d_model", "num_layers", "num_heads", "context_length", "batch_size", "stride", "steps")
# up to so many tokens of text: d_model, num_layers, num_heads, context_length, batch_size, dropout, learning_rate
_TIERS = (
    (30_000, (64, 2, 4, 64, 8, 0.2, 1e-3)),
    (300_000, (128, 2, 4, 128, 8, 0.1, 2e-3)),
    (3_000_000, (128, 2, 4, 128, 8, 0.0, 3e-3)),
    (30_000_000, (256, 4, 8, 256, 16, 0.0, 2e-3)),
    (None, (384, 6, 6, 512, 16, 0.0, 1e-3)),
)


def choose_sizes(
    num_tokens: int, num_validation_tokens: int, vocab_size: int, given: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Complete the settings `given` for a text of so many tokens.

    Args:
        num_tokens: Of the training part.
        num_validation_tokens: Of the validation part.
        vocab_size: Rows of the token table.
        given: Settings by owner, as `split_settings` returns them; they are kept as they are.

    Returns:
        All settings without a default, by owner.

    Raises:
        SettingError: a given size is below 1, the table is too small for the tokenizer, or the text is too
            short for one window.

    Example:
        >>> choose_sizes(5000, 500, 50257, {"model": {}, "training": {}, "budget": {}})["model"]["context_length"]
        64
    """
    given_sizes = {**given["model"], **given["training"]}
    check_at_least(1, **{name: given_sizes[name] for name in _SIZES if name in given_sizes})
    tier = next(sizes for most, sizes in _TIERS if most is None or num_tokens <= most)
    names = ("d_model", "num_layers", "num_heads", "context_length", "batch_size", "dropout", "learning_rate")
    suited = dict(zip(names, tier, strict=True))
    shortest = min(num_tokens, num_validation_tokens)
    suited["context_length"] = max(1, min(suited["context_length"], shortest - 1))
    batch_size, learning_rate = suited.pop("batch_size"), suited.pop("learning_rate")
    d_model = given["model"].get("d_model", suited["d_model"])
    suited["num_heads"] = next(heads for heads in range(suited["num_heads"], 0, -1) if d_model % heads == 0)
    hiding = not given["model"].get("causal", True)  # takes a row of its own: see `training.objective`
    model = {"vocab_size": vocab_size + hiding, **suited, **given["model"]}
    if model["vocab_size"] < vocab_size + hiding:
        rule = f"be at least the tokenizer's {vocab_size}" + " and 1, where causal is false" * hiding
        raise SettingError("vocab_size", rule, model["vocab_size"], "Leave it out, or use another tokenizer")
    context_length = model["context_length"]
    if shortest <= context_length:
        next_step = f"Give more text, or context_length below {shortest}"
        raise SettingError("text", f"have more than {context_length} tokens in each part", shortest, next_step)
    training: dict[str, Any] = {"stride": context_length, "learning_rate": learning_rate, **given["training"]}
    training.setdefault("optimizer", "adamw" if model.get("tie_head", True) else "rowwise")
    windows = num_windows(num_tokens, context_length, training["stride"])
    training["batch_size"] = given["training"].get("batch_size", min(batch_size, windows))
    if "steps" not in training:
        tokens_a_step = training["batch_size"] * context_length
        affordable = Budget(**given["budget"]).minutes * _FLOPS_PER_MINUTE / _flops_per_token(model)
        wanted = min(affordable, _MOST_EPOCHS * num_tokens)
        training["steps"] = max(20, round(wanted / tokens_a_step))
    return {"model": model, "training": _schedule(training)}


def _flops_per_token(model: dict[str, Any]) -> float:
    """Forward and backward: 6 a parameter that is multiplied with, and the attention (Kaplan et al. 2020)."""
    d, layers = model["d_model"], model["num_layers"]
    return 6 * (12 * layers * d**2 + d * model["vocab_size"]) + 12 * layers * model["context_length"] * d


def _schedule(training: dict[str, Any]) -> dict[str, Any]:
    """Warm-up and intervals that follow from the steps."""
    steps = training["steps"]
    return {
        "final_learning_rate": training["learning_rate"] / 20,
        "warmup_steps": min(100, max(1, steps // 20)),
        "evaluate_every": max(1, steps // 10),
        "checkpoint_every": max(1, steps // 10),
        **training,
    }
