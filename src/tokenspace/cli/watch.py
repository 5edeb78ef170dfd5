"""A training as it is seen on a terminal: what was chosen, bars, losses.

Bars are drawn on a terminal only; elsewhere (a log file) the losses of evaluations
appear as lines.
"""

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tokenspace.cli.show import remarks
from tokenspace.training import CheckpointRecord, EvaluationRecord, Plan, Record, StepRecord
from tokenspace.training import Progress as Work

_SMOOTHING = 0.9  # of the loss and the speed in the bar


class TerminalWatcher:
    """Shows the records of a training on stderr; use it as a context manager."""

    def __init__(self) -> None:
        self._console = remarks()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[info]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: int | None = None
        self._description = ""
        self._loss = self._speed = 0.0
        self._validation = ""

    def __enter__(self) -> Self:
        return self  # the bars begin with the first work, so that a mistake shows no empty one

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._task is not None:
            self._bars.remove_task(self._task)  # a mistake is one line, not one beside a bar
        self._bars.stop()

    def __call__(self, record: Record) -> None:
        """Show one record."""
        match record:
            case Work():
                self._bar(record.task, record.total)
                self._bars.update(self._task, completed=record.done, info=f"{record.done / 1e6:.1f} MB")
            case Plan():
                self._plan(record)
            case StepRecord():
                self._step(record)
            case EvaluationRecord():
                self._validation = f"validation {record.loss:.3f}"
                where = "untrained" if record.step == 0 else f"step {record.step}"
                self._console.print(f"{where}: validation loss {record.loss:.4f} nats per token")
            case CheckpointRecord():
                pass

    def _bar(self, description: str, total: int | None) -> None:
        self._bars.start()
        if description != self._description:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task = self._bars.add_task(description, total=total, info="")
            self._description = description

    def _plan(self, plan: Plan) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        model, training = plan.config["model"], plan.config["training"]
        say = self._console.print
        begin = f"going on at step {plan.step:,} of {training['steps']:,}" if plan.step else "text"
        say(f"{begin}: {plan.num_tokens:,} tokens to train on, {plan.num_validation_tokens:,} to validate on")
        if plan.statistics is not None:
            for line in plan.statistics.remarks():
                say(line)
        if plan.tokenizer_engine:
            name = plan.config["tokenizer"]["name"]
            say(f"vocabulary: {name}, {model['vocab_size']:,} tokens; encoded by {plan.tokenizer_engine}")
        say(
            f"model: d_model {model['d_model']}, {model['num_layers']} layers, {model['num_heads']} heads, context "
            f"{model['context_length']}, {model['positions']} positions; {plan.num_parameters:,} parameters"
        )
        tokens = training["steps"] * training["batch_size"] * model["context_length"]
        say(
            f"training: {training['steps']:,} steps of {training['batch_size']} windows "
            f"({tokens / plan.num_tokens:.1f} passes over the text), learning rate {training['learning_rate']}"
        )
        if plan.chosen:
            say("sizes nobody gave were chosen to suit the text; set any of them with --config NAME=VALUE")
        self._bar("training", training["steps"])
        self._bars.update(self._task, completed=plan.step)

    def _step(self, record: StepRecord) -> None:
        speed = record.tokens / record.seconds
        first = not self._speed
        self._loss = record.loss if first else _SMOOTHING * self._loss + (1 - _SMOOTHING) * record.loss
        self._speed = speed if first else _SMOOTHING * self._speed + (1 - _SMOOTHING) * speed
        info = f"loss {self._loss:.3f}  {self._validation}  {self._speed:,.0f} tokens/s"
        self._bars.update(self._task, completed=record.step, info=info)
