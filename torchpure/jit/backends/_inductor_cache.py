"""What inductor writes around the kernels of a program, on disk: another process need not write it again.

Inductor takes tens of seconds for a step of a transformer, nearly all of it in Python, and its own cache unpickles. But
what it writes is a Python module, with its kernels as C++; where torch puts nothing around the function in it, that
module is all there is of a program.
"""

import operator
from collections.abc import Callable, Sequence
from importlib.abc import InspectLoader
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from torchpure._torch import OpOverload

from ._disk_cache import keep, kept, key_of

_TORCHS = frozenset({"aten", "prims"})
_NAME = "torchpure_program"
Boxed = Callable[[list[Tensor]], Sequence[Any]]


class _Text(InspectLoader):
    """Loads a module from its text alone: no compiled file beside it is read or written."""

    def __init__(self, text: str) -> None:
        self._text = text

    def get_source(self, fullname: str) -> str:
        """Return the text."""
        return self._text


def program_key(module: GraphModule, tensors: Sequence[Tensor], options: dict[str, Any]) -> str | None:
    """Name all that inductor makes a program of; None where that is not written down in the program.

    Raises:
        CompilerError: there is no C++ compiler.
    """
    if not all(map(_is_torchs, module.graph.nodes)) or any(leaf.device.type != "cpu" for leaf in tensors):
        return None
    likes = [f"{leaf.dtype} {tuple(leaf.shape)} {leaf.stride()}" for leaf in tensors]
    text = "\n".join([module.graph.python_code("self").src, *likes, repr(sorted(options.items())), *_settings()])
    return key_of(text, options["cpp.cxx"][1])


def _is_torchs(node: Node) -> bool:
    """Tell whether a node is written down as text: an operation of torch's own, of values in the program."""
    if node.op != "call_function":
        return node.op in {"placeholder", "output"}
    if node.target is operator.getitem:
        return True
    return isinstance(node.target, OpOverload) and node.target.namespace in _TORCHS


def _settings() -> list[str]:
    """List what inductor reads besides a program."""
    from torchpure._torch import compiler_config

    return [
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
    """Return the function of a list of tensors, which it empties, that was kept under this key, and its text."""
    from torchpure._torch import compiler_config

    file = kept(key, ".py")
    if file is None:
        return None
    loader = _Text(file.read_text())
    module = ModuleType(_NAME)
    with compiler_config.inductor_config.patch(options):
        loader.exec_module(module)
    return module.call, loader.get_source(_NAME)


def save(key: str, graphs: Sequence[Any], tensors: Sequence[Tensor], meta: Any) -> None:
    """Keep what inductor wrote, if it is the whole program; `meta` is what torch found out about its results."""
    if len(graphs) != 1 or not _is_whole(graphs[0]) or not _is_plain(meta, len(tensors)):
        return
    text = graphs[0].source_code
    keep(key, ".py", lambda made: made.write_text(text))


def _is_whole(graph: Any) -> bool:
    held = (graph.constants, graph.torchbind_constants, graph.frozen_param_names, graph.opaque_value_type_classes)
    return bool(graph.source_code) and not any(held) and set(graph.device_types) == {"cpu"}


def _is_plain(meta: Any, count: int) -> bool:
    """Tell whether a compiled function gives the results as they are, and takes all tensors.

    Of inputs and views of them torch makes new views, which matters to gradients alone: the function returns them too.
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
