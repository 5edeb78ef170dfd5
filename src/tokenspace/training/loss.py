"""Cross-entropy of tokens, without logits that would not fit.

Axis letters: N tokens, D d_model, V vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def token_loss(features: Tensor, head: nn.Linear, targets: Tensor, logits_bytes: int) -> Tensor:
    """Mean loss in nats per token.

    Args:
        features: What the head reads, (…, D).
        head: Linear (D to V) without bias.
        targets: int64 ids, (…).
        logits_bytes: Above this size the (N, V) float32 logits are never held whole. The plain
            way is several times faster on a CPU, so it is taken wherever it fits.

    Example:
        >>> head = nn.Linear(4, 10, bias=False)
        >>> loss = token_loss(torch.zeros(1, 3, 4), head, torch.zeros(1, 3, dtype=torch.long), 2**20)
        >>> round(loss.item(), 4)  # ln 10
        2.3026
    """
    features, targets = features.flatten(0, -2), targets.flatten()
    rows, vocab_size = len(features), head.weight.shape[0]
    if rows * vocab_size * 4 <= logits_bytes:
        return F.cross_entropy(head(features).float(), targets)
    rows_a_chunk = max(1, logits_bytes // (vocab_size * 4))
    if hasattr(F, "linear_cross_entropy"):
        options = nn.LinearCrossEntropyOptions(batch_chunk_size=rows_a_chunk)
        return F.linear_cross_entropy(features, head.weight, targets, options=options)
    sums = [
        checkpoint(_summed_loss, some, head.weight, wanted, use_reentrant=False)
        for some, wanted in zip(features.split(rows_a_chunk), targets.split(rows_a_chunk), strict=True)
    ]
    return torch.stack(sums).sum() / rows


def _summed_loss(features: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(features, weight).float(), targets, reduction="sum")
