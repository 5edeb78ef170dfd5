"""Speeds of rotary pairs, and the ways to change them for texts longer than trained on.

The kinds and the names of their numbers are those of transformers' ``rope_parameters``, so
that a model's config can be handed over as it is. Nothing here turns a vector.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokenspace.errors import SettingError

_ORIGINAL = "original_max_position_embeddings"
# The numbers each kind must have, and those it may have with what stands for them.
_REQUIRED = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor", _ORIGINAL),
    "yarn": ("factor", _ORIGINAL),
    "longrope": ("short_factor", "long_factor", _ORIGINAL),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", _ORIGINAL),
    "proportional": (),
}
_OPTIONAL: dict[str, dict[str, Any]] = {
    "yarn": {
        "attention_factor": None,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": None,
        "mscale_all_dim": None,
        "truncate": True,
    },
    "longrope": {"factor": None, "attention_factor": None},
    "proportional": {"factor": 1.0, "partial_rotary_factor": 1.0},
}


@dataclass(frozen=True)
class Scaling:
    """One kind of scaling with its numbers.

    Attributes:
        kind: "default" for none.
        numbers: What the kind needs, complete.
        rotary_dim: Components that turn.
    """

    kind: str
    numbers: Mapping[str, Any]
    rotary_dim: int

    @classmethod
    def of(cls, table: Mapping[str, Any], rotary_dim: int) -> "Scaling":
        """Check a table of transformers' ``rope_scaling``.

        Raises:
            SettingError: the kind is unknown, or a number is missing, unknown or out of range.

        Example:
            >>> Scaling.of({"rope_type": "linear", "factor": 4.0}, rotary_dim=8).speeds(10000.0)[0]
            tensor(0.2500)
        """
        given = dict(table)
        kind = given.pop("rope_type", None)
        if kind not in _REQUIRED:
            raise SettingError("rope_type", f"be one of {', '.join(_REQUIRED)}", kind, "Correct it")
        required, optional = _REQUIRED[kind], _OPTIONAL.get(kind, {})
        if _ORIGINAL not in required:
            given.pop(_ORIGINAL, None)  # configs carry it along
        for name in required:
            if name not in given:
                raise SettingError(f"scaling {kind!r}", f"have {', '.join(required)}", sorted(given), f"Add {name}")
        unknown = sorted(set(given) - set(required) - set(optional))
        if unknown:
            known = ", ".join([*required, *optional])
            rule = f"have no numbers but {known}" if known else "have no numbers"
            raise SettingError(f"scaling {kind!r}", rule, unknown[0], "Remove it")
        scaling = cls(kind, {**optional, **given}, rotary_dim)
        scaling._check()
        return scaling

    @property
    def length_dependent(self) -> bool:
        """Whether the speeds depend on the length of the text."""
        return self.kind in ("dynamic", "longrope")

    @property
    def attention_factor(self) -> float:
        """Factor on all cosines and sines."""
        numbers = self.numbers
        if numbers.get("attention_factor") is not None:
            return numbers["attention_factor"]
        if self.kind == "yarn":
            factor, one, all_dim = numbers["factor"], numbers["mscale"], numbers["mscale_all_dim"]
            if one and all_dim:
                return _yarn_magnitude(factor, one) / _yarn_magnitude(factor, all_dim)
            return _yarn_magnitude(factor, 1.0)
        if self.kind == "longrope" and numbers["factor"] > 1:
            return math.sqrt(1 + math.log(numbers["factor"]) / math.log(numbers[_ORIGINAL]))
        return 1.0

    def speeds(
        self, theta: float, lengths: int | Tensor | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Radians a token of each pair.

        Args:
            theta: Of the unscaled speeds.
            lengths: Of the texts, where `length_dependent`: one number, or int64 of any shape.
            device: Where the result lives, unless `lengths` is a tensor.

        Returns:
            float32, (pairs,); with a tensor of lengths, its shape + (pairs,).
        """
        numbers, size = self.numbers, self.rotary_dim
        share = torch.arange(0, size, 2, device=device, dtype=torch.float32) / size
        if self.kind == "proportional":
            turning = int(numbers["partial_rotary_factor"] * size // 2)
            speeds = 1.0 / theta**share
            return torch.where(torch.arange(size // 2, device=device) < turning, speeds, 0.0) / numbers["factor"]
        if self.kind == "dynamic":
            lengths = torch.as_tensor(lengths, device=device).clamp(min=numbers[_ORIGINAL]).unsqueeze(-1)
            factor = numbers["factor"]
            stretched = factor * lengths.float() / numbers[_ORIGINAL] - (factor - 1)
            return 1.0 / (theta * stretched ** (size / (size - 2))) ** share
        if self.kind == "longrope":
            short, long = (torch.tensor(numbers[f"{name}_factor"], device=device) for name in ("short", "long"))
            is_long = torch.as_tensor(lengths, device=device).unsqueeze(-1) > numbers[_ORIGINAL]
            return 1.0 / (torch.where(is_long, long, short) * theta**share)
        speeds = 1.0 / theta**share
        if self.kind == "linear":
            return speeds / numbers["factor"]
        if self.kind == "yarn":
            return self._yarn(speeds, theta)
        return self._llama3(speeds) if self.kind == "llama3" else speeds

    def _yarn(self, speeds: Tensor, theta: float) -> Tensor:
        """Fast pairs stay, slow ones are divided, between them a ramp (Peng et al. 2023, arXiv:2309.00071)."""
        numbers, size = self.numbers, self.rotary_dim

        def pair_that_turns(times: float) -> float:
            return size * math.log(numbers[_ORIGINAL] / (times * 2 * math.pi)) / (2 * math.log(theta))

        low, high = pair_that_turns(numbers["beta_fast"] or 32), pair_that_turns(numbers["beta_slow"] or 1)
        if numbers["truncate"]:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, size - 1)
        high += 0.001 if low == high else 0
        pairs = torch.arange(size // 2, device=speeds.device, dtype=torch.float32)
        divided = ((pairs - low) / (high - low)).clamp(0, 1)
        return speeds / numbers["factor"] * divided + speeds * (1 - divided)

    def _llama3(self, speeds: Tensor) -> Tensor:
        """Pairs that turn often within the original length stay, those that hardly turn are divided."""
        numbers = self.numbers
        low, high = numbers["low_freq_factor"], numbers["high_freq_factor"]
        turns = numbers[_ORIGINAL] * speeds / (2 * math.pi)
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return (1 - kept) * speeds / numbers["factor"] + kept * speeds

    def _check(self) -> None:
        given = {
            name: value for name, value in self.numbers.items() if value is not None or name in _REQUIRED[self.kind]
        }
        for name in sorted(given.keys() - {"short_factor", "long_factor", "truncate"}):
            if not isinstance(given[name], int | float) or not given[name] > 0:
                raise SettingError(name, "be a number above 0", given[name], "Take it from the model's config")
        if self.kind == "longrope":
            for name in ("short_factor", "long_factor"):
                if len(self.numbers[name]) != self.rotary_dim // 2:
                    rule = f"hold {self.rotary_dim // 2} numbers, one for each pair"
                    raise SettingError(name, rule, len(self.numbers[name]), "Take it from the model's config")
            if self.numbers["factor"] is None and self.numbers["attention_factor"] is None:
                next_step = "Add factor: the new length over the original one"
                raise SettingError("scaling 'longrope'", "have factor or attention_factor", "neither", next_step)
        if self.kind == "dynamic" and self.rotary_dim < 4:
            raise SettingError("rotary_dim", "be at least 4 for dynamic scaling", self.rotary_dim, "Raise it")
        if self.kind == "llama3" and not self.numbers["low_freq_factor"] < self.numbers["high_freq_factor"]:
            rule = "be below high_freq_factor"
            raise SettingError("low_freq_factor", rule, self.numbers["low_freq_factor"], "Use 1.0 and 4.0")


def _yarn_magnitude(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0
