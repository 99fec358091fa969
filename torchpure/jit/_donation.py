"""Donated arguments: results take their memory, and nobody can use them afterwards."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure._torch import storage_use_count
from torchpure.errors import ImpureError, TransformError
from torchpure.jit.passes import copied, is_view, placeholders, results, value

_use_count: Any = storage_use_count
_OURS = 2  # uses of a storage that one tensor has, while it is asked for


class Donated(Tensor):
    """A tensor that was given away: each use of it is an error."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse an operation."""
        for leaf in (*args, *(kwargs or {}).values()):
            if type(leaf) is Donated and func is Tensor.__repr__:
                return f"<a tensor that was donated to {leaf.__dict__['taker']}>"
        taker = next((leaf.__dict__["taker"] for leaf in _flat((args, kwargs)) if type(leaf) is Donated), "jit")
        raise ImpureError(
            f"jit: a tensor is used that was donated to {taker}: its memory belongs to the results. Use those, or "
            "donate a clone"
        )


def _flat(values: Any) -> list[Any]:
    """List what containers hold, without a look at tensors."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list | tuple):
        return [leaf for part in values for leaf in _flat(part)]
    return [values]


def pairs(module: GraphModule, donated: Sequence[int]) -> dict[int, int]:
    """Match results with donated inputs, whose memory they take: shape, dtype, device and layout are the same.

    Results that share memory with others have none of their own to move.
    """
    given, out = placeholders(module), results(module)
    roots = [_roots(node) for node in out]
    shared = [root for i, group in enumerate(roots) for root in group]
    free = [i for i in donated if given[i] not in shared and value(given[i]).is_contiguous()]
    found: dict[int, int] = {}
    for number, node in enumerate(out):
        own = value(node) if isinstance(node, Node) else None
        if not isinstance(own, Tensor) or any(
            root.op != "call_function" or shared.count(root) > 1 for root in roots[number]
        ):
            continue
        match = next((i for i in free if _same(own, value(given[i]))), None)
        if match is not None:
            found[number] = match
            free.remove(match)
    return found


def _roots(node: Any) -> set[Node]:
    """Return the nodes that made the memory of a result."""
    found, todo = set(), [node] if isinstance(node, Node) else []
    while todo:
        one = todo.pop()
        if is_view(one):
            todo.extend(one.all_input_nodes)
        else:
            found.add(one)
    return found


def _same(one: Tensor, two: Tensor) -> bool:
    return (one.shape, one.dtype, one.device) == (two.shape, two.dtype, two.device)


def written_over(module: GraphModule, found: dict[int, int]) -> GraphModule:
    """Write results into inputs, at the end of a program."""
    made = copied(module)
    given, out, end = placeholders(made), results(made), made.graph.output_node()
    with made.graph.inserting_before(end):
        for number, place in found.items():
            copy = made.graph.call_function(torch.ops.aten.copy_.default, (given[place], out[number]))
            copy.meta = dict(given[place].meta)
            out[number] = copy
    end.update_arg(0, tuple(out))
    made.recompile()
    return made


def check_donated(who: str, tensors: Sequence[Tensor], donated: Sequence[int]) -> None:
    """Check that no donated tensor is given twice.

    Raises:
        TransformError: one is.
    """
    given = list(map(id, tensors))
    if len(set(given)) < len(given):
        for place in donated:
            if given.count(given[place]) > 1:
                raise TransformError(f"jit: {who} is given a donated tensor twice: donate a clone in one of the places")


def own(leaf: Tensor) -> Tensor:
    """Return a tensor whose memory nobody else sees: itself, or a clone."""
    return leaf if _use_count(leaf.untyped_storage()._cdata) <= _OURS else leaf.clone()


def taken(who: str, leaf: Tensor) -> Tensor:
    """Move the memory of a tensor to a new one, and leave the old one without use."""
    new = leaf.detach()
    give_up(who, leaf)
    return new


def give_up(who: str, leaf: Tensor) -> None:
    """Leave a tensor without memory and without use."""
    leaf.data = torch.empty(0, dtype=leaf.dtype, device=leaf.device)
    leaf.__dict__["taker"] = who
    leaf.__class__ = Donated  # pyrefly: ignore[bad-assignment] a tensor like the other, which refuses its operations
