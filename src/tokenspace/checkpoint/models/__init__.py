"""Opening the tables of any model, of which only what is wanted is read."""

from tokenspace.checkpoint.models.foreign import ForeignModel
from tokenspace.checkpoint.models.opening import open_tables, read_run_config
from tokenspace.checkpoint.models.table import Table
from tokenspace.checkpoint.models.tables import Norm, Tables

__all__ = ["ForeignModel", "Norm", "Table", "Tables", "open_tables", "read_run_config"]
