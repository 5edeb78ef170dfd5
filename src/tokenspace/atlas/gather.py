"""Gathers what the page shows from a model, its tokenizer, its ledger, its frames and its text.

Each part is made by a file of its own; here they are asked in turn, and what one lacks becomes a note.

Axis letters: F frames, V vocabulary, K components.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenspace.atlas import losses, panels
from tokenspace.atlas.data import AtlasData, end_to_end, plain
from tokenspace.atlas.health import equal_rows, health
from tokenspace.atlas.kinds import KINDS, Vocabulary
from tokenspace.atlas.neighbours import most_frequent, rows_to_ask
from tokenspace.atlas.projection import check_projection, flatten, full_scale, rows_beyond, whole_numbers
from tokenspace.atlas.source import Source
from tokenspace.checkpoint import ForeignModel, Run
from tokenspace.checkpoint.components import Basis, principal_components, some_finite_rows
from tokenspace.inspection import nearest_rows
from tokenspace.ledger import STATES

Progress = Callable[[str, int, int], None]
_COMPONENTS = 16
_MOST_POINTS = 2_000_000  # of all frames together: what a page can hold
_NEIGHBOURS, _FIRST_NEIGHBOURS, _MOST_FIRST = 20, 10, 20_000
_MOST_NAMED, _MOST_EQUAL = 10, 10_000
_ORDERS = {  # by script: the same words, in two orders
    "Devanagari": ("बिल्ली चटाई पर बैठी", "चटाई बिल्ली पर बैठी"),
    "Latin": ("dog bites man", "man bites dog"),
}


def gather(
    source: str | Path | Run | ForeignModel,
    *,
    projection: str = "pca",
    progress: Progress = lambda task, done, total: None,
) -> AtlasData:
    """All that an atlas of this model shows.

    Args:
        source: A run, or any other model that `Run.open` opens, or its path.
        projection: "pca", "umap" or "tsne"; frames are shown by "pca" alone.
        progress: Called with what is being done, how much of it is, and how much there is.

    Raises:
        CheckpointError: it is none, is damaged, or has no tokenizer.
        SettingError: the projection is unknown or not installed, or no row of the table is finite.
    """
    check_projection(projection)
    progress("opening", 0, 1)
    opened = Source.open(source)
    table = opened.table.float()
    finite = some_finite_rows(table)
    vocabulary = Vocabulary.of(opened.tokenizer, len(table))
    counts = opened.counts()
    meta: dict[str, Any] = _meta(opened, vocabulary, counts)
    arrays = _tokens(opened, vocabulary, counts)
    arrays["norm"] = torch.linalg.vector_norm(table, dim=1).numpy()
    progress("projecting", 0, 1)
    arrays |= _space(opened, table, projection, meta)
    _name_nonfinite(finite, vocabulary, arrays, meta)
    _name_far(vocabulary, arrays, meta)
    progress("table's health", 0, 1)
    equal = equal_rows(table)
    meta["health"], arrays["spectrum"] = health(table, equal)
    arrays["duplicates"] = equal[:_MOST_EQUAL]
    arrays |= _neighbours(opened, table, counts, meta, progress)
    progress("positions", 0, 1)
    arrays |= _positions(opened)
    arrays |= _losses(opened, meta, progress)
    return AtlasData(plain(meta), arrays)


def _meta(source: Source, vocabulary: Vocabulary, counts: np.ndarray | None) -> dict[str, Any]:
    config = None if source.model is None else source.model.config
    lengths = np.array([0 if data is None else len(data) for data in vocabulary.bytes])
    weights = np.ones(len(lengths)) if counts is None or not counts.any() else counts
    shares = {}
    text = (lengths > 0) & (vocabulary.kinds != KINDS.index("special"))
    for number, name in enumerate(vocabulary.scripts):
        own = np.where((vocabulary.script == number) & text, weights, 0)
        if own.any():
            shares[name] = float((own * lengths).sum() / own.sum())
    often = np.bincount(vocabulary.script, weights=weights)
    script = next((vocabulary.scripts[i] for i in np.argsort(-often) if vocabulary.scripts[i] in _ORDERS), "Latin")
    first, second = _ORDERS[script]
    return {
        "title": _title(source.path),
        "path": str(source.path),
        "step": source.step,
        "d_model": source.table.shape[1],
        "vocab_size": len(source.table),
        "num_layers": None if config is None else config.num_layers,
        "num_heads": None if config is None else config.num_heads,
        "tied": source.tied,
        "scheme": source.embedding.position.name,
        "context_length": source.context_length,
        "sees_ahead": source.sees_ahead,
        "kinds": list(KINDS),
        "scripts": vocabulary.scripts,
        "states": list(STATES),
        "seen_known": source.ledger is not None,
        "counted_by": None if counts is None else "corpus" if source.ledger is None else "ledger",
        "bytes_per_token_by_script": shares,
        "bytes_per_token_weighted": counts is not None,
        "order_example": {"first": first, "second": second},
        "cosine_full_scale": 65_535,
        "score_of": source.score_of,
        "frames_note": None,
        "loss_by_position_note": None,
        "notes": list(source.notes),
    }


def _title(path: Path) -> str:
    """The last part of a path; of a snapshot in the Hugging Face cache the model's name instead of a hash."""
    path = path.resolve()
    model = path.parent.parent.name
    if path.parent.name == "snapshots" and model.startswith("models--"):
        return model.removeprefix("models--").replace("--", "/", 1)
    return path.name


def _tokens(source: Source, vocabulary: Vocabulary, counts: np.ndarray | None) -> dict[str, np.ndarray]:
    arrays = {"kind": vocabulary.kinds, "script": vocabulary.script}
    arrays["label_bytes"], arrays["label_offsets"] = end_to_end([label.encode() for label in vocabulary.labels])
    arrays["token_bytes"], arrays["token_offsets"] = end_to_end(vocabulary.spelled)
    if counts is not None:
        arrays["count"] = counts.clip(max=np.iinfo(np.uint32).max).astype(np.uint32)
    if source.ledger is not None:
        arrays["state"] = source.ledger.states.astype(np.uint8)
    return arrays


def _space(source: Source, table_VD: Tensor, projection: str, meta: dict[str, Any]) -> dict[str, np.ndarray]:
    """Frames in the plane, and the vectors of tokens and positions on the first axes."""
    steps, frames_FVK, basis = _frames(source, table_VD)
    now = basis.project(table_VD)
    if projection == "pca":
        last = len(steps) - 1
        kept = np.unique(np.linspace(0, last, min(len(steps), max(2, _MOST_POINTS // len(table_VD)))).round())
        steps = [steps[int(place)] for place in kept]
        points = torch.stack([(now if place == last else frames_FVK[int(place)].float())[:, :2] for place in kept])
        points = F.pad(points, (0, 2 - points.shape[-1]))
    else:
        points = flatten(table_VD, projection).unsqueeze(0)
        if len(steps) > 1:
            meta["frames_note"] = f"{projection} shows the table as it is now; the frames need the projection pca."
        steps = steps[-1:]
    if source.run is not None and source.run.frames in ([], [0]):
        meta["frames_note"] = "This run kept no frames on the way: train with --frames 24 to play the training back."
    if meta["frames_note"] is not None:
        meta["notes"].append(meta["frames_note"])
    scale = full_scale(points)
    meta["frames"], meta["xy_range"] = steps, scale
    meta["projection"] = {"name": projection, "explained": basis.explained.tolist()}
    arrays = {"xy": whole_numbers(points, scale), "vectors": _wide(now)}
    far = rows_beyond(points, scale)
    if len(far):
        arrays["far_rows"] = far
    added = panels.input_positions(source.embedding, source.context_length)
    if added is not None:
        arrays["position_vectors"] = _wide(added @ basis.components.t())
    return arrays


def _frames(source: Source, table_VD: Tensor) -> tuple[list[int], Tensor, Basis]:
    if source.run is None:
        basis = principal_components(table_VD, _COMPONENTS)
        return [source.step or 0], basis.project(table_VD).unsqueeze(0), basis
    found = source.run.projections()
    return found.steps, found.points, found.basis


def _wide(points_VK: Tensor) -> np.ndarray:
    return F.pad(points_VK, (0, _COMPONENTS - points_VK.shape[1])).half().numpy()


def _name_nonfinite(
    finite: Tensor, vocabulary: Vocabulary, arrays: dict[str, np.ndarray], meta: dict[str, Any]
) -> None:
    rows = np.setdiff1d(np.arange(len(vocabulary.labels)), finite.numpy()).tolist()
    if not rows:
        return
    arrays["nonfinite_rows"] = np.array(rows, dtype=np.uint32)
    hold, have = ("row holds", "It has") if len(rows) == 1 else ("rows hold", "They have")
    named = _named(rows, vocabulary)
    meta["notes"].append(
        f"{len(rows):,} {hold} NaN or infinity: {named}. {have} no place in the map and no neighbours."
    )


def _name_far(vocabulary: Vocabulary, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    if "far_rows" not in arrays:
        return
    rows = arrays["far_rows"].tolist()
    stand, are = ("row stands", "It is") if len(rows) == 1 else ("rows stand", "They are")
    named = _named(rows, vocabulary)
    meta["notes"].append(
        f"{len(rows):,} {stand} far outside all others: {named}. {are} drawn nearer, at the map's edge."
    )


def _named(rows: list[int], vocabulary: Vocabulary) -> str:
    names = ", ".join(f"{vocabulary.labels[row]} ({row})" for row in rows[:_MOST_NAMED])
    return names + (f" and {len(rows) - _MOST_NAMED:,} more" if len(rows) > _MOST_NAMED else "")


def _neighbours(
    source: Source, table_VD: Tensor, counts: np.ndarray | None, meta: dict[str, Any], progress: Progress
) -> dict[str, np.ndarray]:
    """The nearest tokens now, and before training for tokens that it saw."""
    V = len(table_VD)
    rows = rows_to_ask(V, counts)
    if rows is not None:
        which = "the first" if counts is None else "the most frequent"
        meta["notes"].append(f"Neighbours are known of {len(rows):,} tokens, {which}; they are sought among all {V:,}.")
    now = nearest_rows(table_VD, _NEIGHBOURS, rows, lambda done, total: progress("neighbours", done, total))
    arrays = {
        "neighbour_rows": now.rows.numpy().astype(np.uint32),
        "neighbours": now.nearest.numpy().astype(np.uint32),
        "cosines": ((now.cosines.clamp(-1, 1) + 1) * (65_535 / 2)).round().numpy().astype(np.uint16),
    }
    first = source.first_table()
    if first is None and source.run is not None:
        meta["notes"].append("The run's first frame is missing: where its tokens stood before training is not known.")
    if first is None or source.ledger is None:
        return arrays
    seen = np.flatnonzero(source.ledger.states < STATES.index("never seen, yet moved"))
    if not len(seen):
        return arrays
    rows = most_frequent(seen, counts, _MOST_FIRST)
    if len(seen) > len(rows):
        meta["notes"].append(f"Neighbours before training are known of the {len(rows):,} most frequent tokens it saw.")
    before = nearest_rows(
        first, _FIRST_NEIGHBOURS, rows, lambda done, total: progress("neighbours before training", done, total)
    )
    arrays["first_rows"] = before.rows.numpy().astype(np.uint32)
    arrays["first_neighbours"] = before.nearest.numpy().astype(np.uint32)
    return arrays


def _positions(source: Source) -> dict[str, np.ndarray]:
    arrays, scheme = {}, source.embedding.position
    length = source.context_length or panels.MOST_DISTANCES
    added = panels.input_positions(source.embedding, source.context_length)
    if added is not None:
        similar, ticks = panels.similarity(added)
        arrays["position_similarity"], arrays["position_ticks"] = similar.numpy(), ticks.numpy().astype(np.uint32)
    shown = min(length, panels.MOST_DISTANCES)
    if source.model is None:
        scores = panels.score_without_content(scheme, shown, source.sees_ahead)
    else:
        scores = panels.score_by_distance(source.model, source.probe(shown))
    if scores is not None:
        arrays["score_by_distance"] = scores.numpy()
        R = scores.shape[-1]
        far = panels.distances((R + 1) // 2 if source.sees_ahead else R, source.sees_ahead)
        arrays["distances"] = np.array(far, dtype=np.int32)
    kernel = panels.rotary_kernel(scheme, length)
    if kernel is not None:
        arrays["rotary_kernel"] = kernel.numpy()
        arrays["rotary_distances"] = np.arange(kernel.shape[-1], dtype=np.int32)
    return arrays


def _losses(source: Source, meta: dict[str, Any], progress: Progress) -> dict[str, np.ndarray]:
    metrics = [] if source.run is None else source.run.metrics
    meta["loss"] = losses.loss_curves([record for record in metrics if record["step"] <= source.step])
    if "validation" not in source.corpora:
        meta["loss_by_position_note"] = (
            "A model from elsewhere brings no text to measure on."
            if source.run is None
            else "The run's corpus is not at hand."
        )
        return {}
    by_position = losses.loss_by_position(
        source.model, source.corpora["validation"], lambda done, total: progress("losses", done, total)
    )
    if by_position is None:
        meta["loss_by_position_note"] = "The validation part is shorter than a window."
        return {}
    if not np.isfinite(by_position).any():
        meta["loss_by_position_note"] = "All losses are NaN or infinity: the model gives no numbers on this text."
        return {}
    return {"loss_by_position": by_position}
