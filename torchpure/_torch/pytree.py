"""torch's registry of containers, for `_backend.py` and `_registry.py` of `torchpure/tree/` alone."""

from torch.utils._pytree import SUPPORTED_NODES as SUPPORTED_NODES
from torch.utils._pytree import GetAttrKey as GetAttrKey
from torch.utils._pytree import MappingKey as MappingKey
from torch.utils._pytree import SequenceKey as SequenceKey
from torch.utils._pytree import register_pytree_node as register_pytree_node
