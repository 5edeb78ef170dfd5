"""Run folders: what a training leaves behind, and how it is taken up again."""

from tokenspace.checkpoint.run import Run, create_run
from tokenspace.checkpoint.state import Checkpoint, load_checkpoint, save_checkpoint

__all__ = ["Checkpoint", "Run", "create_run", "load_checkpoint", "save_checkpoint"]
