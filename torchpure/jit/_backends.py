"""Which backend compiles a program: the native one, parts around loops, or inductor."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor
from torch.fx import GraphModule

from ._disk import CompilerError, library
from ._nodes import has_loops


class Program(Protocol):
    """A compiled program: a function of tensors, and the code that was generated for it."""

    source: str

    def __call__(self, *tensors: Tensor) -> Sequence[Any]:
        """Run it."""
        ...


def compiled(module: GraphModule, tensors: Sequence[Tensor]) -> Program:
    """Compile a program for tensors like these.

    Raises:
        CompilerError: there is no C++ compiler that works.
    """
    tensors = [leaf.detach() for leaf in tensors]  # a tracer takes one tensor that is given twice for one input
    return _native(module, tensors) or without_native(module, tensors)


def _native(module: GraphModule, tensors: Sequence[Tensor]) -> Program | None:
    from .native import compiled

    try:
        return compiled(module, tensors, library)
    except FileNotFoundError as error:
        raise CompilerError(f"jit: {error}.") from error


def without_native(module: GraphModule, tensors: Sequence[Tensor]) -> Program:
    """Compile a program for tensors like these, by inductor.

    Raises:
        CompilerError: there is no C++ compiler that works.
    """
    from . import _inductor, _segments  # they call this module, and take long to import

    return (_segments if has_loops(module) else _inductor).compiled(module, tensors)
