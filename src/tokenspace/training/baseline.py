"""The loss of a model that knows only how often each token occurs.

What any language model must beat to have learned anything of order or context.
"""

import numpy as np

from tokenspace.corpus import Corpus

_SMOOTHINGS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def unigram_loss(train: Corpus, targets: np.ndarray) -> float:
    """Loss of the smoothed unigram model of `train` on `targets`, in nats per token.

    ``p(t) = (count(t) + a) / (total + a * vocab_size)``, with the `a` that is best for these
    targets: the comparison favours the baseline.

    Args:
        train: The training part.
        targets: Token ids that the language model predicts too.
    """
    seen = train.counts()[targets.astype(np.int64)]
    total, V = train.num_tokens, train.vocab_size
    losses = [np.log(total + a * V) - np.log(seen + a).mean() for a in _SMOOTHINGS]
    return float(min(losses))
