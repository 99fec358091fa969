"""Donated arguments: results may take over their memory, and later uses of the arguments are errors.

For example, `step = jit(step, donate=0)` may write the new parameters over the old ones.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure._torch import storage_use_count
from torchpure.errors import ImpureError, TransformError
from torchpure.jit.passes import copy_program, fake_value, is_view, placeholders, results

_use_count: Any = storage_use_count
_USES_WHEN_EXCLUSIVE = 2  # the tensor, and the storage object that is asked for its count


class Donated(Tensor):
    """A tensor whose memory was given to results. Every operation on it raises an error."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse the operation.

        Raises:
            ImpureError: always, except for `repr`.
        """
        for leaf in (*args, *(kwargs or {}).values()):
            if type(leaf) is Donated and func is Tensor.__repr__:
                return f"<a tensor that was donated to {leaf.__dict__['donated_to']}>"
        donated_to = next(
            (leaf.__dict__["donated_to"] for leaf in _flatten_containers((args, kwargs)) if type(leaf) is Donated),
            "jit",
        )
        raise ImpureError(
            f"jit: this tensor was donated to {donated_to}: its memory belongs to the results. Use the results, or "
            "donate a clone"
        )


def _flatten_containers(values: Any) -> list[Any]:
    """List what dicts, lists and tuples hold, without any operation on a tensor."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list | tuple):
        return [leaf for part in values for leaf in _flatten_containers(part)]
    return [values]


def match_donated(module: GraphModule, donated: Sequence[int]) -> dict[int, int]:
    """Match results with donated inputs of the same shape, dtype and device.

    The program may then write each of these results into the memory of its input. A result that shares memory with
    another result or with an input is left out, because writing it elsewhere would break the sharing.
    """
    inputs, outputs = placeholders(module), results(module)
    roots = [_memory_owners(node) for node in outputs]
    shared = [root for i, group in enumerate(roots) for root in group]
    unmatched = [i for i in donated if inputs[i] not in shared and fake_value(inputs[i]).is_contiguous()]
    pairs: dict[int, int] = {}
    for result, node in enumerate(outputs):
        fake = fake_value(node) if isinstance(node, Node) else None
        if not isinstance(fake, Tensor) or any(
            root.op != "call_function" or shared.count(root) > 1 for root in roots[result]
        ):
            continue
        match = next((i for i in unmatched if _same_shape(fake, fake_value(inputs[i]))), None)
        if match is not None:
            pairs[result] = match
            unmatched.remove(match)
    return pairs


def _memory_owners(node: Any) -> set[Node]:
    """Return the nodes that allocated the memory of a result."""
    owners, todo = set(), [node] if isinstance(node, Node) else []
    while todo:
        current = todo.pop()
        if is_view(current):
            todo.extend(current.all_input_nodes)
        else:
            owners.add(current)
    return owners


def _same_shape(one: Tensor, two: Tensor) -> bool:
    return (one.shape, one.dtype, one.device) == (two.shape, two.dtype, two.device)


def write_into_donated(module: GraphModule, pairs: dict[int, int]) -> GraphModule:
    """Return a program that ends by copying results into the inputs given by `pairs`."""
    program = copy_program(module)
    inputs, outputs, end = placeholders(program), results(program), program.graph.output_node()
    with program.graph.inserting_before(end):
        for result, position in pairs.items():
            copy = program.graph.call_function(torch.ops.aten.copy_.default, (inputs[position], outputs[result]))
            copy.meta = dict(inputs[position].meta)
            outputs[result] = copy
    end.update_arg(0, tuple(outputs))
    program.recompile()
    return program


def check_donated(function_name: str, tensors: Sequence[Tensor], donated: Sequence[int]) -> None:
    """Check that no donated tensor is passed twice.

    Raises:
        TransformError: a donated tensor is passed twice.
    """
    inputs = list(map(id, tensors))
    if len(set(inputs)) < len(inputs):
        for position in donated:
            if inputs.count(inputs[position]) > 1:
                raise TransformError(
                    f"jit: {function_name} is given a donated tensor twice: donate a clone in one of the places"
                )


def ensure_exclusive(leaf: Tensor) -> Tensor:
    """Return the tensor if no other tensor and no array of NumPy shares its memory, else a clone."""
    storage = leaf.untyped_storage()
    shared = _use_count(storage._cdata) > _USES_WHEN_EXCLUSIVE or not storage.resizable()
    return leaf.clone() if shared else leaf


def move_memory(function_name: str, leaf: Tensor) -> Tensor:
    """Move the memory of a tensor to a new tensor, and make the old one unusable."""
    new = leaf.detach()
    invalidate(function_name, leaf)
    return new


def invalidate(function_name: str, leaf: Tensor) -> None:
    """Free the memory of a tensor and make the tensor unusable."""
    leaf.data = torch.empty(0, dtype=leaf.dtype, device=leaf.device)
    leaf.__dict__["donated_to"] = function_name
    leaf.__class__ = Donated  # pyrefly: ignore[bad-assignment] a subclass with the same layout
