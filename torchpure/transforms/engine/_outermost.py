"""The outermost gradient, which runs on plain autograd: its level, and what belongs to it."""

import threading
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from torchpure._torch import AccumulateGrad

_LeafNode: Any = AccumulateGrad


class Level(threading.local):
    """The outermost gradient, on plain autograd, that this thread is inside of."""

    own: list[Tensor] | None = None  # its variables


LEVEL = Level()


def reaches(own: list[Tensor], output: Tensor) -> bool:
    """Tell whether a tensor depends on one of our own leaves."""
    if output.grad_fn is None:
        return any(output is leaf for leaf in own)
    ours = set(map(id, own))
    return any(id(leaf) in ours for leaf in leaves_of_graph(output.grad_fn))


def leaves_of_graph(root: Any) -> Iterator[Tensor]:
    """Go through the leaves below a node of autograd."""
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


def inside_gradient() -> bool:
    """Tell whether this thread is inside an outermost gradient: its graph is gone through once."""
    return LEVEL.own is not None
