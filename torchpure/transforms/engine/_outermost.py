"""The outermost gradient, which runs on plain autograd: its variables, and which tensors depend on them."""

import threading
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from torchpure._torch import AccumulateGrad

_LeafNode: Any = AccumulateGrad


class _Outermost(threading.local):
    """The outermost gradient of this thread."""

    variables: list[Tensor] | None = None  # None: there is none


OUTERMOST = _Outermost()


def depends_on(variables: list[Tensor], output: Tensor) -> bool:
    """Return whether a tensor depends on one of the variables."""
    if output.grad_fn is None:
        return any(output is leaf for leaf in variables)
    ids = set(map(id, variables))
    return any(id(leaf) in ids for leaf in graph_leaves(output.grad_fn))


def graph_leaves(root: Any) -> Iterator[Tensor]:
    """Iterate over the leaves below a node of the autograd graph."""
    seen: set[Any] = {root}
    todo: list[Any] = [root]
    for node in todo:  # grows as it goes
        for edge in node.next_functions:
            below = edge[0]
            if below is None or below in seen:
                continue
            seen.add(below)
            if type(below) is not _LeafNode:
                todo.append(below)
            else:
                yield below.variable


def in_outermost_grad() -> bool:
    """Return whether this thread is inside an outermost gradient."""
    return OUTERMOST.variables is not None
