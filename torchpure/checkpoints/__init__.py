"""Checkpoints: trees in folders that are whole or absent, as safetensors and JSON with hashes."""

from ._checkpointer import Checkpointer
from ._describe import Description, LeafInfo, describe
from ._restore import check_restorable, restore, save
from ._tensor_file import data_of

__all__ = ["Checkpointer", "Description", "LeafInfo", "check_restorable", "data_of", "describe", "restore", "save"]
