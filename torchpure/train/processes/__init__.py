"""Steps that the processes of a mesh make together."""

from ._data_parallel import DataParallel, data_parallel

__all__ = ["DataParallel", "data_parallel"]
