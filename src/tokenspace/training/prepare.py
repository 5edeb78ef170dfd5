"""From text to a run folder that is ready for its first step.

Vocabulary, token files, sizes, first tables and a checkpoint at step 0 are made in a
folder aside, which becomes the run in one rename: what fails on the way leaves nothing.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tokenspace import __version__
from tokenspace.checkpoint import Checkpoint, Run, create_run, save_checkpoint
from tokenspace.corpus import Corpus, TextSource, build_from_source
from tokenspace.embedding import init_recipe
from tokenspace.files import check_absent, new_folder
from tokenspace.model import LanguageModel, ModelConfig
from tokenspace.tokenizer import Tokenizer
from tokenspace.training.config import TrainingConfig, split_settings
from tokenspace.training.generators import Generators
from tokenspace.training.parts import make_loader, make_optimizer
from tokenspace.training.processes import share_of
from tokenspace.training.records import Plan, Progress, Record
from tokenspace.training.sizes import choose_sizes

Watcher = Callable[[Record], None]


def prepare_run(
    source: TextSource,
    out: Path,
    tokenizer_spec: str,
    settings: dict[str, Any],
    watch: Watcher,
    world_size: int = 1,
) -> Run:
    """Make the run folder `out` from text, to be trained by so many processes first.

    Raises:
        TokenspaceError: the text, a setting or the output path breaks a rule; nothing is left behind.
    """
    given = split_settings(settings)
    check_absent(out)
    share_of(given["training"].get("batch_size", 0), world_size)  # before the work, not after it
    with new_folder(out) as part:
        corpus = build_from_source(
            source, tokenizer_spec, part / "corpus", watch=lambda task, done, total: watch(Progress(task, done, total))
        )
        plan = _fill(part, Path("corpus"), corpus.tokenizer(), given, world_size)
    watch(plan)
    return Run.from_folder(out)


def prepare_run_from_corpus(
    corpus_path: Path, out: Path, settings: dict[str, Any], watch: Watcher, world_size: int = 1
) -> Run:
    """Make the run folder `out` over a corpus that exists; the run refers to it by its absolute path.

    Raises:
        TokenspaceError: the corpus is damaged or without a validation part, or a setting breaks a rule.
    """
    given = split_settings(settings)
    check_absent(out)
    tokenizer = Corpus.open(corpus_path).tokenizer()
    with new_folder(out) as part:
        plan = _fill(part, corpus_path.resolve(), tokenizer, given, world_size)
    watch(plan)
    return Run.from_folder(out)


def _fill(
    part: Path, corpus_path: Path, tokenizer: Tokenizer, given: dict[str, dict[str, Any]], world_size: int
) -> Plan:
    """Everything of a run but its corpus; `corpus_path` is relative to the run, or absolute."""
    train, validation = (Corpus.open(part / corpus_path, split=s, tokenizer=tokenizer) for s in ("train", "validation"))
    train.verify()
    validation.verify()
    sizes = choose_sizes(train.num_tokens, validation.num_tokens, tokenizer.vocab_size, given)
    model_config, training_config = ModelConfig(**sizes["model"]), TrainingConfig(**sizes["training"])
    config = {
        "run": {"made_by": f"tokenspace {__version__}"},
        "tokenizer": {"name": tokenizer.name, "identity": tokenizer.identity, "vocab_size": tokenizer.vocab_size},
        "corpus": {"path": corpus_path.as_posix(), "identity": train.identity},
        "model": asdict(model_config),
        "init": asdict(init_recipe(model_config.init, model_config.d_model)),
        "training": asdict(training_config),
    }
    generators = Generators({}, torch.device("cpu"), training_config.seed)
    with generators.active():
        model = LanguageModel(model_config)
    create_run(part, config, tokenizer, model)
    loader = make_loader(train, model_config, training_config, world_size=world_size)
    start = Checkpoint(step=0, loader=loader.state_dict(), metrics_bytes=0, generators=generators.state)
    save_checkpoint(part / "checkpoints", start, model, make_optimizer(model, training_config))
    named = {name for settings in given.values() for name in settings}
    return Plan(
        config=config,
        num_tokens=train.num_tokens,
        num_validation_tokens=validation.num_tokens,
        num_parameters=model.num_parameters(),
        step=0,
        chosen=tuple(name for name in (*asdict(model_config), *asdict(training_config)) if name not in named),
        tokenizer_engine=tokenizer.engine,
        statistics=train.manifest.statistics,
    )
