"""How many steps a number of epochs has."""

from collections.abc import Sized

from ._counts import checked_count
from ._data import Data
from .tables import DatasetBatches


def count_steps(steps: int | None, epochs: int | None, data: Data, batch_size: int | None) -> int:
    """Return the number of steps; an epoch takes each row once.

    Raises:
        ValueError: both numbers are given, or none, or the length of the data is not known.
        TypeError: a number is no integer.
    """
    if (steps is None) == (epochs is None):
        given = "none" if steps is None else f"steps={steps} and epochs={epochs}"
        raise ValueError(f"fit: wanted one of steps= (updates) and epochs= (passes over the data), got {given}")
    if epochs is None:
        return checked_count("fit", "steps", steps, least=0)
    epochs = checked_count("fit", "epochs", epochs, least=0)
    if isinstance(data.batches, DatasetBatches) and batch_size is not None:
        return epochs * -(-data.batches.num_rows() // batch_size)
    if data.batches is None:
        return epochs * -(-len(data.tensors[0]) // (batch_size or len(data.tensors[0]) or 1))
    if not isinstance(data.batches, Sized):
        raise ValueError("fit: epochs= needs data of known length, and this iterable has no len(): pass steps=")
    return epochs * len(data.batches)
