"""No positions: a model with this scheme learns order from its causal mask alone, if at all.

Source: Haviv et al. 2022, "Transformer Language Models without Positional Encodings
Still Learn Positional Information" (arXiv:2203.16634).
"""

from typing import final

from tokenspace.positions._scheme import Scheme


@final
class NoPositions(Scheme):
    """Order enters nowhere.

    Example:
        >>> import torch
        >>> x = torch.ones(1, 2, 4)
        >>> bool((NoPositions().embed(x) == x).all())
        True
    """

    name = "none"
