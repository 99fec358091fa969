"""Tables as the data of a fit: in memory, or datasets of files that are read in blocks."""

from ._datasets import DatasetBatches as DatasetBatches
from ._datasets import is_dataset as is_dataset
from ._tables import is_table as is_table
from ._tables import read_table as read_table
