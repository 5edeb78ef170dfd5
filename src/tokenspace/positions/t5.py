"""T5's relative position bias: one learned number a head for each bucket of relative positions.

Near positions have a bucket each, farther ones share buckets that grow with the logarithm
of the distance, and all beyond `max_distance` share the last. All layers use one table.

Source: Raffel et al. 2019, section 2.1 (arXiv:1910.10683) and its released code. T5 does
not divide its logits by the root of head_dim, so `logit_scale` is 1.
"""

import math
from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor, nn

from tokenspace.errors import SettingError, check_at_least, check_not_negative
from tokenspace.positions._distance import DistanceScheme
from tokenspace.positions._precision import at_least_float32
from tokenspace.positions._scheme import ModelShape


@final
class T5(DistanceScheme):
    """Adds ``weight[bucket(j - i), h]`` to the logit of query i and key j.

    Args:
        num_heads: Query heads.
        num_buckets: Rows of the table; half of them for keys ahead where `bidirectional`.
        max_distance: From here on all share one bucket.
        bidirectional: Whether keys ahead of a query have buckets of their own (T5's encoder).
        std: Standard deviation of the first draw.

    Attributes:
        weight: The table, (num_buckets, num_heads): transformers' ``relative_attention_bias.weight``.

    Raises:
        SettingError: there are fewer than 2 buckets a direction, or `max_distance` lies below them.

    Example:
        >>> T5(num_heads=2).bucket(torch.tensor([0, -1, -15, -16, -500])).tolist()
        [0, 1, 15, 16, 31]
    """

    name = "t5"
    logit_scale = 1.0
    head_axes: ClassVar = {"weight": 1}

    def __init__(
        self,
        num_heads: int,
        num_buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool = False,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        check_at_least(1, num_heads=num_heads, max_distance=max_distance)
        check_not_negative("Use 0.02", std=std)
        check_at_least(4 if bidirectional else 2, num_buckets=num_buckets)
        exact = num_buckets // (4 if bidirectional else 2)
        if max_distance <= exact:
            rule = f"be above the {exact} distances that have a bucket each"
            raise SettingError("max_distance", rule, max_distance, "Raise it, or lower num_buckets")
        self.num_heads, self.bidirectional = num_heads, bidirectional
        self.num_buckets, self.max_distance = num_buckets, max_distance
        self.weight = nn.Parameter(torch.empty(num_buckets, num_heads))
        nn.init.normal_(self.weight, std=std)

    @classmethod
    def for_model(cls, shape: ModelShape, **settings: Any) -> Self:
        """One column for each head, both directions where the model is not causal."""
        return cls(**{"num_heads": shape.num_heads, "bidirectional": not shape.causal, **settings})

    def bucket(self, relative: Tensor) -> Tensor:
        """The row of each relative position ``j - i``: int64 of the same shape."""
        buckets = self.num_buckets // 2 if self.bidirectional else self.num_buckets
        ahead = (relative > 0) * buckets if self.bidirectional else 0
        distance = relative.abs() if self.bidirectional else (-relative).clamp(min=0)
        exact = buckets // 2
        steps = math.log(self.max_distance / exact)  # the rounding of each operation is that of the released code
        far = exact + (torch.log(distance.float() / exact) / steps * (buckets - exact)).long()
        return ahead + torch.where(distance < exact, distance, far.clamp(max=buckets - 1))

    def by_distance(self, relative: Tensor) -> Tensor:
        """See `DistanceScheme.by_distance`."""
        return at_least_float32(self.weight).t()[:, self.bucket(relative)]

    def extra_repr(self) -> str:
        """Settings, for ``print(model)``."""
        sizes = f"num_buckets={self.num_buckets}, max_distance={self.max_distance}"
        return f"num_heads={self.num_heads}, {sizes}, bidirectional={self.bidirectional}"
