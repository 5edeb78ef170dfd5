"""What a position scheme does, as pictures need it: at the input, to the logits, and by turning.

Schemes are asked through their contract alone: vectors through `embed`, logits by running the
model on a text and listening to `score`, turning by what `rotate` makes of single components.

Axis letters: P positions, L layers, H heads, R distances, K head_dim, T length.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenspace.embedding import InputEmbedding
from tokenspace.inspection import position_vectors
from tokenspace.model import LanguageModel
from tokenspace.positions import Layout, Scheme

_MOST_TICKS = 128
MOST_DISTANCES = 512
_MOST_BANDS = 8
_SILENT = -40.0  # softplus of it is 0 to float32


@torch.no_grad()
def input_positions(embedding: InputEmbedding, context_length: int | None) -> Tensor | None:
    """What the scheme adds to the token vectors at each position, float32, (P, D); None where it adds nothing."""
    if "embed" not in embedding.position.places:
        return None
    return position_vectors(embedding, context_length or MOST_DISTANCES).float()


def similarity(vectors_PD: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine of the vectors of up to 128 positions spread evenly, (p, p), and those positions, (p,)."""
    number = len(vectors_PD)
    ticks = torch.linspace(0, number - 1, min(_MOST_TICKS, number)).round().long()
    shown = vectors_PD[ticks]
    return F.cosine_similarity(shown.unsqueeze(1), shown.unsqueeze(0), dim=-1), ticks


def distances(length: int, ahead: bool) -> range:
    """How far back keys can stand in a text; below 0 are those ahead, for models that see both sides.

    Example:
        >>> list(distances(3, ahead=False)), list(distances(3, ahead=True))
        ([0, 1, 2], [-2, -1, 0, 1, 2])
    """
    return range(1 - length if ahead else 0, length)


@torch.no_grad()
def score_by_distance(model: LanguageModel, token_ids: Tensor) -> Tensor | None:
    """What the scheme adds to the logits at each of the `distances`, the mean over the places of a text.

    Args:
        model: In evaluation mode.
        token_ids: The text, (1, T).

    Returns:
        float32, (L, H, R); None where the scheme adds nothing to logits.
    """
    if "score" not in model.embedding.position.places:
        return None
    far = distances(token_ids.shape[1], ahead=not model.config.causal)
    with _listening(model.embedding.position, model.config.num_layers, far) as heard:
        model.features(token_ids)
    shown = [np.zeros((model.config.num_heads, len(far))) if one is None else one for one in heard]
    return torch.from_numpy(np.stack(shown).astype(np.float32))


@torch.no_grad()
def score_without_content(scheme: Scheme, length: int, ahead: bool = False) -> Tensor | None:
    """The same for a scheme alone, whose score asks nothing of queries and keys (ALiBi, T5's bias): of one layer.

    Returns:
        float32, (1, H, R); None where the scheme adds nothing to logits.
    """
    if "score" not in scheme.places:
        return None
    layout, nothing = Layout.contiguous(length), torch.zeros(1, scheme.num_heads, length, 1)
    score_BHTT = scheme.score(nothing, nothing, layout, scheme.prepare(layout))
    means = _mean_by_distance(score_BHTT[0], distances(length, ahead))
    return torch.from_numpy(means.astype(np.float32)).unsqueeze(0)


@contextmanager
def _listening(scheme: Scheme, num_layers: int, far: range) -> Iterator[list[np.ndarray | None]]:
    """Inside the block, means of what `scheme.score` returns, by layer: (H, R), or None where it returned None."""
    heard: list[np.ndarray | None] = [None] * num_layers
    asked = scheme.score

    def score(q: Tensor, k: Tensor, layout: Layout, state: object, layer: int = 0) -> Tensor | None:
        found = asked(q, k, layout, state, layer)
        if found is not None:
            heard[layer] = _mean_by_distance(found[0], far)
        return found

    scheme.score = score
    try:
        yield heard
    finally:
        del scheme.score


def _mean_by_distance(score_HTT: Tensor, far: range) -> np.ndarray:
    means = [score_HTT.diagonal(-distance, -2, -1).double().mean(dim=-1) for distance in far]
    return torch.stack(means, dim=-1).numpy()


@torch.no_grad()
def rotary_kernel(scheme: Scheme, context_length: int) -> Tensor | None:
    """How alike a component of a query and of a key are after turning, by their distance: 1 for the same place.

    For rotary positions that is the cosine of the angle between them. Components are sorted from the fastest
    to the slowest and averaged in bands.

    Returns:
        float32, (bands, R), at most 8 bands and 512 distances; None where nothing turns, or where what turns
        adds a score too.
    """
    members = getattr(scheme, "members", [scheme])
    turning = [one for one in members if "rotate" in one.places and "score" not in one.places]
    if not turning:
        return None
    kernels = _kernels(turning[0], min(context_length, MOST_DISTANCES))
    return torch.stack([band.mean(dim=0) for band in _by_speed(kernels).tensor_split(_bands(len(kernels)))])


def _kernels(scheme: Scheme, R: int) -> Tensor:
    """For each component, the product of a query at position R - 1 with keys behind it, as a cosine, (K, R)."""
    layout = Layout.contiguous(R)
    state = scheme.prepare(layout)
    heads, K = scheme.num_heads or 1, scheme.head_dim
    silent = torch.zeros(1, heads, R, K)
    if scheme.rotate(silent, silent, layout, state)[1].any():  # nothing has a length too: PoPE's softplus
        silent = torch.full_like(silent, _SILENT)
    kernels = []
    for component in range(K):
        x = silent.clone()
        x[..., component] = 1.0
        q, k = scheme.rotate(x, x, layout, state)
        product = (q[0, :, -1:] * k[0]).sum(dim=-1)
        same_place = (q[0, :, -1].norm(dim=-1) * k[0, :, -1].norm(dim=-1)).unsqueeze(-1)
        kernels.append((product / same_place).mean(dim=0).flip(0))
    return torch.stack(kernels)


def _by_speed(kernels_KR: Tensor) -> Tensor:
    """Fastest first: by the distance at which they first fall below 0.9, then by how far they have fallen there."""
    below = kernels_KR < 0.9
    R = kernels_KR.shape[1]
    first = torch.where(below.any(dim=1), below.int().argmax(dim=1), R - 1)
    there = kernels_KR.gather(1, first.unsqueeze(1)).flatten()
    return kernels_KR[np.lexsort((there.numpy(), first.numpy()))]


def _bands(components: int) -> int:
    return min(_MOST_BANDS, max(1, components // 2))
