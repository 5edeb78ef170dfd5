"""What a training tells whoever watches it. Plain data; nothing here prints."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Progress:
    """Work before the first step.

    Attributes:
        task: What is being done.
        done: How much of it, in bytes of text.
        total: How much there is, or None where that is not known.
    """

    task: str
    done: int
    total: int | None


@dataclass(frozen=True)
class Plan:
    """The run is laid out; training begins.

    Attributes:
        config: All settings, by table, as in ``config.toml``.
        num_tokens: Of the training part.
        num_validation_tokens: Of the validation part.
        num_parameters: Of the model.
        step: Where training begins; above 0 for one that is resumed.
        chosen: Names of the settings that nobody gave.
        tokenizer_engine: Which library encodes.
        statistics: Of the text under this vocabulary: tokens a word and the like.
    """

    config: dict[str, dict[str, Any]]
    num_tokens: int
    num_validation_tokens: int
    num_parameters: int
    step: int
    chosen: tuple[str, ...] = ()
    tokenizer_engine: str = ""
    statistics: Any = None


class Metric:
    """A record that ``metrics.jsonl`` keeps."""

    kind: ClassVar[str]

    def fields(self) -> dict[str, Any]:
        """The record as a line of the file holds it."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class StepRecord(Metric):
    """One optimiser step.

    Attributes:
        step: Steps taken, this one included.
        loss: Of its batch, before the step, in nats per token.
        learning_rate: Of the step.
        gradient_norm: Before clipping.
        tokens: Read in the batch.
        seconds: Wall time of the step.
    """

    kind: ClassVar[str] = "step"
    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    seconds: float


@dataclass(frozen=True)
class EvaluationRecord(Metric):
    """A loss on validation tokens, in nats per token.

    Attributes:
        step: Steps taken.
        loss: Mean over `tokens` targets.
        tokens: How many targets.
        unigram_loss: Of the smoothed unigram model on the same targets; only where all were taken.
    """

    kind: ClassVar[str] = "evaluation"
    step: int
    loss: float
    tokens: int
    unigram_loss: float | None = None


@dataclass(frozen=True)
class CheckpointRecord:
    """A checkpoint is on the disk."""

    step: int


Record = Progress | Plan | StepRecord | EvaluationRecord | CheckpointRecord
