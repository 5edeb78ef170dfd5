"""The caller's own models in a study: any module that maps token ids and a `Layout` to logits.

`SchemeModels` trains `LanguageModel` through `tokenspace.training`; a module of which nothing
else is known is trained here, in a run folder of the same form (config, tokenizer,
metrics, checkpoints; no ledger and no frames, as nobody knows its tables), with the same
data order, schedule and optimiser. Dropout is the caller's own.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import tomli_w
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenspace.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tokenspace.corpus import Corpus
from tokenspace.errors import CheckpointError, SettingError, ShapeError
from tokenspace.files import new_folder
from tokenspace.positions import Layout
from tokenspace.study.lengths import can_read
from tokenspace.study.plan import StudyPlan
from tokenspace.study.subjects import Watcher, seeded
from tokenspace.study.tasks import NUM_IDS
from tokenspace.training.config import TrainingConfig
from tokenspace.training.generators import Generators
from tokenspace.training.interrupt import stop_on_interrupt
from tokenspace.training.metrics import open_metrics
from tokenspace.training.objective import Objective, objective_of
from tokenspace.training.parts import make_loader
from tokenspace.training.processes import choose_device
from tokenspace.training.records import StepRecord

Build = Callable[[str], nn.Module]


class OwnModels:
    """Models that `build` makes.

    Args:
        plan: Of the study.
        corpus: The corpus folder.
        build: Gives the model of a scheme; torch's generator starts from the run's seed when it is called.
        device: Where they are trained.
    """

    def __init__(self, plan: StudyPlan, corpus: Path, build: Build, device: str = "auto") -> None:
        self._plan, self._corpus, self._build = plan, corpus, build
        self._device = choose_device(device)
        self._sizes = plan.model_config("none")

    def check(self, scheme: str) -> None:
        """See `Subjects`.

        Raises:
            SettingError: `build` gives no module that can be trained, or the same one again; or its vocabulary is too
                small for the trained probes.
            ShapeError: the logits have another shape than one for each token.
        """
        T, V = self._plan.context_length, self.vocab_size()
        if V <= NUM_IDS and self._plan.settings.probe_steps:
            next_step = "Use a larger vocabulary, or probe_steps=0"
            raise SettingError("vocab_size", f"be above {NUM_IDS} for the trained probes", V, next_step)
        model, other = self.fresh(scheme, 0), self.fresh(scheme, 0)
        if not isinstance(model, nn.Module):
            raise SettingError("build", "return a torch module", type(model).__name__, f"Look at {scheme!r}")
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise SettingError("build", "return a module with parameters to train", "without", f"Look at {scheme!r}")
        if {*map(id, model.parameters())} & {*map(id, other.parameters())}:  # no run may begin where another one ended
            raise SettingError("build", "make a new model each time", "the same again", "Make it in the function")
        if any(getattr(module, "sparse", False) for module in model.modules()):
            raise SettingError("build", "make tables with dense gradients", "sparse", "Leave sparse=True out")
        with torch.no_grad():
            logits = model.eval()(torch.zeros(1, T, dtype=torch.int64), Layout.contiguous(T))
        if not isinstance(logits, Tensor):
            rule, found = "return logits, a tensor", type(logits).__name__
            raise SettingError(f"model of {scheme!r}", rule, found, "Return the logits alone")
        shape = tuple(logits.shape)
        if len(shape) != 3 or shape[:2] != (1, T) or shape[2] < V:
            next_step = f"Give {V} logits" + ", the last for the token that hides others" * (not self._sizes.causal)
            raise ShapeError(f"logits of {scheme!r}", f"have shape (1, {T}, {V} or more)", shape, next_step)
        can_read(model, T * self._plan.settings.extend)  # any other error comes now, not after the training

    def fresh(self, scheme: str, seed: int) -> nn.Module:
        """See `Subjects`."""
        return seeded(seed, lambda: self._build(scheme))

    def fresh_for_tasks(self, scheme: str, seed: int, window: int) -> tuple[nn.Module, Objective]:
        """See `Subjects`; the model as it is, of whose vocabulary the tasks use the first ids."""
        return self.fresh(scheme, seed), self.objective()

    def objective(self) -> Objective:
        """See `Subjects`."""
        return objective_of(self._sizes)

    def vocab_size(self) -> int:
        """See `Subjects`."""
        return self._plan.model["vocab_size"]

    def train(self, folder: Path, scheme: str, seed: int, watch: Watcher) -> nn.Module | None:
        """See `Subjects`.

        Raises:
            CheckpointError: the folder is that of another training.
            SettingError: the loss is no longer finite.
        """
        config, corpus = self._plan.training_config(seed), Corpus.open(self._corpus)
        loader = make_loader(corpus, self._sizes, config)
        model = self.fresh(scheme, seed).to(self._device)
        optimizer, generators = _optimizer(model, config), Generators({}, self._device, seed)
        start = Checkpoint(step=0, loader=loader.state_dict(), metrics_bytes=0, generators=generators.state)
        self._begin(folder, scheme, config, corpus, lambda part: save_checkpoint(part, start, model, optimizer))
        state = load_checkpoint(folder / "checkpoints", model, optimizer)
        loader.load_state_dict(state.loader)
        generators = Generators(state.generators, self._device, seed)
        step, batches = state.step, _endless(loader)
        model.train()
        with open_metrics(folder / "metrics.jsonl", state.metrics_bytes) as metrics, stop_on_interrupt() as stopped:
            while step < config.steps and not stopped():
                record = self._step(model, optimizer, next(batches), config, step, generators)
                metrics.write(json.dumps(record.fields()).encode() + b"\n")
                watch(record)
                step += 1
                if step % config.checkpoint_every == 0 or step == config.steps or stopped():
                    reached = {"metrics_bytes": _flushed(metrics), "generators": generators.state}
                    reached = Checkpoint(step=step, loader=loader.state_dict(), **reached)
                    save_checkpoint(folder / "checkpoints", reached, model, optimizer)
        batches.close()
        return model if step == config.steps else None

    def _begin(
        self, folder: Path, scheme: str, config: TrainingConfig, corpus: Corpus, save: Callable[[Path], object]
    ) -> None:
        """Make the run folder, or see that it is that of the same training."""
        settings = {
            "run": {"made_by": "tokenspace.study", "scheme": scheme},
            "corpus": {"identity": corpus.identity},
            "training": asdict(config),
        }
        text = tomli_w.dumps(settings).encode()
        if not folder.exists():
            with new_folder(folder) as part:
                (part / "config.toml").write_bytes(text)
                corpus.tokenizer().save(part / "tokenizer.json")
                (part / "metrics.jsonl").touch()
                save(part / "checkpoints")
        elif not (folder / "config.toml").is_file() or (folder / "config.toml").read_bytes() != text:
            next_step = "Move it away, or give another --out"
            raise CheckpointError(str(folder), "be a run of this study", "a run of another one", next_step)

    def _step(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: tuple[Tensor, Tensor],
        config: TrainingConfig,
        step: int,
        generators: Generators,
    ) -> StepRecord:
        started = time.perf_counter()
        question = self.objective().of_step(*batch, config.seed, step)
        learning_rate = config.learning_rate_at(step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.zero_grad(set_to_none=True)
        with generators.active():
            layout = Layout.contiguous(question.inputs.shape[1], self._device)
            logits = question.asked(model(question.inputs.to(self._device), layout))
            loss = F.cross_entropy(logits.float(), question.targets.to(self._device))
            loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
            next_step = "Lower learning_rate; the last checkpoint is untouched"
            raise SettingError(f"loss at step {step + 1}", "be finite", loss.item(), next_step)
        optimizer.step()
        seconds = time.perf_counter() - started
        return StepRecord(step + 1, loss.item(), learning_rate, norm.item(), batch[0].numel(), seconds)


def _optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW that decays matrices, but neither vectors nor tables."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    decayed, kept = [], []
    for parameter in model.parameters():
        (decayed if parameter.dim() >= 2 and id(parameter) not in tables else kept).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)


def _endless(loader: Iterator) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader


def _flushed(metrics: BinaryIO) -> int:
    """The length of the file, once it is on the disk."""
    metrics.flush()
    os.fsync(metrics.fileno())
    return metrics.tell()
