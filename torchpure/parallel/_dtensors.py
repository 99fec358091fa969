"""DTensors of given parts, made in little time: `DTensor.from_local` works a layout out again for each tensor."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement

from torchpure import tree


def dtensor_of(part: Tensor, mesh: DeviceMesh, placements: tuple[Placement, ...]) -> DTensor:
    """Return the DTensor whose part on this process is `part`; it shares its memory."""
    if part.device.type != mesh.device_type or not tree.plain([part]) or part.requires_grad:
        return DTensor.from_local(part, mesh, placements, run_check=False)
    key = (mesh, placements, part.shape, part.stride(), part.dtype)
    names, layout, shape, stride = _layout(*key)  # pyrefly: ignore[bad-argument-type] the hash of a mesh has no type
    inner = dict(zip(names, (part.view_as(part), mesh), strict=False))
    return DTensor.__tensor_unflatten__(inner, layout, shape, stride)  # as a compiler makes DTensors


@lru_cache(maxsize=1024)
def _layout(
    mesh: DeviceMesh,
    placements: tuple[Placement, ...],
    shape: torch.Size,
    stride: tuple[int, ...],
    dtype: torch.dtype,
) -> tuple[list[str], Any, torch.Size, tuple[int, ...]]:
    """Return how torch describes a DTensor of such parts; no part and no mesh is in it."""
    part = torch.empty_strided(shape, stride, dtype=dtype, device="meta")
    like = DTensor.from_local(part, mesh, placements, run_check=False)
    names, layout = like.__tensor_flatten__()
    return names, layout, like.shape, like.stride()
