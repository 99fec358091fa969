"""Which backend compiles a program: the native one, parts around loops, or inductor."""

from collections.abc import Sequence

from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure import tree
from torchpure.jit.passes import has_loops, value

from ._disk_cache import CompilerError, library
from ._interpreted import OneByOne
from ._protocol import Program


def _is_complex(node: Node) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.is_complex() for leaf in tree.leaves(value(node)))


def _by_strides(node: Node) -> bool:
    """Tell whether an operation reads strides of memory that does not lie row by row."""
    if "as_strided" not in str(node.target):
        return False
    like = value(node.all_input_nodes[0])
    return not like.is_contiguous() or bool(like.storage_offset())


def _needs_torch(node: Node) -> bool:
    from torchpure.jit.native.frontend import picks_of_nothing, takes_complex_numbers

    return _is_complex(node) or _by_strides(node) or picks_of_nothing(node) or takes_complex_numbers(node)


def compiled(module: GraphModule, tensors: Sequence[Tensor]) -> Program:
    """Compile a program for tensors like these.

    Raises:
        CompilerError: there is no C++ compiler that works.
    """
    return native(module, tensors) or without_native(module, tensors)


def native(module: GraphModule, tensors: Sequence[Tensor]) -> Program | None:
    """Compile a program for tensors like these to C++ that runs on one thread; None where that cannot be.

    Raises:
        CompilerError: there is no C++ compiler that works.
    """
    from torchpure.jit.native import compiled

    try:
        return compiled(module, [leaf.detach() for leaf in tensors], library)
    except FileNotFoundError as error:
        raise CompilerError(f"jit: {error}.") from error


def without_native(module: GraphModule, tensors: Sequence[Tensor]) -> Program:
    """Compile a program for tensors like these, by inductor.

    Raises:
        CompilerError: there is no C++ compiler that works.
    """
    from . import _inductor
    from . import _segmented as _segments  # which take long to import

    tensors = [leaf.detach() for leaf in tensors]  # a tracer takes one tensor that is given twice for one input
    if not has_loops(module) and any(map(_needs_torch, module.graph.nodes)):
        return OneByOne(module)
    return (_segments if has_loops(module) else _inductor).compiled(module, tensors, compiled)
