"""Windows of tokens as tensors: `WindowLoader`, `Mixture`, `WindowDataset`, `create_dataloader`."""

from tokenspace.loader.batches import DocumentBatch as DocumentBatch
from tokenspace.loader.batches import EpochBatches as EpochBatches
from tokenspace.loader.batches import TokenArray as TokenArray
from tokenspace.loader.batches import TokenSource as TokenSource
from tokenspace.loader.dataset import WindowDataset as WindowDataset
from tokenspace.loader.mixture import Mixture as Mixture
from tokenspace.loader.provenance import DocumentInBatch as DocumentInBatch
from tokenspace.loader.provenance import documents_in_batch as documents_in_batch
from tokenspace.loader.window_loader import WindowLoader as WindowLoader
from tokenspace.loader.window_loader import create_dataloader as create_dataloader
