"""Where the graph of recorded steps begins."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure._torch import AccumulateGrad
from torchpure.compat.torchopt import pytree


def detach(tree: Any) -> Any:
    """Detach the tensors that have a graph."""
    return pytree.tree_map(
        lambda leaf: leaf.detach() if isinstance(leaf, Tensor) and leaf.requires_grad else leaf, tree
    )


def only_reaches(loss: Tensor, leaves: Sequence[Tensor]) -> bool:
    """Return whether a gradient of the loss can reach these leaves of the graph alone."""
    known = {id(leaf) for leaf in leaves}
    stack, seen = [loss.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, AccumulateGrad):
            if id(node.variable) not in known:  # pyrefly: ignore[missing-attribute]
                return False
        else:
            stack.extend(following for following, _ in node.next_functions)
    return True


def end_of_graph(tree: Any, steps: int) -> Any:
    """Detach the tensors that have a graph. A gradient that arrives at one of them is an error."""

    def end(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.requires_grad:
            return leaf
        return _End.apply(leaf.detach().requires_grad_(), steps)

    return pytree.tree_map(end, tree)


class _End(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, steps: int) -> Tensor:
        ctx.steps = steps
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        raise RuntimeError(
            f"FuncOptimizer.step: a gradient goes back through more than {ctx.steps} steps, and the graph of "
            f"the earlier ones "
            "is gone. To differentiate through more steps, set `recorded_steps` of the optimizer to their number. To "
            "train without a graph, pass inplace=True, detach the parameters, or set `recorded_steps` to 0"
        )
