"""The settings of a training, and how a caller's words become them.

Each setting has one owner: those that fix the parameters belong to `ModelConfig`, those
that fix the trajectory to `TrainingConfig`, and what it may cost to `Budget`. A caller may name any of them flat, or in
tables ``[model]`` and ``[training]``; a name that neither knows is refused.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from tokenspace.errors import SettingError, check_at_least, check_type
from tokenspace.model import ModelConfig

_LARGEST_SEED = 2**63 - 1  # what torch and TOML both hold


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """All that fixes a training's trajectory, given the model and the corpus.

    Attributes:
        steps: Optimiser steps.
        batch_size: Windows a step, of all processes together.
        stride: Tokens between the starts of two windows.
        learning_rate: At the end of the warm-up.
        final_learning_rate: At the last step of the cosine.
        warmup_steps: Steps of linear rise.
        weight_decay: On matrices that are no tables.
        beta1: AdamW's decay of the first moment.
        beta2: AdamW's decay of the second moment.
        optimizer: "adamw", or "rowwise" for the same steps at the cost of a batch's own tokens, which takes an
            untied head to pay; see `tokenspace.optim`.
        gradient_clip: Largest norm of the whole gradient.
        seed: Of the first draw, the dropout and the order of the windows.
        evaluate_every: Steps between two evaluations on part of the validation tokens.
        evaluation_tokens: Size of that part; the last evaluation takes all.
        checkpoint_every: Steps between two checkpoints.
        frames: How often on the way the tables are kept for `tokenspace atlas`; 0 for only before the first step.
        logits_mib: Logits of a batch that would take more memory than this are made in chunks.
        dtype: "float32", or "bfloat16" for autocast.
        compile: Whether `torch.compile` is used.

    Raises:
        SettingError: a value is out of range.
    """

    steps: int
    batch_size: int
    stride: int
    learning_rate: float
    final_learning_rate: float
    warmup_steps: int
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    optimizer: Literal["adamw", "rowwise"] = "adamw"
    gradient_clip: float = 1.0
    seed: int = 1234
    evaluate_every: int
    evaluation_tokens: int = 16384
    checkpoint_every: int
    frames: int = 24
    logits_mib: int = 1024
    dtype: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        counts = "steps batch_size stride evaluate_every evaluation_tokens checkpoint_every logits_mib"
        check_at_least(1, **{name: getattr(self, name) for name in counts.split()})
        check_at_least(0, warmup_steps=self.warmup_steps, seed=self.seed, frames=self.frames)
        for name in ("learning_rate", "gradient_clip"):
            if not getattr(self, name) > 0:
                raise SettingError(name, "be above 0", getattr(self, name), "Use 0.001, or 1.0 for gradient_clip")
        for name in ("final_learning_rate", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise SettingError(name, "be at least 0", getattr(self, name), "Use 0.0 for none")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingError(name, "lie in [0, 1)", getattr(self, name), "Use 0.9, or 0.95 for beta2")
        if self.seed > _LARGEST_SEED:
            raise SettingError("seed", f"be at most {_LARGEST_SEED}", self.seed, "Use a smaller one")
        if self.optimizer not in ("adamw", "rowwise"):
            next_step = "Use 'rowwise' where tie_head is false"
            raise SettingError("optimizer", "be 'adamw' or 'rowwise'", self.optimizer, next_step)
        if self.dtype not in ("float32", "bfloat16"):
            raise SettingError("dtype", "be 'float32' or 'bfloat16'", self.dtype, "Use float32 where in doubt")

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to `final_learning_rate` (Loshchilov & Hutter 2017).

        Args:
            step: Of the update, from 0.
        """
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = min(1.0, (step - self.warmup_steps) / max(1, self.steps - 1 - self.warmup_steps))
        return (
            self.final_learning_rate
            + (self.learning_rate - self.final_learning_rate) * (1 + math.cos(math.pi * done)) / 2
        )


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a training may cost whose `steps` nobody gave.

    Attributes:
        minutes: On two ordinary cores.

    Raises:
        SettingError: `minutes` is not above 0.
    """

    minutes: float = 3.0

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise SettingError("minutes", "be above 0", self.minutes, "Use 3.0, or give steps instead")


OWNERS = {"model": ModelConfig, "training": TrainingConfig, "budget": Budget}


def split_settings(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Sort a caller's settings by owner.

    Args:
        settings: Names and values; tables named as an owner are looked into.

    Raises:
        SettingError: a name that no owner knows, with the nearest that one does; or a value of the
            wrong type.

    Example:
        >>> split_settings({"steps": 10, "model": {"d_model": 64}})
        {'model': {'d_model': 64}, 'training': {'steps': 10}, 'budget': {}}
    """
    for owner in OWNERS:
        if not isinstance(settings.get(owner, {}), Mapping):
            next_step = f"Write {owner}.NAME = VALUE, or leave {owner} out"
            raise SettingError(owner, "be a table of settings", settings[owner], next_step)
    known = {field.name: (owner, field.type) for owner, config in OWNERS.items() for field in fields(config)}
    sorted_out: dict[str, dict[str, Any]] = {owner: {} for owner in OWNERS}
    flat = [(name, value) for name, value in settings.items() if name not in OWNERS]
    flat += [pair for owner in OWNERS for pair in settings.get(owner, {}).items()]
    for name, value in flat:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise SettingError("setting", f"be one of {', '.join(sorted(known))}", name, f"Did you mean {nearest!r}?")
        owner, kind = known[name]
        check_type(name, value, kind, "Correct it, or leave it out for what suits the text")
        sorted_out[owner][name] = value
    return sorted_out
