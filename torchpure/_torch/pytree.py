"""torch's registry of containers, for `torchpure/tree/_backend.py` alone."""

from torch.utils._pytree import SUPPORTED_NODES as SUPPORTED_NODES
from torch.utils._pytree import register_pytree_node as register_pytree_node
