"""Run folders, what a training leaves behind; and the tables of any other model, opened."""

from tokenspace.checkpoint.models import ForeignModel, Table, Tables, open_tables
from tokenspace.checkpoint.run import Run, create_run
from tokenspace.checkpoint.state import Checkpoint, load_checkpoint, save_checkpoint

__all__ = [
    "Checkpoint",
    "ForeignModel",
    "Run",
    "Table",
    "Tables",
    "create_run",
    "load_checkpoint",
    "open_tables",
    "save_checkpoint",
]
