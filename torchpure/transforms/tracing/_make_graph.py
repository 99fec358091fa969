"""`make_graph`: the program of a function, as a graph of torch's operations."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import Tensor
from torch.fx import GraphModule

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import Packed, check_callable, register_mode
from torchpure.transforms.engine import argument_paths, describe_function, describe_program, refuse_nested
from torchpure.transforms.purity import Watch, refuse_hidden_tensors, warn_of_python_draws

from ._constants import RealConstants, is_fake, trace_with_constants
from ._eval_shape import _shape_of, describe_shape
from ._program_text import program_text
from ._refusals import explain_tracing_errors

register_mode(RealConstants)


class Graph:
    """The program that a function ran: `print` shows it, a call runs it."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Tree, ...], module: GraphModule, outputs: Packed) -> None:
        self.module = module  # an ordinary torch.fx module: its nodes are in `module.graph.nodes`
        self._fn, self._outputs = fn, outputs
        leaves, self._structure = tree.flatten(args)
        self._likes = list(map(_shape_of, leaves))

    def __call__(self, *args: Tree) -> Tree:
        """Run the program on tensors of the same shapes, dtypes and devices; other values must equal the traced ones.

        Raises:
            TransformError: an argument differs from the traced one.
            StructureError: the structure differs.
        """
        return self._outputs.unflatten(self.module(*self._given(args)))

    def _given(self, args: tuple[Tree, ...]) -> list[Tensor]:
        leaves, structure = tree.flatten(args)
        if structure != self._structure:
            caller = f"make_graph: the arguments of the program, against those that {describe_function(self._fn)} had"
            leaves = tree.ordered(self._structure, args, caller)
        for number, (like, leaf) in enumerate(zip(self._likes, leaves, strict=True)):
            got = _shape_of(leaf)
            if type(got) is not type(like) or not (got is like or got == like):
                whole = tree.unflatten(self._structure, leaves)
                path = [name for i, arg in enumerate(whole) for name in argument_paths(i, arg)][number]
                raise TransformError(
                    f"make_graph: the program of {describe_function(self._fn)} is one for arguments like those that it "
                    f"was traced with: {path}: wanted {describe_shape(like)}, got {describe_shape(got)}. "
                    "Trace it again for others"
                )
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def __str__(self) -> str:
        return program_text(self.module)

    def __repr__(self) -> str:
        inputs = tree.unflatten(self._structure, map(describe_shape, self._likes))
        return describe_program(self._fn, self.module, inputs)


def make_graph(fn: Callable[..., Any]) -> Callable[..., Graph]:
    """Return a function that traces `fn` at its arguments and returns the program, a `Graph` of torch's operations.

    Transforms inside `fn` are part of the program. Names from `named_scope` are in `meta["custom"]` of the nodes. The
    program is for tensors of these shapes, dtypes and devices, and for these values of everything else.

    Law: `make_graph(fn)(*args)(*args) == fn(*args)`.

    Raises:
        TransformError: `fn` needs numbers: it branches on a value, or calls `.item()`.

    >>> import torch
    >>> from torchpure import grad
    >>> print(make_graph(grad(torch.sin))(torch.tensor(1.0)))
    def forward(self, arg0_1: "f32[]"):
        sin: "f32[]" = torch.ops.aten.sin.default(arg0_1)
        ones_like: "f32[]" = torch.ops.aten.ones_like.default(sin, pin_memory = False)
        cos: "f32[]" = torch.ops.aten.cos.default(arg0_1)
        mul: "f32[]" = torch.ops.aten.mul.Tensor(ones_like, cos)
        return (mul,)
    """
    check_callable("make_graph", fn)

    @wraps(fn, updated=())
    def trace(*args: Tree) -> Graph:
        inputs, outputs = Packed(), Packed()
        tensors = inputs.flatten(args)
        refuse_nested("make_graph", fn, tensors, jagged=True)

        def flat(*values: Tensor) -> tuple[Tensor, ...]:
            given = inputs.unflatten(values)
            watch = Watch("make_graph", fn, given)
            with warn_of_python_draws("make_graph", fn):
                out = fn(*given)
            watch.check(traced=is_fake)
            refuse_hidden_tensors("make_graph", fn, tree.leaves(out), is_fake)
            return outputs.flatten(out)

        with explain_tracing_errors("make_graph", fn):
            module = trace_with_constants(flat, tensors, RealConstants())
        module.graph.eliminate_dead_code()
        module.recompile()
        return Graph(fn, args, module, outputs)

    return trace
