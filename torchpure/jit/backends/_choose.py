"""Choose the backend that compiles a program.

In this order: the native generator; Python loops around compiled parts, for programs with loops; the interpreter, for
programs that inductor computes wrongly; inductor; the interpreter, if inductor fails.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure import tree
from torchpure._cpp import CompilerError, compiler_command, load_library
from torchpure.errors import InputError
from torchpure.jit.passes import fake_value, has_control_flow, placeholders

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
    from torchpure.jit.native.frontend import has_complex_argument, has_sparse_tensor, selects_from_empty

    if getattr(node.target, "_opname", "") == "index_add" and fake_value(node).dtype == torch.bool:
        return True  # inductor's rule multiplies bools
    if getattr(node.target, "_opname", "") in {"mkldnn_rnn_layer", "_ctc_loss", "linalg_lstsq"}:
        return True  # inductor does not know the sizes of all results
    is_refused = selects_from_empty(node) or has_complex_argument(node) or has_sparse_tensor(node)
    return _is_complex(node) or _reads_strides(node) or is_refused


def compile_program(module: GraphModule, tensors: Sequence[Tensor]) -> CompiledProgram:
    """Compile a program for tensors like these.

    Raises:
        CompilerError: there is no working C++ compiler.
    """
    made = compile_native(module, tensors)
    return compile_without_native(module, tensors, made) if isinstance(made, str) else made


def compile_native(
    module: GraphModule, tensors: Sequence[Tensor], donated: Mapping[int, int] | None = None
) -> "NativeProgram | str":
    """Compile a program to C++, or return the reason why the generator cannot.

    `donated` maps an output to an input whose memory it may take.

    Raises:
        CompilerError: there is no working C++ compiler.
    """
    from torchpure.jit.native import UnsupportedError, compile_cpp

    if any(placeholder.device.type != "cpu" for placeholder in map(fake_value, placeholders(module))):
        return "an input is not on the CPU"
    try:
        return compile_cpp(module, [leaf.detach() for leaf in tensors], load_library, donated)
    except UnsupportedError as error:
        return str(error)
    except FileNotFoundError as error:
        raise CompilerError(f"jit: {error}.") from error
    except InputError:  # a setting of the cache
        raise
    except CompilerError as error:
        if not _compiler_works():
            raise
        return _failed("the C++ compiler", error)
    except Exception as error:
        return _failed("the native generator", error)


def _compiler_works() -> bool:
    try:
        load_library('extern "C" int run() { return 0; }\n', compiler_command(), "run")
    except CompilerError:
        return False
    return True


def compile_without_native(module: GraphModule, tensors: Sequence[Tensor], reason: str) -> CompiledProgram:
    """Compile a program for tensors like these, with any backend but the native generator.

    `reason` says why the generator does not compile it; the program keeps it. If inductor fails, torch's operations
    run one after another, and a warning says so.

    Raises:
        CompilerError: there is no working C++ compiler.
    """
    from . import _inductor
    from . import _segmented as _segments  # slow to import

    tensors = [leaf.detach() for leaf in tensors]  # tracers merge inputs that are the same tensor object
    if has_control_flow(module):
        made: CompiledProgram = _segments.compile_program(module, tensors, compile_program)
    elif any(map(_needs_torch, module.graph.nodes)):
        made = InterpretedProgram(module)
        reason = (
            f"{reason}; inductor computes complex numbers, sums of bools, strides, elements of empty tensors and "
            "results of unknown size wrongly"
        )
    else:
        try:
            made = _inductor.compile_program(module, tensors, compile_program)
        except CompilerError:
            raise
        except Exception as error:
            made, reason = InterpretedProgram(module), f"{reason}; {_failed('inductor', error)}"
    made.reason = reason
    return made


def _failed(compiler: str, error: Exception) -> str:
    """Warn that a compiler failed, and return the reason for the program that runs instead."""
    what = f"{compiler} failed with {type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.300}"
    warnings.warn(
        f"jit: {what}. This is a fault of the compiler: the program is right, but slower, since another backend runs "
        "it. `print(jit(f).lower(…))` shows the program, for a report",
        stacklevel=2,
    )
    return what
