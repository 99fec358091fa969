"""Tables as the data of a fit: in memory, or datasets of files that are read in blocks."""

from ._datasets import DatasetBatches, is_dataset
from ._tables import is_table, read_table

__all__ = ["DatasetBatches", "is_dataset", "is_table", "read_table"]
