"""Fewer key heads than query heads: one place that says which key head a query head reads."""

from torch import Tensor


def repeat_heads(x_BHSK: Tensor, num_heads: int) -> Tensor:
    """Key heads, each as often as query heads read it: (B, H, S, K).

    Query head ``h`` reads key head ``h // (num_heads / key heads)`` (Ainslie et al. 2023,
    arXiv:2305.13245), which is what torch's ``enable_gqa`` does.

    Example:
        >>> import torch
        >>> repeat_heads(torch.tensor([1.0, 2.0]).view(1, 2, 1, 1), num_heads=4).flatten().tolist()
        [1.0, 1.0, 2.0, 2.0]
    """
    if x_BHSK.shape[1] == num_heads:
        return x_BHSK
    return x_BHSK.repeat_interleave(num_heads // x_BHSK.shape[1], dim=1)
