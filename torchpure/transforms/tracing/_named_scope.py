"""`named_scope`: a name for a part of a function."""

from contextlib import AbstractContextManager, ExitStack
from typing import Any

from torch.fx import traceback
from torch.profiler import record_function

from torchpure import tree
from torchpure.errors import TransformError


def named_scope(name: str) -> AbstractContextManager[Any]:
    """Name a part of a function: in profiles, and in the nodes of `make_graph`.

    Raises:
        TransformError: the name is not a str.

    >>> import torch
    >>> from torchpure import make_graph
    >>> def layer(x):
    ...     with named_scope("layer"):
    ...         return torch.tanh(x)
    >>> [node.meta["custom"] for node in make_graph(layer)(torch.ones(2)).module.graph.nodes if "custom" in node.meta]
    [{'scope': 'layer'}]
    """
    if not isinstance(name, str):
        raise TransformError(f"named_scope: the name must be a str, got {tree.describe(name)}")
    stack = ExitStack()
    stack.enter_context(record_function(name))
    stack.enter_context(traceback.annotate({"scope": name}))
    return stack
