"""What a study is: the settings that all its runs share, fixed before the first of them.

A study folder holds

    study.json             this plan, with a checksum
    corpus/                the token ids, where the study made them itself
    runs/<scheme>-<seed>/  ordinary run folders
    figures/<scheme>-<seed>.json   what was measured of each finished run

Schemes and seeds are no part of the plan: runs may be added to it later.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch

from tokenspace.errors import CheckpointError, SettingError, check_at_least
from tokenspace.files import read_sealed_json, sealed_json, write_file
from tokenspace.model import LanguageModel, ModelConfig
from tokenspace.training.config import TrainingConfig

OBJECTIVES = ("causal", "masked")
_FILE = "study.json"
_FEWEST_SCORED = 128  # some of them are hidden, wherever they lie


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What the study itself decides, beyond the settings of models and trainings.

    Attributes:
        extend: Loss is measured up to so many times the trained length.
        objective: "causal" for the next token, "masked" for hidden tokens seen from both sides.
        scored_tokens: About so many are scored at each length, at least 128; of hidden ones 15 per cent.
        probe_steps: Training steps of each order probe model; 0 leaves the trained probes out.

    Raises:
        SettingError: a value is out of range.
    """

    extend: int = 4
    objective: Literal["causal", "masked"] = "causal"
    scored_tokens: int = 8192
    probe_steps: int = 600

    def __post_init__(self) -> None:
        check_at_least(1, extend=self.extend)
        check_at_least(_FEWEST_SCORED, scored_tokens=self.scored_tokens)
        check_at_least(0, probe_steps=self.probe_steps)
        if self.objective not in OBJECTIVES:
            raise SettingError("objective", "be 'causal' or 'masked'", self.objective, "Use 'causal' where in doubt")


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """All that fixes the runs of a study, but for scheme and seed.

    Attributes:
        asked: What the caller gave, by which a later call is known to mean the same study.
        settings: Of the study.
        corpus: The corpus folder, relative to the study's or absolute.
        corpus_identity: Of the corpus.
        model: Fields of `ModelConfig` without positions; ``position_settings`` by scheme.
        training: Fields of `TrainingConfig` without the seed.
    """

    asked: dict[str, Any]
    settings: StudySettings
    corpus: str
    corpus_identity: str
    model: dict[str, Any]
    training: dict[str, Any]

    @property
    def context_length(self) -> int:
        """Tokens of a training window."""
        return self.model["context_length"]

    @property
    def multiples(self) -> list[int]:
        """1 to `extend`."""
        return list(range(1, self.settings.extend + 1))

    @property
    def digest(self) -> str:
        """Of all that decides a run, but for scheme and seed; how it was asked for and where the corpus lies do not."""
        fields = asdict(self)
        del fields["asked"], fields["corpus"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    @property
    def has_own_models(self) -> bool:
        """Whether the models are the caller's."""
        return "build" in self.asked

    def parameters_without_positions(self) -> int:
        """Of the model with positions "none"."""
        with torch.device("meta"):
            return LanguageModel(self.model_config("none")).num_parameters()

    def model_config(self, scheme: str) -> ModelConfig:
        """The model with this scheme."""
        position_settings = self.model.get("position_settings", {}).get(scheme, {})
        return ModelConfig(**{**self.model, "positions": scheme, "position_settings": position_settings})

    def training_config(self, seed: int) -> TrainingConfig:
        """The training with this seed."""
        return TrainingConfig(**self.training, seed=seed)

    def save(self, folder: Path) -> None:
        """Write the plan; from now on the folder is a study."""
        write_file(folder / _FILE, sealed_json({"version": 1, **asdict(self)}))

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The plan of a study.

        Raises:
            CheckpointError: the folder is no study, or its plan was altered.
        """
        if not (folder / _FILE).is_file():
            rule = f"be a folder with a {_FILE}"
            raise CheckpointError("study", rule, str(folder), "Give the folder that `tokenspace compare` named")
        fields = read_sealed_json(folder / _FILE)
        if fields.pop("version") != 1:
            next_step = "Use the version of tokenspace that made it"
            raise CheckpointError(str(folder / _FILE), "be of version 1", "of another one", next_step)
        return cls(**{**fields, "settings": StudySettings(**fields["settings"])})

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether the folder is a study."""
        return (folder / _FILE).is_file()


def runs_of(schemes: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """Scheme and seed of every run, seed by seed: a study that is cut short has some of each scheme.

    Example:
        >>> runs_of(["none", "rotary"], [1, 2])
        [('none', 1), ('rotary', 1), ('none', 2), ('rotary', 2)]
    """
    return [(scheme, seed) for seed in seeds for scheme in schemes]


def run_name(scheme: str, seed: int) -> str:
    """How a run's folder and its figures are called.

    Example:
        >>> run_name("rotary", 1)
        'rotary-1'
    """
    return f"{scheme}-{seed}"
