"""Run folders edited on disk: a new run, from which the training can go on.

Table, head, tokenizer, ledger, frames and the optimiser's state are those of the run's latest
checkpoint, changed together. The corpus is encoded anew in the new vocabulary, so the loader
starts at its beginning; where only rows of padding change, it goes on where it was.
"""

import copy
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import tomli_w
import torch
from safetensors.torch import save_file
from torch import Tensor

from tokenspace.checkpoint import Checkpoint, Run, load_checkpoint, save_checkpoint
from tokenspace.checkpoint.state import latest_checkpoint
from tokenspace.corpus import Corpus
from tokenspace.corpus.reencoding import reencode
from tokenspace.errors import CheckpointError, CorpusError
from tokenspace.files import new_folder, read_sealed_json
from tokenspace.ledger import Ledger
from tokenspace.loader import WindowLoader
from tokenspace.model import LanguageModel
from tokenspace.optim import RowwiseAdamW
from tokenspace.vocabulary.changes import Change
from tokenspace.vocabulary.edit import Edit
from tokenspace.vocabulary.lengths import resized_table
from tokenspace.vocabulary.live import carry_out
from tokenspace.vocabulary.parts import Parts
from tokenspace.vocabulary.receipt import FILE_NAME, Receipt

_CORPUS = "corpus"


@torch.no_grad()
def edit_run(run: Run, out: Path, change: Change, text: str | None = None) -> Receipt:
    """Write an edited run to a new folder, whole or not at all.

    Raises:
        TokenspaceError: the change cannot be made, or the run's corpus cannot be encoded anew.
    """
    model = _model(run)
    optimizer = _optimizer(run, model)
    checkpoint = load_checkpoint(run.checkpoints, model, optimizer, clean=False)
    ledger = _ledger(run, model, checkpoint)
    edit = change.plan(run.tokenizer, run.model_config.vocab_size)
    carry = [optimizer] if ledger is None else [optimizer, ledger]
    receipt = carry_out(edit, model, Parts.of(model), carry, text)
    with new_folder(out) as part:
        if edit.changes_nothing:
            shutil.copytree(run.path, part, dirs_exist_ok=True, ignore=shutil.ignore_patterns(FILE_NAME, ".*.part"))
        else:
            _fill(part, run, edit, model, optimizer, checkpoint, ledger)
        receipt.save(part / FILE_NAME)
    return receipt


def _model(run: Run) -> LanguageModel:
    with torch.random.fork_rng([]):  # the first draw, overwritten at once, is none of the caller's
        model = LanguageModel(run.model_config)
    by_rows = run.config["training"].get("optimizer") == "rowwise"
    model.embedding.token.sparse = by_rows and not run.model_config.tie_head
    return model


def _optimizer(run: Run, model: LanguageModel) -> torch.optim.Optimizer:
    """The run's optimiser, its groups as its checkpoint has them; `load_checkpoint` brings settings and state."""
    state = read_sealed_json(latest_checkpoint(run.checkpoints) / "state.json")
    parameters = dict(model.named_parameters())
    try:
        groups = [
            {"params": [(name, parameters[name]) for name in group["param_names"]]}
            for group in state["optimizer_groups"]
        ]
    except KeyError as error:
        next_step = "Train on a little, so that this version writes a checkpoint"
        raise CheckpointError(
            "optimizer state", "name the model's parameters", f"without {error}", next_step
        ) from error
    if run.config["training"].get("optimizer") == "rowwise":
        return RowwiseAdamW(groups)
    return torch.optim.AdamW(groups, fused=True)


def _ledger(run: Run, model: LanguageModel, checkpoint: Checkpoint) -> Ledger | None:
    if not checkpoint.ledger:
        return None
    ledger = Ledger(model.embedding.token, start=run.frame(0)["token.weight"])
    ledger.load_state_dict(checkpoint.ledger)
    return ledger


def _fill(
    part: Path,
    run: Run,
    edit: Edit,
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    checkpoint: Checkpoint,
    ledger: Ledger | None,
) -> None:
    """Everything of the new run but its receipt."""
    config = _config(run, edit, model)
    tokens = _corpus(part, run, edit, config)
    (part / "config.toml").write_bytes(tomli_w.dumps(config).encode())
    if edit.new is edit.old:
        shutil.copyfile(run.path / "tokenizer.json", part / "tokenizer.json")
    else:
        edit.new.save(part / "tokenizer.json")
    shutil.copyfile(run.metrics_path, part / run.metrics_path.name)
    _frames(part, run, edit, model)
    if edit.new is not edit.old or edit.num_positions is not None:
        loader = _new_loader(tokens, config)
        checkpoint = replace(checkpoint, loader=loader.state_dict(), memory={})
    if ledger is not None:
        checkpoint = replace(checkpoint, ledger=ledger.state_dict())
        ledger.record().save(part / run.ledger_path.name)
    (part / "checkpoints").mkdir()
    save_checkpoint(part / "checkpoints", checkpoint, model, optimizer)


def _config(run: Run, edit: Edit, model: LanguageModel) -> dict[str, Any]:
    config = copy.deepcopy(run.config)
    new = edit.new
    if new is not edit.old:
        config["tokenizer"] |= {"name": new.name, "identity": new.identity, "vocab_size": new.vocab_size}
    if config["training"].get("stride") == run.model_config.context_length:
        config["training"]["stride"] = model.config.context_length
    config["model"] = asdict(model.config)
    return config


def _corpus(part: Path, run: Run, edit: Edit, config: dict[str, Any]) -> Corpus:
    """The corpus that the new run goes on with: its training part; the config is told of it."""
    place = Path(config["corpus"]["path"])
    if edit.new is not edit.old:
        reencode(run.path / place, edit.new, part / _CORPUS)
        place = Path(_CORPUS)
    elif not place.is_absolute():
        shutil.copytree(run.path / place, part / place)
    corpora = [Corpus.open(part / place, split=split, tokenizer=edit.new) for split in ("train", "validation")]
    length = config["model"]["context_length"]
    for corpus in corpora:
        if corpus.num_tokens <= length:
            rule = f"have more than {length} tokens in its {corpus.split} part"
            next_step = "Train the model on more text first, or ask for less"
            raise CorpusError("the run's corpus in the new vocabulary", rule, corpus.num_tokens, next_step)
    config["corpus"] = {"path": place.as_posix(), "identity": corpora[0].identity}
    return corpora[0]


def _new_loader(tokens: Corpus, config: dict[str, Any]) -> WindowLoader:
    """As the training makes it: from the beginning of the new corpus."""
    model = config["model"]
    try:
        batch_size, stride, seed = (config["training"][name] for name in ("batch_size", "stride", "seed"))
    except KeyError as error:
        raise CheckpointError("[training] of config.toml", f"have {error}", "without", "Restore the file") from error
    return WindowLoader(
        tokens,
        batch_size,
        model["context_length"],
        stride,
        shuffle=not model["memory_length"],
        seed=seed,
        contiguous=bool(model["memory_length"]),
    )


def _frames(part: Path, run: Run, edit: Edit, model: LanguageModel) -> None:
    """The frames of the run in the new vocabulary; what is new stands in all of them as it begins."""
    fresh = model.embedding.token.weight.detach()[edit.fresh]
    (part / "frames").mkdir()
    for step in run.frames:
        tables: dict[str, Tensor] = run.frame(step)
        tables["token.weight"] = edit.rows(tables["token.weight"], fresh)
        if edit.num_positions is not None:
            old = tables["position.weight"]
            tables["position.weight"] = resized_table(old, edit.num_positions, edit.interpolate)
        save_file(tables, part / "frames" / f"{step:08d}.safetensors")
