"""Optimisers and what belongs to them: AdamW by rows, and clipping that takes sparse gradients.

How rows lag and are caught up: `rows` and `missed`; how a table reads them: `lookup`.
"""

from tokenspace.optim.clipping import clip_grad_norm_ as clip_grad_norm_
from tokenspace.optim.rowwise_adamw import RowwiseAdamW as RowwiseAdamW
