"""The space of a sweep, its results, and its finished chunks on disk."""

from ._chunk_store import ChunkStore, Folder, arguments_of, open_chunk_store
from ._results import Member, Sweep, best, member, merge_results
from ._space import Method, Point, Range, Space, choice, list_points, log_uniform, uniform

__all__ = [
    "ChunkStore",
    "Folder",
    "Member",
    "Method",
    "Point",
    "Range",
    "Space",
    "Sweep",
    "arguments_of",
    "best",
    "choice",
    "list_points",
    "log_uniform",
    "member",
    "merge_results",
    "open_chunk_store",
    "uniform",
]
