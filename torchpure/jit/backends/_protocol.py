"""What every backend returns, and the type of a function that compiles."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor
from torch.fx import GraphModule


class CompiledProgram(Protocol):
    """A compiled program: a function of tensors, with the code that was generated for it."""

    source: str
    reason: str  # why the native generator did not compile it; empty if it did

    def __call__(self, *tensors: Tensor) -> Sequence[Any]:
        """Run the program."""
        ...


Compile = Callable[
    [GraphModule, Sequence[Tensor]], CompiledProgram
]  # (program, tensors like the inputs) -> compiled program
