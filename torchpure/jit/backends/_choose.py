"""Choose the backend that compiles a program.

In this order: the native generator; Python loops around compiled parts, for programs with loops; the interpreter, for
programs that inductor computes wrongly; inductor.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure import tree
from torchpure.jit.passes import fake_value, has_control_flow

from ._disk_cache import CompilerError, build_library
from ._interpreted import InterpretedProgram
from ._protocol import CompiledProgram

if TYPE_CHECKING:
    from torchpure.jit.native import NativeProgram


def _is_complex(node: Node) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.is_complex() for leaf in tree.leaves(fake_value(node)))


def _reads_strides(node: Node) -> bool:
    """Tell whether an operation depends on the strides of memory that is not row-major from its start."""
    if "as_strided" not in str(node.target):
        return False
    like = fake_value(node.all_input_nodes[0])
    return not like.is_contiguous() or bool(like.storage_offset())


def _needs_torch(node: Node) -> bool:
    from torchpure.jit.native.frontend import has_complex_argument, selects_from_empty

    return _is_complex(node) or _reads_strides(node) or selects_from_empty(node) or has_complex_argument(node)


def compile_program(module: GraphModule, tensors: Sequence[Tensor]) -> CompiledProgram:
    """Compile a program for tensors like these.

    Raises:
        CompilerError: there is no working C++ compiler.
    """
    return compile_native(module, tensors) or compile_without_native(module, tensors)


def compile_native(
    module: GraphModule, tensors: Sequence[Tensor], donated: Mapping[int, int] | None = None
) -> "NativeProgram | None":
    """Compile a program to C++; None if the generator does not support it.

    `donated` maps an output to an input whose memory it may take.

    Raises:
        CompilerError: there is no working C++ compiler.
    """
    from torchpure.jit.native import compile_cpp

    try:
        return compile_cpp(module, [leaf.detach() for leaf in tensors], build_library, donated)
    except FileNotFoundError as error:
        raise CompilerError(f"jit: {error}.") from error


def compile_without_native(module: GraphModule, tensors: Sequence[Tensor]) -> CompiledProgram:
    """Compile a program for tensors like these, with any backend but the native generator.

    Raises:
        CompilerError: there is no working C++ compiler.
    """
    from . import _inductor
    from . import _segmented as _segments  # slow to import

    tensors = [leaf.detach() for leaf in tensors]  # tracers merge inputs that are the same tensor object
    if not has_control_flow(module) and any(map(_needs_torch, module.graph.nodes)):
        return InterpretedProgram(module)
    return (_segments if has_control_flow(module) else _inductor).compile_program(module, tensors, compile_program)
