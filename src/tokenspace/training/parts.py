"""What a training is put together from, besides its model: settings, optimiser, loader, corpus."""

from pathlib import Path

import torch

from tokenspace.checkpoint import Run
from tokenspace.corpus import Corpus
from tokenspace.errors import CheckpointError, CorpusError, SettingError
from tokenspace.loader import WindowLoader
from tokenspace.model import LanguageModel, ModelConfig
from tokenspace.optim import RowwiseAdamW
from tokenspace.training.config import TrainingConfig
from tokenspace.training.processes import share_of


def training_config(run: Run) -> TrainingConfig:
    """The settings of the run's training.

    Raises:
        CheckpointError: the config lacks a setting, or names one that no training has.
    """
    try:
        return TrainingConfig(**run.config["training"])
    except TypeError as error:
        raise CheckpointError("[training] of config.toml", "hold its settings", error, "Restore it") from error


def make_optimizer(model: LanguageModel, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW that decays matrices, but neither vectors nor tables.

    A table's rows are left alone by decay: with it, the rows that training never sees would
    shrink all the same, and their norms would tell of the decay instead of the text.

    Raises:
        SettingError: the betas do not suit a row-wise optimiser.
    """
    tables = {id(parameter) for parameter in model.embedding.parameters()}
    decayed, kept = [], []
    for parameter in model.named_parameters():
        (decayed if parameter[1].dim() >= 2 and id(parameter[1]) not in tables else kept).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    betas = config.beta1, config.beta2
    if config.optimizer == "rowwise":
        return RowwiseAdamW(groups, lr=config.learning_rate, betas=betas)
    # fused: on the CPU the default is several times slower
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)


def make_loader(
    corpus: Corpus, model: ModelConfig, config: TrainingConfig, rank: int = 0, world_size: int = 1
) -> WindowLoader:
    """Windows for training: shuffled, or in contiguous streams for a model with memory.

    All processes together get the batches that one alone would get.

    Raises:
        SettingError: there are fewer windows than a batch, `batch_size` is not divisible by `world_size`, or
            memory is wanted with another stride than a window.
    """
    if model.memory_length and config.stride != model.context_length:
        rule = f"equal context_length = {model.context_length} where memory_length is set"
        raise SettingError("stride", rule, config.stride, "Leave stride out, or memory_length")
    loader = WindowLoader(
        corpus,
        share_of(config.batch_size, world_size),
        model.context_length,
        config.stride,
        shuffle=not model.memory_length,
        seed=config.seed,
        rank=rank,
        world_size=world_size,
        contiguous=bool(model.memory_length),
    )
    if not len(loader):
        rule = f"be at most the {loader.num_windows} windows of the text"
        raise SettingError("batch_size", rule, config.batch_size, "Lower it")
    return loader


def open_corpus(run: Run, split: str) -> Corpus:
    """A part of the run's corpus, checked to be the one the run began with.

    Raises:
        CorpusError: it is missing, damaged or another one.
    """
    path = run.path / Path(run.config["corpus"]["path"])
    corpus = Corpus.open(path, split=split, tokenizer=run.tokenizer)
    if corpus.identity != run.config["corpus"]["identity"]:
        next_step = "Restore it, or train anew"
        raise CorpusError(str(path), "be the corpus that the run began with", "another one", next_step)
    return corpus
