"""What an atlas holds: plain numbers and arrays, the contract between who gathers and the page that shows.

V tokens, F frames, P positions, L layers, H heads, R distances, T context_length, N rows with neighbours:

    label_bytes, label_offsets      uint8, uint32 (V + 1): UTF-8 of printable names, end to end
    token_bytes, token_offsets      the same for the bytes that tokens stand for
    count                           uint32 (V): as input or as target, the larger; absent where nobody counted
    norm                            float32 (V)
    kind, script                    uint8 (V): indices into meta's ``kinds`` and ``scripts``
    state                           uint8 (V): into ``states``; absent without a ledger
    xy                              int16 (F, V, 2): ``xy_range`` is 32,767; the last frame is now
    far_rows                        uint32: farther out than ``xy_range``, put at the edge; absent where there are none
    vectors                         float16 (V, 16): on the first principal components now; 0 beyond d_model
    position_vectors                float16 (P, 16): what the scheme adds, on the same axes; absent for others
    nonfinite_rows                  uint32: rows with NaN or infinity, drawn nowhere; absent where there are none
    neighbour_rows                  uint32 (N): whose neighbours are known
    neighbours, cosines             uint32 (N, 20), uint16 (N, 20): 0 … 65,535 stand for -1 … 1
    first_rows, first_neighbours    uint32 (M), (M, 10): before training, for tokens it saw
    position_similarity             float32 (p, p), with position_ticks uint32 (p)
    score_by_distance               float32 (L, H, R), with distances int32 (R): how far back, below 0 ahead
    rotary_kernel                   float32 (bands, R), with rotary_distances int32 (R)
    spectrum                        float32: singular values of the table
    duplicates                      uint32 (pairs, 2)
    loss_by_position                float32 (T): nats; NaN where none was measured

Meta, all of it JSON:

    title, path, step               of the run; step is null for a model from elsewhere
    sees_ahead                      whether a place sees those after it, so that training hides tokens
    d_model, vocab_size, num_layers, num_heads, context_length, tied, scheme
    kinds, scripts, states          names, in the order of their numbers
    frames, xy_range, projection    steps; the full scale of xy; {name, explained: share of the variance on each axis}
    cosine_full_scale               65,535
    loss                            {train, evaluation: [[step, loss]], unigram: loss or null}
    health                          see `tokenspace.atlas.health`
    seen_known, counted_by          whether there is a ledger; "ledger", "corpus" or null
    bytes_per_token_by_script       {script: mean}, weighted by counts where bytes_per_token_weighted
    order_example                   {first, second}: the same words in two orders
    score_of                        what score_by_distance is measured on: "text", "drawn" ids, the "scheme" alone
    frames_note                     why the training cannot be played back whole, or null
    loss_by_position_note           why there is no loss_by_position, or null
    notes                           what is missing, why, and what to do
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class AtlasData:
    """All that a page shows.

    Attributes:
        meta: JSON values: names, settings, curves, notes.
        arrays: By the names above; what is absent is unknown, and ``meta["notes"]`` says why.
    """

    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]


def end_to_end(pieces: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Byte strings in one array, uint8, and where each begins and the last ends, uint32.

    Example:
        >>> data, offsets = end_to_end([b"ab", b"", b"c"])
        >>> bytes(data), offsets.tolist()
        (b'abc', [0, 2, 2, 3])
    """
    offsets = np.zeros(len(pieces) + 1, dtype=np.uint32)
    np.cumsum([len(piece) for piece in pieces], out=offsets[1:])
    return np.frombuffer(b"".join(pieces), dtype=np.uint8), offsets


def plain(value: Any) -> Any:
    """`value` as JSON can say it: NaN and infinity become None, text loses half surrogates.

    Example:
        >>> plain({"loss": [1.5, float("nan")]})
        {'loss': [1.5, None]}
    """
    if isinstance(value, dict):
        return {plain(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", errors="backslashreplace").decode()
    return value
