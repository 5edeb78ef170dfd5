"""Training: text in, a run folder with trained tables out.

`train` and `resume` are what the command line calls. Neither prints: whoever wants to
watch gives a function that takes records. Started by torchrun, several processes call the same
function and train one model together; the first of them prepares, watches and writes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenspace.checkpoint import Run
from tokenspace.corpus import TextSource, is_corpus, local_folder, readable_twice
from tokenspace.errors import SettingError
from tokenspace.training.interrupt import stop_on_interrupt
from tokenspace.training.loop import Trainer
from tokenspace.training.prepare import Watcher, prepare_run, prepare_run_from_corpus
from tokenspace.training.processes import Alone, processes
from tokenspace.training.records import CheckpointRecord, EvaluationRecord, Plan, Progress, Record, StepRecord

__all__ = [
    "CheckpointRecord",
    "EvaluationRecord",
    "Plan",
    "Progress",
    "Record",
    "StepRecord",
    "Trainer",
    "free_path",
    "resume",
    "train",
]


def train(
    sources: str | Path | Sequence[str | Path] = (),
    *,
    documents: Sequence[str] | None = None,
    out: str | Path | None = None,
    tokenizer: str | Path | None = None,
    device: str = "auto",
    watch: Watcher | None = None,
    encoding: str = "utf-8",
    errors: str = "strict",
    **settings: Any,
) -> Run:
    """Train a small language model, and with it the token and position vectors of a text.

    Ctrl-C or SIGTERM makes a checkpoint and returns; `resume` goes on from there.

    Args:
        sources: Files, folders, URLs, JSONL, Parquet, "-" for standard input; or one corpus folder.
        documents: Text in memory, instead of `sources`.
        out: The run folder, which must not exist; by default the first free name under ``runs``.
        tokenizer: "gpt2" (the default), a tokenizer file, or "train:8000" to learn a vocabulary of
            that size. A corpus brings its own.
        device: "auto", "cpu", "cuda", …
        watch: Called with every record, in the first process; see `tokenspace.training.records`.
        encoding: Of text files.
        errors: "strict", or "replace" to go on after bytes that are no text.
        **settings: Fields of `ModelConfig` and `TrainingConfig` (``steps=300``, ``d_model=64``,
            ``positions="sinusoidal"``); what is not given is chosen to suit the text, and what
            that may cost is set by ``minutes``.

    Returns:
        The run; ``run.step`` is below its ``config["training"]["steps"]`` when it was stopped.

    Raises:
        TokenspaceError: a source, a setting or the output path breaks a rule; nothing is left behind.
        SystemExit: in all but one of several processes, when that one raises.

    Example:
        >>> import tempfile
        >>> text = "The cat sat on the mat. " * 200
        >>> run = train(documents=[text], out=tempfile.mkdtemp() + "/run", tokenizer="train:300", steps=2, d_model=8)
        >>> run.step
        2
    """
    sources = [sources] if isinstance(sources, str | Path) else list(sources)
    if bool(sources) == (documents is not None):
        raise SettingError("sources", "be given, or documents instead", "neither or both", "Give one of the two")
    name = "text" if documents is not None or sources[0] == "-" else Path(sources[0]).stem
    spec = "gpt2" if tokenizer is None else str(tokenizer)
    with processes() as group:
        group.device(device)  # before the work, not after it
        watch = _heard(watch, group)

        def prepare() -> str:
            path = free_path(Path("runs"), name) if out is None else Path(out)
            if documents is not None:
                prepare_run(TextSource.documents(documents), path, spec, settings, watch, group.world_size)
            elif len(sources) == 1 and is_corpus(sources[0]):
                if tokenizer is not None:
                    next_step = "Leave it out; the corpus brings its own"
                    raise SettingError("tokenizer", "not be given with a corpus", str(tokenizer), next_step)
                prepare_run_from_corpus(local_folder(sources[0]), path, settings, watch, group.world_size)
            else:
                with readable_twice(sources, spec) as files:
                    source = TextSource.files(files, encoding, errors)
                    prepare_run(source, path, spec, settings, watch, group.world_size)
            return str(path)

        run = Run.from_folder(group.from_first(prepare))
        return _follow(Trainer(run, device, group), watch)


def resume(run: str | Path | Run, *, device: str = "auto", watch: Watcher | None = None) -> Run:
    """Go on with a training that was stopped or killed; a finished one is returned as it is.

    Args:
        run: The run folder.
        device: "auto", "cpu", "cuda", …
        watch: Called with every record, in the first process.

    Raises:
        CheckpointError: the folder is no run, or damaged.
    """
    with processes() as group:
        run = run if isinstance(run, Run) else Run.from_folder(run)
        watch = _heard(watch, group)
        trainer = Trainer(run, device, group)
        tokens = (corpus.num_tokens for corpus in (trainer.train_corpus, trainer.validation_corpus))
        watch(Plan(run.config, *tokens, trainer.model.num_parameters(), trainer.step))
        return _follow(trainer, watch)


def _heard(watch: Watcher | None, group: Alone) -> Watcher:
    """Who watches: the first process's watcher alone."""
    return watch if watch is not None and group.is_first else lambda record: None


def _follow(trainer: Trainer, watch: Watcher) -> Run:
    with stop_on_interrupt() as stopped:
        for record in trainer.records(stopped):
            watch(record)
    return trainer.run


def free_path(folder: Path, name: str) -> Path:
    """``folder/name``, or the first of ``name-2``, ``name-3``, … that does not exist."""
    number, path = 1, folder / name
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}"
    return path
