"""Many processes: meshes, shard_map and DTensors, on torch.distributed."""

from ._device_put import device_put
from ._mesh import make_mesh
from ._partition_spec import P, PartitionSpec
from ._partition_specs import partition_specs
from ._pmap import pmap
from ._shard_map import shard_map

__all__ = ["P", "PartitionSpec", "device_put", "make_mesh", "partition_specs", "pmap", "shard_map"]
