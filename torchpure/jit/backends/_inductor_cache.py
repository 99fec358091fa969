"""Keep the output code of inductor on disk, so that another process need not generate it again.

Inductor takes tens of seconds for a step of a transformer, nearly all of it in Python, and its own cache unpickles. But
its output code is a Python module that contains the kernels as C++. If torch wraps nothing around the function in that
module, then the module is the whole program.
"""

import operator
from collections.abc import Callable, Sequence
from importlib.abc import InspectLoader
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure._cpp import find_file, key_of, store_file
from torchpure._torch import OpOverload

from ._inductor_formulas import VERSION

_TORCH_NAMESPACES = frozenset({"aten", "prims"})
_MODULE_NAME = "torchpure_program"
Boxed = Callable[[list[Tensor]], Sequence[Any]]


class _TextLoader(InspectLoader):
    """Load a module from its text only: no compiled file beside it is read or written."""

    def __init__(self, text: str) -> None:
        self._text = text

    def get_source(self, fullname: str) -> str:
        """Return the text."""
        return self._text


def program_key(module: GraphModule, tensors: Sequence[Tensor], options: dict[str, Any]) -> str | None:
    """Return a hash of everything that inductor's output depends on; None if the program's text does not show it all.

    Raises:
        CompilerError: there is no C++ compiler.
    """
    if not all(map(_is_torch_operation, module.graph.nodes)) or any(leaf.device.type != "cpu" for leaf in tensors):
        return None
    likes = [f"{leaf.dtype} {tuple(leaf.shape)} {leaf.stride()}" for leaf in tensors]
    text = "\n".join([module.graph.python_code("self").src, *likes, repr(sorted(options.items())), *_settings()])
    return key_of(text, options["cpp.cxx"][1])


def _is_torch_operation(node: Node) -> bool:
    """Tell whether a node's text says all: an operation of torch, applied to values of the program."""
    if node.op != "call_function":
        return node.op in {"placeholder", "output"}
    if node.target is operator.getitem:
        return True
    return isinstance(node.target, OpOverload) and node.target.namespace in _TORCH_NAMESPACES


def _settings() -> list[str]:
    """List what inductor reads besides the program."""
    from torchpure._torch import compiler_config

    return [
        VERSION,
        str(torch.version.git_version),
        str(torch.get_num_threads()),
        torch.backends.cpu.get_cpu_capability(),
        torch.get_float32_matmul_precision(),
        str(torch.get_default_dtype()),
        str(torch.are_deterministic_algorithms_enabled()),
        str(torch.backends.mkldnn.enabled),
        compiler_config.functorch_config.get_hash().hex(),
        compiler_config.inductor_config.get_hash().hex(),
    ]


def load(key: str, options: dict[str, Any]) -> tuple[Boxed, str] | None:
    """Return the cached function and its text. The function takes a list of tensors and empties it."""
    from torchpure._torch import compiler_config

    file = find_file(key, ".py")
    if file is None:
        return None
    loader = _TextLoader(file.read_text())
    module = ModuleType(_MODULE_NAME)
    with compiler_config.inductor_config.patch(options):
        loader.exec_module(module)
    return module.call, loader.get_source(_MODULE_NAME)


def save(key: str, graphs: Sequence[Any], tensors: Sequence[Tensor], meta: Any) -> None:
    """Store the output code, if it is the whole program. `meta` is torch's metadata about the results."""
    if len(graphs) != 1 or not _is_self_contained(graphs[0]) or not _returns_outputs_directly(meta, len(tensors)):
        return
    text = graphs[0].source_code
    store_file(key, ".py", lambda made: made.write_text(text))


def _is_self_contained(graph: Any) -> bool:
    extra_objects = (
        graph.constants,
        graph.torchbind_constants,
        graph.frozen_param_names,
        graph.opaque_value_type_classes,
    )
    return bool(graph.source_code) and not any(extra_objects) and set(graph.device_types) == {"cpu"}


def _returns_outputs_directly(meta: Any, count: int) -> bool:
    """Tell whether the generated function returns the results itself, and takes all tensors.

    For inputs, and views of inputs, torch makes new views around the function. Only gradients need these: the generated
    function returns inputs and views too.
    """
    from torchpure._torch.inductor import OutputType

    plain = {OutputType.non_alias, OutputType.unsafe_view_alias, OutputType.is_input, OutputType.alias_of_input}
    return (
        meta is not None
        and len(meta.input_info) == count
        and all(out.output_type in plain and issubclass(out.raw_type, Tensor | type(None)) for out in meta.output_info)
        and not any(
            (
                meta.num_mutated_inp_runtime_indices,
                meta.num_intermediate_bases,
                meta.tokens,
                meta.is_rng_op_functionalized,
                meta.num_graphsafe_rng_states,
            )
        )
    )
