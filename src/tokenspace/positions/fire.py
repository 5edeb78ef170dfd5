"""FIRE: a small network reads how far a key is, as a share of how far it could be.

The distance and the query's position enter through a learned logarithm, so that any length
maps into [0, 1]. The score therefore depends on the query's position too: moving a whole
text changes it. All layers share one network.

Source: Li et al. 2023, "Functional Interpolation for Relative Positions Improves Long
Context Transformers" (arXiv:2310.04418), equation 5 and appendix.
"""

from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tokenspace.errors import check_above_0, check_at_least
from tokenspace.positions._layout import Layout
from tokenspace.positions._precision import at_least_float32
from tokenspace.positions._scheme import ModelShape, Scheme

_HIDDEN_AT_ONCE = 4 << 20  # numbers of the network's hidden layer: 16 MiB
_EPSILON = 1e-6  # in the denominator, as in the paper's code


@final
class Fire(Scheme):
    """Adds ``network(log(1 + c d) / log(1 + c max(i, L)))`` with ``d = |i - j|``.

    Args:
        num_heads: Query heads.
        width: Hidden units of the network.
        c: First value of the logarithm's learned factor.
        threshold: First value of L, below which a query's position does not matter.

    Attributes:
        c: The logarithm's factor, a number.
        threshold_factor: L over its first value, a number.

    Raises:
        SettingError: a size is below 1, or `c` or `threshold` is not above 0.

    Example:
        >>> from tokenspace.positions import Layout
        >>> Fire(num_heads=2).prepare(Layout.contiguous(3)).shape
        torch.Size([1, 2, 3, 3])
    """

    name = "fire"
    shares_score = True
    head_axes: ClassVar = {"out_weight": 0, "out_bias": 0}

    def __init__(self, num_heads: int, width: int = 32, c: float = 0.1, threshold: float = 512.0) -> None:
        super().__init__()
        check_at_least(1, num_heads=num_heads, width=width)
        check_above_0("Use 0.1 for c and 512.0 for threshold", c=c, threshold=threshold)
        self.num_heads, self.threshold = num_heads, float(threshold)
        self.hidden = nn.Linear(1, width)
        out = nn.Linear(width, num_heads)
        self.out_weight, self.out_bias = out.weight, out.bias
        self.c = nn.Parameter(torch.tensor(float(c)))
        self.threshold_factor = nn.Parameter(torch.tensor(1.0))

    @classmethod
    def for_model(cls, shape: ModelShape, **settings: Any) -> Self:
        """One output for each of the model's heads."""
        return cls(**{"num_heads": shape.num_heads, **settings})

    def prepare(self, layout: Layout) -> Tensor:
        """What is added to the logits of every layer: (B or 1, H, T, S)."""
        relative, queries = layout.relative_positions(), layout.query_positions
        T, S = relative.shape[-2:]
        # the hidden units of all pairs would be `width` times the result; compiled code needs one graph for all lengths
        rows = T if torch.compiler.is_compiling() else max(1, _HIDDEN_AT_ONCE // (self.hidden.out_features * S))
        parts = zip(relative.split(rows, dim=-2), queries.split(rows, dim=-1), strict=True)
        if rows >= T:
            bias = self._network(relative, queries)
        else:
            bias = torch.cat([checkpoint(self._network, *part, use_reentrant=False) for part in parts], dim=-2)
        return bias if bias.dim() == 4 else bias.unsqueeze(0)

    def _network(self, relative: Tensor, queries: Tensor) -> Tensor:
        """The bias of these pairs, (…, H, T, S), from relative positions (…, T, S) and queries' positions (…, T)."""
        c = at_least_float32(self.c)
        threshold = (at_least_float32(self.threshold_factor) * self.threshold).abs()
        farthest = torch.maximum(queries.to(threshold.dtype), threshold).unsqueeze(-1)
        share = torch.log((c * relative.abs()).abs() + 1) / (torch.log((c * farthest).abs() + 1) + _EPSILON)
        hidden = F.relu(self.hidden(share.unsqueeze(-1).to(self.hidden.weight.dtype)))
        return F.linear(hidden, self.out_weight, self.out_bias).movedim(-1, -3)

    def score(self, q: Tensor, k: Tensor, layout: Layout, state: Tensor, layer: int = 0) -> Tensor:
        """What `prepare` made, the same for every layer; see `Scheme.score`."""
        self.check_heads(q)
        return state

    def extra_repr(self) -> str:
        """Settings, for ``print(model)``."""
        return f"num_heads={self.num_heads}, width={self.hidden.out_features}, threshold={self.threshold}"
