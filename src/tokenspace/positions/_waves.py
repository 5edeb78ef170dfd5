"""Sines and cosines of many lengths at whole-numbered positions, in float32.

Nothing is stored: the waves are computed from the positions asked for, so there is no
table to outgrow or to lose digits in bfloat16.
"""

from typing import Literal

import torch
from torch import Tensor


def waves(
    positions: Tensor, size: int, theta: float = 10000.0, order: Literal["interleaved", "halves"] = "halves"
) -> Tensor:
    """``sin(p / theta^(2i/size))`` and ``cos(p / theta^(2i/size))`` for i = 0 … size/2 - 1.

    Args:
        positions: Whole numbers of any shape and sign.
        size: Length of a vector; even.
        theta: The longest wave is ``2 * pi * theta`` tokens long.
        order: "interleaved" alternates sine and cosine, "halves" has all sines first.

    Returns:
        float32, (…, size).

    Source: Vaswani et al. 2017, section 3.5 (arXiv:1706.03762).

    Example:
        >>> waves(torch.tensor([0]), size=4, theta=10000.0, order="halves")
        tensor([[0., 0., 1., 1.]])
    """
    evens = torch.arange(0, size, 2, device=positions.device, dtype=torch.float32)
    frequencies = theta ** (-evens / size)
    angles = positions.unsqueeze(-1).to(torch.float32) * frequencies
    sine, cosine = angles.sin(), angles.cos()
    if order == "halves":
        return torch.cat([sine, cosine], dim=-1)
    return torch.stack([sine, cosine], dim=-1).flatten(-2)
