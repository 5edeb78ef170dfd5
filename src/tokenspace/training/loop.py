"""The training loop: one `Trainer` a process, records out, nothing printed.

It begins at the latest checkpoint of a run, which a new run has too (step 0), so that
going on after a kill is the same path as starting. The order of things in a step fixes
the numbers; what is only looked at (evaluation, records) draws on nothing. Several
processes take the same steps with equal parameters, each on its share of every batch.
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
from tokenspace.embedding import check_token_ids
from tokenspace.errors import SettingError
from tokenspace.files import room_on_disk
from tokenspace.ledger import Ledger
from tokenspace.model import LanguageModel, SegmentMemory
from tokenspace.optim import clip_grad_norm_
from tokenspace.optim.checks import first_not_finite
from tokenspace.training.baseline import unigram_loss
from tokenspace.training.evaluation import evaluation_batches
from tokenspace.training.frames import FrameKeeper
from tokenspace.training.gradients import average_gradients
from tokenspace.training.loss import token_loss
from tokenspace.training.metrics import open_metrics
from tokenspace.training.objective import Question, objective_of
from tokenspace.training.parts import make_loader, make_optimizer, open_corpus, training_config
from tokenspace.training.processes import Alone
from tokenspace.training.records import CheckpointRecord, EvaluationRecord, Metric, StepRecord
from tokenspace.training.spread import (
    all_generators,
    collect_counts,
    own_counts,
    own_generators,
    own_memory,
    whole_memory,
)


class Trainer:
    """Trains the model of a run, from its latest checkpoint to its last step.

    Args:
        run: The run folder.
        device: "auto" for a GPU where there is one, or torch's name of a device.
        processes: Those that train together, each with a `Trainer` of the same run; None for this one alone.

    Raises:
        SettingError: the device is not there, the corpus is too short for one batch, or the processes
            cannot share a batch evenly.
        CheckpointError: the checkpoint is missing or damaged.
        CorpusError: the corpus is missing, damaged or another one than the run's.
    """

    def __init__(self, run: Run, device: str = "auto", processes: Alone | None = None) -> None:
        self.run = run
        self.processes = processes or Alone()
        self.device = self.processes.device(device)
        self.config = training_config(run)
        self.train_corpus = open_corpus(run, "train")
        self.validation_corpus = open_corpus(run, "validation")
        with torch.random.fork_rng([]):
            self.model = LanguageModel(run.model_config).to(self.device)
        # a tied head has a gradient for every row
        self.model.embedding.token.sparse = self.config.optimizer == "rowwise" and not run.model_config.tie_head
        self.optimizer = make_optimizer(self.model, self.config)
        place = self.processes.rank, self.processes.world_size
        self.objective = objective_of(run.model_config, *place)
        self.loader = make_loader(self.train_corpus, run.model_config, self.config, *place)
        checkpoint = load_checkpoint(run.checkpoints, self.model, self.optimizer, clean=self.processes.is_first)
        self.step = checkpoint.step
        self.loader.load_state_dict(checkpoint.loader)
        self.generators = own_generators(
            checkpoint.generators, self.processes, self.device, self.config.seed, self.step
        )
        self.ledger = self._ledger_of(checkpoint)
        self.memory = self.model.new_memory()
        if self.memory is not None:
            memory = own_memory(checkpoint.memory, self.processes)
            self.memory.load_state_dict({layer: kept.to(self.device) for layer, kept in memory.items()})
        self._memory_epoch = self.loader.epoch
        self._metrics_bytes = checkpoint.metrics_bytes
        self._features = torch.compile(self.model.features) if self.config.compile else self.model.features

    def records(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Metric | CheckpointRecord]:
        """Train, yielding a record for every step, evaluation and checkpoint.

        Args:
            stop: Asked after every step; when it says yes in any process, a checkpoint is made and the
                loop ends in all of them.

        Raises:
            SettingError: the loss or a gradient, which is named, is no longer finite.
            DiskError: the disk is full; the last checkpoint stands.
            ProcessError: another process has ended.
        """
        # the outer block: a full disk can show at any write, and once more when the file is closed
        with room_on_disk(self.run.metrics_path, 0), self._open_metrics() as metrics:

            def keep(record: Metric) -> Metric:
                metrics.write(json.dumps(record.fields()).encode() + b"\n")
                return record

            def stops() -> bool:
                return self.processes.any(stop())

            batches = self._batches()
            frames = self._frames()
            try:
                if self.step == 0:
                    yield keep(self._evaluate(whole=False))
                stopped = stops()
                while self.step < self.config.steps and not stopped:
                    yield keep(self._train_step(batches))
                    if frames is not None:
                        frames.keep(self.step)
                    if self.step == self.config.steps:
                        yield keep(self._evaluate(whole=True))
                    elif self.step % self.config.evaluate_every == 0:
                        yield keep(self._evaluate(whole=False))
                    stopped = stops()  # once a step: what ends the loop has made the checkpoint too
                    if self.step % self.config.checkpoint_every == 0 or self.step == self.config.steps or stopped:
                        self._save(metrics)
                        yield CheckpointRecord(self.step)
                if frames is not None:
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
        question = self.objective.of_step(inputs, targets, self.config.seed, self.step)
        with self.generators.active():
            loss = self._loss(question, self.memory)
            loss.backward()
        loss = loss.detach()
        average_gradients(self.model.parameters(), loss, self.processes)
        norm = clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self._check_finite(loss.item(), norm.item())
        self.optimizer.step()
        if self.ledger is not None:
            self.ledger.step(question.targets)
        self.step += 1
        seconds = time.perf_counter() - started
        tokens = inputs.numel() * self.processes.world_size
        return StepRecord(self.step, loss.item(), learning_rate, norm.item(), tokens, seconds)

    def _check_finite(self, loss: float, norm: float) -> None:
        """Refuse a step that would spoil the parameters: of a finite loss, by the first gradient that is not."""
        if math.isfinite(loss) and math.isfinite(norm):
            return
        name, found = "loss", loss
        if math.isfinite(loss):
            gradients = {n: p.grad for n, p in self.model.named_parameters() if p.grad is not None}
            bad = first_not_finite(list(gradients.values()))
            name, found = f"gradient of {list(gradients)[bad]}", "infinite or not a number"
        next_step = "Lower learning_rate; the last checkpoint is untouched"
        raise SettingError(f"{name} at step {self.step + 1}", "be finite", found, next_step)

    def _loss(self, question: Question, memory: SegmentMemory | None) -> Tensor:
        """Mean loss of a question that lies on the CPU, where its ids are checked before any compiled region."""
        check_token_ids(question.inputs, self.model.config.vocab_size)
        check_token_ids(question.targets, self.model.config.vocab_size)
        inputs, targets = question.inputs.to(self.device), question.targets.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16"):
            features = question.asked(self._features(inputs, memory=memory))
            return token_loss(features, self.model.head, targets, self.config.logits_mib << 20)

    @torch.no_grad()
    def _evaluate(self, whole: bool) -> EvaluationRecord:
        """Loss on windows that cover the validation part, all of it or some; see `evaluation_batches`."""
        length, memory = self.model.config.context_length, self.model.new_memory()
        most = None if whole else self.config.evaluation_tokens
        corpus, batch_size = self.validation_corpus, self.config.batch_size
        runs = evaluation_batches(corpus.num_tokens, length, batch_size, most, memory is not None)
        total, number = 0.0, 0
        self.model.eval()
        for batches in runs:
            if memory is not None:
                memory.clear()
            own = batches[:, self.processes.rank :: self.processes.world_size]  # none of a batch smaller than that
            for starts in own if own.size else ():
                question = self._question_of(starts)
                number += len(question.targets)
                if len(question.targets):
                    total += self._loss(question, memory).item() * len(question.targets)
        self.model.train()
        number = int(self.processes.total(number))
        loss = self.processes.total(total) / number
        unigram = None
        if whole and self.processes.is_first:
            asked = [self._question_of(starts).targets for batches in runs for starts in batches]
            unigram = unigram_loss(self.train_corpus, torch.cat(asked).numpy())
        return EvaluationRecord(self.step, loss, number, unigram)

    def _question_of(self, starts: np.ndarray) -> Question:
        """What is asked of validation windows that begin there."""
        windows = self.validation_corpus.gather(starts, self.model.config.context_length + 1)
        return self.objective.of_windows(torch.from_numpy(windows.astype(np.int64)), starts)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader

    def _open_metrics(self) -> BinaryIO:
        """Where records go: the run's file, in the first process."""
        if not self.processes.is_first:
            return Path(os.devnull).open("wb")
        return open_metrics(self.run.metrics_path, self._metrics_bytes)

    def _frames(self) -> FrameKeeper | None:
        """What keeps the run's frames, in the first process."""
        if not self.processes.is_first:
            return None
        config = self.config
        return FrameKeeper(self.run.path, self.model.embedding, config.frames, config.steps, self.step)

    def _ledger_of(self, checkpoint: Checkpoint) -> Ledger | None:
        """The run's ledger, gone on with; None for a run that began without one, which would call the seen unseen."""
        table = self.model.embedding.token
        if self.step == 0:
            return Ledger(table)
        if not checkpoint.ledger:
            return None
        ledger = Ledger(table, start=self.run.frame(0)["token.weight"])
        ledger.load_state_dict(own_counts(checkpoint.ledger, self.processes))
        return ledger

    def _save(self, metrics: BinaryIO) -> None:
        """Make a checkpoint of what all processes hold; the first one writes it."""
        generators = all_generators(self.generators, self.processes)
        memory = {} if self.memory is None else whole_memory(self.memory.state_dict(), self.processes)
        if self.ledger is not None:
            collect_counts(self.ledger, self.processes)
        if not self.processes.is_first:
            return
        metrics.flush()
        os.fsync(metrics.fileno())  # the checkpoint counts on these bytes
        checkpoint = Checkpoint(
            step=self.step,
            loader=self.loader.state_dict(),
            metrics_bytes=metrics.tell(),
            generators=generators,
            memory=memory,
            ledger={} if self.ledger is None else self.ledger.state_dict(),
        )
        if self.ledger is not None:  # first: a run that is killed in between goes on and writes it again
            self.ledger.record().save(self.run.ledger_path)
        save_checkpoint(self.run.checkpoints, checkpoint, self.model, self.optimizer)
