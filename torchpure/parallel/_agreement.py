"""Do all processes have the same values, and call the same function?"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from torchpure._torch import FakeTensor
from torchpure.transforms.calls import is_tracing
from torchpure.transforms.engine import innermost, without_function_modes

from ._mesh import names_of
from ._partition_spec import PartitionSpec
from .messages import heard_by_all, round_of, whole_group

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint(leaf: Tensor) -> Tensor:
    """Return the sum of the bits of a tensor, as integers: int64, shape (1,). Equal values have equal fingerprints.

    Of a tensor of a transform, it is that of all members.
    """
    base = innermost(leaf).detach()
    base = base.to_local() if isinstance(base, DTensor) else base
    if base.is_complex():
        base = torch.view_as_real(base.resolve_conj())
    return base.contiguous().view(-1).view(_INTEGERS[base.element_size()]).sum(dtype=torch.int64).reshape(1).cpu()


def can_compare(leaves: Sequence[Tensor]) -> bool:
    """Tell whether tensors have numbers, and whether this is a call: a tracer's is none."""
    return not is_tracing() and not any(isinstance(innermost(leaf), FakeTensor) for leaf in leaves)


def agree(
    text: str, mesh: DeviceMesh, leaves: Sequence[Tensor], paths: Sequence[str], specs: Sequence[PartitionSpec]
) -> None:
    """Tell all processes what this one does, and compare tensors on the axes that their specs do not name.

    Raises:
        MeshError: the processes do different things, have different values, or one has failed.
    """
    group = whole_group()
    if group.size == 1:
        return
    count = min(len(leaves), group.room // 8)
    with without_function_modes():  # they would take tensors inside of a transform for captured ones
        parts = [fingerprint(leaf) for leaf in leaves]
    if len(parts) > count:  # too many for a message: the last entry is for all the others
        parts = [*parts[: count - 1], torch.cat(parts[count - 1 :]).sum(0, keepdim=True)]
    data = torch.cat(parts).view(torch.uint8) if parts else None
    replies = round_of(group, text, data)[:, : 8 * count].contiguous().view(torch.int64)
    by_place = replies[mesh.mesh.cpu()]  # (*shape of the mesh, tensors)
    names = names_of(mesh)
    for number in range(count):
        values = by_place[..., number]
        for dim, name in enumerate(names):
            first = values.select(dim, 0).unsqueeze(dim)
            if name not in specs[number].axis_names and not torch.equal(values, first.expand_as(values)):
                place = (values != first).nonzero()[0]
                rank = int(mesh.mesh[tuple(place)])
                place[dim] = 0
                raise heard_by_all(
                    group,
                    f"{text}: {paths[number]} differs between processes, and {specs[number]!r} says that it is the "
                    f"same along axis {name!r}: rank {rank} has other values than rank {int(mesh.mesh[tuple(place)])}. "
                    "Draw it from the same key everywhere, or combine it with psum or pmean",
                )
