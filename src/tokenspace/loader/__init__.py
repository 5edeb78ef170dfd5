"""Windows of tokens as tensors: `WindowLoader`, and `create_dataloader` with the book's arguments."""

from tokenspace.loader.batches import EpochBatches as EpochBatches
from tokenspace.loader.batches import TokenArray as TokenArray
from tokenspace.loader.batches import TokenSource as TokenSource
from tokenspace.loader.window_loader import WindowLoader as WindowLoader
from tokenspace.loader.window_loader import create_dataloader as create_dataloader
