"""The training loop: one `Trainer` a process, records out, nothing printed.

It begins at the latest checkpoint of a run, which a new run has too (step 0), so that
going on after a kill is the same path as starting. The order of things in a step fixes
the numbers; what is only looked at (evaluation, records) draws on nothing.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from tokenspace.checkpoint import Checkpoint, Run, load_checkpoint, save_checkpoint
from tokenspace.corpus import Corpus
from tokenspace.embedding import check_token_ids
from tokenspace.errors import CheckpointError, CorpusError, SettingError
from tokenspace.files import room_on_disk
from tokenspace.ledger import Ledger
from tokenspace.loader import WindowLoader
from tokenspace.model import LanguageModel, ModelConfig, SegmentMemory
from tokenspace.optim import RowwiseAdamW, clip_grad_norm_
from tokenspace.training.baseline import unigram_loss
from tokenspace.training.config import TrainingConfig
from tokenspace.training.evaluation import evaluation_batches
from tokenspace.training.frames import FrameKeeper
from tokenspace.training.generators import Generators
from tokenspace.training.loss import next_token_loss
from tokenspace.training.records import CheckpointRecord, EvaluationRecord, Metric, StepRecord


class Trainer:
    """Trains the model of a run, from its latest checkpoint to its last step.

    Args:
        run: The run folder.
        device: "auto" for a GPU where there is one, or torch's name of a device.

    Raises:
        SettingError: the device is not there, or the corpus is too short for one batch.
        CheckpointError: the checkpoint is missing or damaged.
        CorpusError: the corpus is missing, damaged or another one than the run's.
    """

    def __init__(self, run: Run, device: str = "auto") -> None:
        self.run = run
        self.device = choose_device(device)
        self.config = training_config(run)
        self.train_corpus = open_corpus(run, "train")
        self.validation_corpus = open_corpus(run, "validation")
        with torch.random.fork_rng([]):
            self.model = LanguageModel(run.model_config).to(self.device)
        # a tied head has a gradient for every row
        self.model.embedding.token.sparse = self.config.optimizer == "rowwise" and not run.model_config.tie_head
        self.optimizer = make_optimizer(self.model, self.config)
        self.loader = make_loader(self.train_corpus, run.model_config, self.config)
        checkpoint = load_checkpoint(run.checkpoints, self.model, self.optimizer)
        self.step = checkpoint.step
        self.loader.load_state_dict(checkpoint.loader)
        self.generators = Generators(checkpoint.generators, self.device, self.config.seed)
        self.ledger = self._ledger_of(checkpoint)
        self.memory = self.model.new_memory()
        if self.memory is not None:
            self.memory.load_state_dict({n: kept.to(self.device) for n, kept in checkpoint.memory.items()})
        self._memory_epoch = self.loader.epoch
        self._metrics_bytes = checkpoint.metrics_bytes
        self._features = torch.compile(self.model.features) if self.config.compile else self.model.features

    def records(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Metric | CheckpointRecord]:
        """Train, yielding a record for every step, evaluation and checkpoint.

        Args:
            stop: Asked after every step; when it says yes, a checkpoint is made and the loop ends.

        Raises:
            SettingError: the loss is no longer finite.
            DiskError: the disk is full; the last checkpoint stands.
        """
        # the outer block: a full disk can show at any write, and once more when the file is closed
        with room_on_disk(self.run.metrics_path, 0), self._open_metrics() as metrics:

            def keep(record: Metric) -> Metric:
                metrics.write(json.dumps(record.fields()).encode() + b"\n")
                return record

            batches = self._batches()
            frames = FrameKeeper(self.run.path, self.model.embedding, self.config.frames, self.config.steps, self.step)
            try:
                if self.step == 0:
                    yield keep(self._evaluate(whole=False))
                stopped = stop()
                while self.step < self.config.steps and not stopped:
                    yield keep(self._train_step(batches))
                    frames.keep(self.step)
                    if self.step == self.config.steps:
                        yield keep(self._evaluate(whole=True))
                    elif self.step % self.config.evaluate_every == 0:
                        yield keep(self._evaluate(whole=False))
                    stopped = stop()  # once a step: what ends the loop has made the checkpoint too
                    if self.step % self.config.checkpoint_every == 0 or self.step == self.config.steps or stopped:
                        self._save(metrics)
                        yield CheckpointRecord(self.step)
                frames.finish(self.step)
            finally:
                batches.close()

    def _train_step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> StepRecord:
        started = time.perf_counter()
        inputs, targets = next(batches)
        if self.memory is not None and self.loader.epoch != self._memory_epoch:
            self.memory.clear()  # the streams begin anew
            self._memory_epoch = self.loader.epoch
        learning_rate = self.config.learning_rate_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        with self.generators.active():
            loss = self._loss(inputs, targets, self.memory)
            loss.backward()
        norm = clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
            name, found = f"loss at step {self.step + 1}", f"{loss.item()} with a gradient norm of {norm.item()}"
            raise SettingError(name, "be finite", found, "Lower learning_rate; the last checkpoint is untouched")
        self.optimizer.step()
        if self.ledger is not None:
            self.ledger.step(targets)
        self.step += 1
        seconds = time.perf_counter() - started
        return StepRecord(self.step, loss.item(), learning_rate, norm.item(), targets.numel(), seconds)

    def _loss(self, inputs: Tensor, targets: Tensor, memory: SegmentMemory | None) -> Tensor:
        """Mean loss of a batch that lies on the CPU, where its ids are checked before any compiled region."""
        check_token_ids(inputs, self.model.config.vocab_size)
        check_token_ids(targets, self.model.config.vocab_size)
        inputs, targets = inputs.to(self.device), targets.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16"):
            features = self._features(inputs, memory=memory)
            return next_token_loss(features, self.model.head, targets, self.config.logits_mib << 20)

    @torch.no_grad()
    def _evaluate(self, whole: bool) -> EvaluationRecord:
        """Loss on windows that cover the validation part, all of it or some; see `evaluation_batches`."""
        length, memory = self.model.config.context_length, self.model.new_memory()
        most = None if whole else self.config.evaluation_tokens
        corpus, batch_size = self.validation_corpus, self.config.batch_size
        total, counted = 0.0, []
        self.model.eval()
        for batches in evaluation_batches(corpus.num_tokens, length, batch_size, most, memory is not None):
            if memory is not None:
                memory.clear()
            for starts in batches:
                ids = corpus.gather(starts, length + 1)
                windows = torch.from_numpy(ids.astype(np.int64))
                total += self._loss(windows[:, :-1], windows[:, 1:], memory).item() * windows[:, 1:].numel()
                counted.append(ids[:, 1:])
        self.model.train()
        targets = np.concatenate(counted, axis=None)
        unigram = unigram_loss(self.train_corpus, targets) if whole else None
        return EvaluationRecord(self.step, total / len(targets), len(targets), unigram)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader

    def _open_metrics(self) -> BinaryIO:
        """The metrics, cut back to where the checkpoint stood."""
        path, end = self.run.metrics_path, self._metrics_bytes
        try:
            size = path.stat().st_size
            file = path.open("rb+")
        except OSError as error:
            rule = "be a file that can be written"
            raise CheckpointError(str(path), rule, error.strerror or str(error), "Restore the file") from error
        file.seek(max(0, end - 1))
        if size < end or (end and file.read(1) != b"\n"):
            file.close()
            rule = f"hold the {end} bytes of records that the checkpoint counted"
            raise CheckpointError(str(path), rule, "shorter" if size < end else "altered", "Restore the file")
        file.truncate(end)
        return file

    def _ledger_of(self, checkpoint: Checkpoint) -> Ledger | None:
        """The run's ledger, gone on with; None for a run that began without one, which would call the seen unseen."""
        table = self.model.embedding.token
        if self.step == 0:
            return Ledger(table)
        if not checkpoint.ledger:
            return None
        ledger = Ledger(table, start=self.run.frame(0)["token.weight"])
        ledger.load_state_dict(checkpoint.ledger)
        return ledger

    def _save(self, metrics: BinaryIO) -> None:
        metrics.flush()
        os.fsync(metrics.fileno())  # the checkpoint counts on these bytes
        checkpoint = Checkpoint(
            step=self.step,
            loader=self.loader.state_dict(),
            metrics_bytes=metrics.tell(),
            generators=self.generators.state,
            memory={} if self.memory is None else self.memory.state_dict(),
            ledger={} if self.ledger is None else self.ledger.state_dict(),
        )
        if self.ledger is not None:  # first: a run that is killed in between goes on and writes it again
            self.ledger.record().save(self.run.ledger_path)
        save_checkpoint(self.run.checkpoints, checkpoint, self.model, self.optimizer)


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA, Apple's MPS or the CPU, the first that is there.

    Raises:
        SettingError: torch has no such device here.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # the device "meta" holds no numbers
    except (RuntimeError, AssertionError, ImportError) as error:  # what torch raises without the device
        raise SettingError("device", "be one that torch has here", name, "Use 'cpu' or 'auto'") from error
    return device


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


def make_loader(corpus: Corpus, model: ModelConfig, config: TrainingConfig) -> WindowLoader:
    """Windows for training: shuffled, or in contiguous streams for a model with memory.

    Raises:
        SettingError: there are fewer windows than a batch, or memory is wanted with another stride than a window.
    """
    if model.memory_length and config.stride != model.context_length:
        rule = f"equal context_length = {model.context_length} where memory_length is set"
        raise SettingError("stride", rule, config.stride, "Leave stride out, or memory_length")
    loader = WindowLoader(
        corpus,
        config.batch_size,
        model.context_length,
        config.stride,
        shuffle=not model.memory_length,
        seed=config.seed,
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
