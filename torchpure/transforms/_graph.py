"""What a function does, without its numbers: shapes of its results, and the program that it runs."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    disable_fake_tensor_cache,
)
from torch.fx import GraphModule, traceback
from torch.profiler import record_function
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError

from ._describe import argument_paths, describe_function, user_line
from ._dtypes import MixedDtypesError, check_dtypes
from ._fresh import Written, fresh
from ._indexing import Indexing
from ._known import Recipes
from ._levels import innermost
from ._operation import Packed, check_callable
from ._primitives import pass_through
from ._run import explanation, validates
from ._tracer import trace
from ._watch import Watch


@dataclass(frozen=True, slots=True)
class ShapeDtype:
    """A tensor without its numbers."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def eval_shape(fn: Callable[..., Any], *args: Tree, **kwargs: Any) -> Tree:
    """Return the shapes, dtypes and devices of what `fn` would return, without computing it.

    Arguments are tensors, or `ShapeDtype` in their places. Nothing is allocated for values.

    Raises:
        TransformError: `fn` needs the numbers: it branches on a value, or calls `.item()`.

    >>> eval_shape(lambda a, b: a @ b, torch.ones(2, 3), ShapeDtype((3, 4), torch.float32))
    ShapeDtype(shape=(2, 4), dtype=torch.float32, device=device(type='cpu'))
    """
    check_callable("eval_shape", fn)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake_args, fake_kwargs = tree.map(lambda leaf: _faked(mode, leaf), (args, kwargs))
    with mode, RealConstants(), Indexing(), numbers_refused("eval_shape", fn):
        watch = Watch("eval_shape", fn, fake_args, fake_kwargs)
        out = fn(*fake_args, **fake_kwargs)
        watch.check(own=is_fake)
    return tree.map(_shape_of, out)


def is_fake(leaf: Tensor) -> bool:
    """Tell whether a tensor has no numbers: only a tracer makes such."""
    return isinstance(innermost(leaf), FakeTensor)


class RealConstants(TorchDispatchMode):
    """Computes what depends on no argument with its numbers: a program holds it as a constant.

    torch would leave a tensor without numbers there. Nor do its own zeros of forward derivatives have a device here.
    What asks for numbers that depend on no argument gets them. A constant that an argument is written to is none from
    then on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written, self.recipes = Written(), Recipes()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [leaf for leaf in tree.leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if given and not any(isinstance(leaf, FakeTensor) or leaf in self.written for leaf in given):
            with _disable_current_modes():
                return func(*args, **(kwargs or {}))
        check_dtypes(func, args)
        self.written.note(func, [None if isinstance(leaf, FakeTensor) else leaf for leaf in args])
        args, asked = self._asked(func, args, kwargs or {})
        if asked is not None:
            with _disable_current_modes():
                return func(*asked[0], **asked[1])
        with _anew(given) if func in _LIKE else nullcontext():
            out = (torch.ops.aten.zeros.default if func in _ZEROS else func)(*args, **(kwargs or {}))
        self.recipes.note(func, args, kwargs or {}, out)
        return out

    def _asked(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Return arguments without masks whose entries are known; and all with numbers, if it asks for these."""
        found = None
        if func in _MASKED and (plain := self.recipes.unmasked(*args[:2])):
            self.used(plain.constants)
            args = (args[0], plain.values, *args[2:])
        elif not _ASKS.isdisjoint(func.tags) and (found := self.recipes.known((args, kwargs))):
            self.used(found.constants)
        return args, found and found.values

    def used(self, constants: Sequence[Tensor]) -> None:
        """Take note of constants whose numbers the program depends on."""


_ASKS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_MASKED = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default}
_ZEROS = {torch.ops.aten._efficientzerotensor.default}
_LIKE = {torch.ops.aten._new_zeros_with_same_feature_meta.default}
pass_through(RealConstants)


def _anew(given: Sequence[Tensor]) -> AbstractContextManager[Any]:
    """Run an operation anew: what torch remembers of one has lost where in its memory the result begins."""
    mode = next((leaf.fake_mode for leaf in given if isinstance(leaf, FakeTensor)), None)
    return nullcontext() if mode is None else disable_fake_tensor_cache(mode)


def _faked(mode: FakeTensorMode, leaf: Any) -> Any:
    if isinstance(leaf, ShapeDtype):
        with mode:
            return torch.empty(leaf.shape, dtype=leaf.dtype, device=leaf.device)
    return mode.from_tensor(leaf) if isinstance(leaf, Tensor) else leaf


def _shape_of(leaf: Any) -> Any:
    return ShapeDtype(tuple(leaf.shape), leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf


def _named(leaf: Any) -> str:
    if not isinstance(leaf, ShapeDtype):
        return tree.describe(leaf)
    return f"a {str(leaf.dtype).removeprefix('torch.')} tensor of shape {leaf.shape} on {leaf.device}"


class Graph:
    """The program that a function ran: `print` shows it, a call runs it."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Tree, ...], module: GraphModule, outputs: Packed) -> None:
        self.module = module  # an ordinary torch.fx module: its nodes are in `module.graph.nodes`
        self._fn, self._outputs = fn, outputs
        leaves, self._structure = tree.flatten(args)
        self._likes = list(map(_shape_of, leaves))

    def __call__(self, *args: Tree) -> Tree:
        """Run the program on tensors of the same shapes, dtypes and devices; all else must be what it was traced with.

        Raises:
            TransformError: it is not.
            StructureError: or in structure.
        """
        return self._outputs.put(self.module(*self._given(args)))

    def _given(self, args: tuple[Tree, ...]) -> list[Tensor]:
        leaves, structure = tree.flatten(args)
        if structure != self._structure:
            who = f"make_graph: the arguments of the program, against those that {describe_function(self._fn)} had"
            leaves = tree.ordered(self._structure, args, who)
        for number, (like, leaf) in enumerate(zip(self._likes, leaves, strict=True)):
            got = _shape_of(leaf)
            if type(got) is not type(like) or not (got is like or got == like):
                whole = tree.unflatten(self._structure, leaves)
                path = [name for i, arg in enumerate(whole) for name in argument_paths(i, arg)][number]
                raise TransformError(
                    f"make_graph: the program of {describe_function(self._fn)} is one for arguments like those that it "
                    f"was traced with: {path}: wanted {_named(like)}, got {_named(got)}. Trace it again for others"
                )
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def __str__(self) -> str:
        return program_text(self.module)


def program_text(module: GraphModule) -> str:
    """Write a program: one operation a line, with the shape of each value."""
    lines = module.print_readable(print_output=False).splitlines()[1:]
    code = [line.partition(";  ")[0] for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return textwrap.dedent("\n".join(code))


def make_graph(fn: Callable[..., Any]) -> Callable[..., Graph]:
    """Return a function that gives the program which `fn` runs on its arguments: a `Graph`, of torch's operations.

    Transforms inside have been carried out. Scopes that `named_scope` has named are in the nodes' `meta["custom"]`.

    It is one for tensors of these shapes, dtypes and devices, and for these values of all else: others are an error.

    Law: `make_graph(fn)(*args)(*args) == fn(*args)`.

    Raises:
        TransformError: `fn` needs the numbers: it branches on a value, or calls `.item()`.

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
        tensors = inputs.take(args)

        def flat(*values: Tensor) -> tuple[Tensor, ...]:
            given = inputs.put(values)
            watch = Watch("make_graph", fn, given)
            out = outputs.take(fn(*given))
            watch.check(own=is_fake)
            return out

        with numbers_refused("make_graph", fn):
            module = traced(flat, tensors, RealConstants())
        module.graph.eliminate_dead_code()
        module.recompile()
        return Graph(fn, args, module, outputs)

    return trace


def traced(flat: Callable[..., Any], tensors: Sequence[Tensor], mode: RealConstants) -> GraphModule:
    """Return the program that a function of tensors runs, with what is dead in it; `mode` sees each operation."""

    def run(*values: Tensor) -> Any:
        with mode, Indexing():
            return flat(*values)

    with traceback.preserve_node_meta():
        return fresh(trace(run, tensors), mode.written)


_NEEDS_NUMBERS = (
    "data-dependent", "DataDependentOutput", "guard on", "_local_scalar_dense", "non-constant bool",
    ".numpy() is not supported for tensor subclasses", "passed to FakeTensor.__format__",
)  # fmt: skip
_ADVICE = "choose with torch.where instead of a branch, and keep values as tensors instead of .item()"


@contextmanager
def numbers_refused(who: str, fn: Callable[..., Any], advice: str = _ADVICE) -> Iterator[None]:
    """Say of errors about a number that is not known what the function does, and what to do instead.

    Raises:
        TransformError: `fn` needs the number of a tensor, or mixes dtypes in an operation that needs one.
    """
    try:
        yield
    except DynamicOutputShapeException as error:
        raise TransformError(
            f"{who}: {describe_function(fn)}{user_line(error)} makes a tensor whose size depends on numbers: keep all "
            "entries, and choose with tp.where"
        ) from error
    except MixedDtypesError as error:
        raise TransformError(f"{who}: {describe_function(fn)}{user_line(error)} {error}") from error
    except Exception as error:
        if not any(sign in f"{type(error).__name__} {error}" for sign in _NEEDS_NUMBERS):
            known = explanation(who, fn, error) if isinstance(error, RuntimeError) else None
            if known is None:
                raise
            raise known from error
        does = validates(error) or f"needs the number of a tensor that has none here: {advice}"
        raise TransformError(f"{who}: {describe_function(fn)}{user_line(error)} {does}") from error


def named_scope(name: str) -> AbstractContextManager[Any]:
    """Name a part of a function: in profiles, and in the nodes of `make_graph`.

    Raises:
        TransformError: the name is no str.

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
