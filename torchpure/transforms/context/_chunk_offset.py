"""The index of the first member of a chunk: with chunks of 4, the second chunk has offset 4."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch.compiler import is_dynamo_compiling

from torchpure.transforms.engine import current_level

from ._context import Offset, current


@contextmanager
def set_chunk_offset(offset: Offset) -> Iterator[None]:
    """Count the members of the innermost open vmap from `offset`, inside of the block."""
    if is_dynamo_compiling():
        yield
        return
    offsets, opened = current.chunk_offsets, current_level()
    before = offsets.get(opened, 0)  # a rule for a loop may open the level again
    offsets[opened] = offset
    try:
        yield
    finally:
        offsets[opened] = before


def chunk_offset(opened: int) -> Offset:
    """Return the index of the first member that runs at a level."""
    return current.chunk_offsets.get(opened, 0)
