"""Optimizers over DTensors: formulas see whole tensors, and each process computes its own part.

Formulas are written for whole tensors. While one runs over DTensors, a function mode follows three rules. A tensor that
all processes have is a plain tensor, so that conditions, schedules and draws read it as usual. A sum over parts is
completed at once. An operation that torch cannot run on parts, such as a factorisation, gets the whole tensors.

Afterwards each tensor is laid out as the one that it replaces. So the layout of a state says where it is kept.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.overrides import TorchFunctionMode

from torchpure import tree
from torchpure._dtensors import dtensor_class, is_dtensor
from torchpure._torch import get_current_function_mode_stack
from torchpure._types import T

if TYPE_CHECKING:  # slow to import; programs without DTensors never do
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor, Placement


def has_dtensors(*trees: Any) -> bool:
    """Return whether a leaf is a DTensor.

    >>> has_dtensors({"w": 1.0})
    False
    """
    if is_dynamo_compiling() or dtensor_class() is None:
        return False
    return any(map(is_dtensor, tree.leaves(trees)))


def run_on_parts(fn: Callable[..., T], *trees: Any) -> T:
    """Run a formula over trees with DTensors, each process on its part."""
    if _runs():  # this is a part of a formula
        return fn(*trees)
    with _WholeTensors():
        return fn(*(tree.map(complete, part) for part in trees))


def init_on_parts(init: Callable[[Any], T], params: Any) -> T:
    """Make a state for DTensors: its tensors are DTensors on their mesh, and those of shape () plain ones."""
    state = run_on_parts(init, params)
    meshes = {leaf.device_mesh for leaf in tree.leaves(params) if is_dtensor(leaf)}
    if len(meshes) != 1 or _runs():
        return state
    (mesh,) = meshes
    return tree.map(lambda leaf: distributed(leaf, mesh) if isinstance(leaf, Tensor) and leaf.ndim else leaf, state)


def laid_out_like(old: Any, new: T) -> T:
    """Lay out each tensor as the one at its place in another tree of the same structure; a plain one is whole."""
    if _runs() or tree.structure(old) != tree.structure(new):
        return new
    return tree.map(_laid_out, old, new)


def _laid_out(old: Any, new: Any) -> Any:
    if not isinstance(new, Tensor):
        return new
    if not is_dtensor(old):
        return whole(new)
    wanted = complete_placements(old.placements)
    return redistribute(distributed(new, old.device_mesh), old.device_mesh, wanted)


def _runs() -> bool:
    return any(isinstance(mode, _WholeTensors) for mode in get_current_function_mode_stack())


class _WholeTensors(TorchFunctionMode):
    """Run functions of torch on parts where torch has a rule for it, and else on whole tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = (args, kwargs or {})
        mesh = next((leaf.device_mesh for leaf in _tensors(given) if is_dtensor(leaf)), None)
        if mesh is None:
            return func(*args, **given[1])
        try:
            positional, named = _each(given, lambda leaf: distributed(leaf, mesh))
            result = func(*positional, **named)
        except Exception:  # torch has no rule here; where the call itself is wrong, the next one says so
            result = _FAILED
        if result is _FAILED or not all(map(_is_consistent, _tensors(result))):
            positional, named = _each(given, whole)
            return func(*positional, **named)
        return _each(result, complete)


_FAILED = object()


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    return [leaf for value in values for leaf in _tensors(value)]


def _each(values: Any, fn: Callable[[Tensor], Any]) -> Any:
    """Map the tensors among arguments or results, which are in tuples, lists and dicts."""
    if isinstance(values, Tensor):
        return fn(values)
    if isinstance(values, dict):
        return {name: _each(value, fn) for name, value in values.items()}
    if type(values) is list or type(values) is tuple:
        return type(values)(_each(value, fn) for value in values)
    if isinstance(values, tuple) and _tensors(values):  # the named results of torch
        return type(values)([_each(value, fn) for value in values])
    return values


def _is_consistent(leaf: Tensor) -> bool:
    """Return whether a DTensor has as many dimensions as its part: torch's product of a vector and a matrix has not."""
    return not is_dtensor(leaf) or leaf.ndim == leaf.to_local().ndim


def complete_placements(placements: "Sequence[Placement]") -> "tuple[Placement, ...]":
    """Return placements without sums that are still to be made."""
    from torch.distributed.tensor import Replicate

    return tuple(Replicate() if placement.is_partial() else placement for placement in placements)


def complete(leaf: Any) -> Any:
    """Complete the sums of a DTensor; one that all processes have becomes a plain tensor."""
    if not is_dtensor(leaf):
        return leaf
    leaf = redistribute(leaf, leaf.device_mesh, complete_placements(leaf.placements))
    return leaf.to_local() if all(placement.is_replicate() for placement in leaf.placements) else leaf


def redistribute(leaf: "DTensor", mesh: "DeviceMesh", placements: "Sequence[Placement]") -> "DTensor":
    """Lay out a DTensor; where nothing changes, it is returned as it is."""
    is_same = leaf.device_mesh == mesh and tuple(leaf.placements) == tuple(placements)
    return leaf if is_same else leaf.redistribute(mesh, placements)


def distributed(leaf: Tensor, mesh: "DeviceMesh") -> "DTensor":
    """Return a DTensor; a plain tensor is one that all processes have."""
    from torch.distributed.tensor import DTensor, Replicate

    return (
        leaf
        if isinstance(leaf, DTensor)
        else DTensor.from_local(leaf, mesh, [Replicate()] * mesh.ndim, run_check=False)
    )


def whole(leaf: Any) -> Any:
    """Return the whole tensor on each process; other leaves as they are.

    >>> whole(1.0)
    1.0
    """
    return leaf.full_tensor() if has_dtensors(leaf) else leaf
