"""Schemes whose score depends on nothing but the head and the relative position.

They say what a relative position is worth (`by_distance`); this file brings it to every
pair of query and key, once a forward pass for all layers, and makes the same numbers a
``score_mod`` for FlexAttention.

Axis letters: B batch, T query length, S key length, H heads, R relative positions.
"""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from tokenspace.positions._layout import Layout
from tokenspace.positions._scheme import Scheme
from tokenspace.positions._toeplitz import toeplitz

ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


class DistanceScheme(Scheme):
    """A scheme that adds one number to a logit, by head and relative position."""

    shares_score = True

    @abstractmethod
    def by_distance(self, relative: Tensor) -> Tensor:
        """What each relative position is worth in each head.

        Args:
            relative: Position of a key minus that of its query: int64, (R,).

        Returns:
            float32, (H, R).
        """

    def prepare(self, layout: Layout) -> Tensor:
        """What is added to the logits of every layer: float32, (B or 1, H, T, S).

        Between documents, and at padding, any number: the mask is the attention's.
        """
        T, S = layout.query_length, layout.key_length
        device = layout.key_positions.device
        if layout.consecutive:  # each row is the row before, moved by one
            return toeplitz(self.by_distance(torch.arange(1 - S, T, device=device)), T).unsqueeze(0)
        relative = layout.relative_positions()
        if 2 * layout.max_distance + 1 < relative.numel():
            bias = self._by_all_distances(layout)[:, relative + layout.max_distance]
        else:
            bias = self.by_distance(relative.flatten()).unflatten(1, relative.shape)
        return bias.unsqueeze(0) if relative.dim() == 2 else bias.transpose(0, 1)

    def score(self, q: Tensor, k: Tensor, layout: Layout, state: Tensor, layer: int = 0) -> Tensor:
        """What `prepare` made, the same for every layer; see `Scheme.score`."""
        self.check_heads(q)
        return state

    def score_mod(self, layout: Layout) -> ScoreMod:
        """`score` as a function of indices, for ``torch.nn.attention.flex_attention``.

        Wherever a query may look, it adds the same numbers without a (T, S) tensor; pass
        ``scale=scheme.logit_scale`` and a block mask of your own. Gradients reach the scheme's parameters.

        Example:
            >>> from tokenspace.positions import get
            >>> mod = get("alibi", num_heads=2).score_mod(Layout.contiguous(4))
            >>> mod(*(torch.tensor(n) for n in (10.0, 0, 1, 3, 1)))
            tensor(9.9922)
        """
        worth_HR = self._by_all_distances(layout)
        queries, keys, middle = layout.query_positions, layout.key_positions, layout.max_distance

        def add(score: Tensor, b: Tensor, h: Tensor, t: Tensor, s: Tensor) -> Tensor:
            query = queries[t] if queries.dim() == 1 else queries[b, t]
            key = keys[s] if keys.dim() == 1 else keys[b, s]
            return score + worth_HR[h, key - query + middle]

        return add

    def _by_all_distances(self, layout: Layout) -> Tensor:
        """(H, 2 * max_distance + 1), from the key farthest behind to the one farthest ahead."""
        farthest = layout.max_distance
        return self.by_distance(torch.arange(-farthest, farthest + 1, device=layout.key_positions.device))
