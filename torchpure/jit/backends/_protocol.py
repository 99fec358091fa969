"""What backends make, and what makes it."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor
from torch.fx import GraphModule


class CompiledProgram(Protocol):
    """A compiled program: a function of tensors, and the code that was generated for it."""

    source: str

    def __call__(self, *tensors: Tensor) -> Sequence[Any]:
        """Run it."""
        ...


Compile = Callable[[GraphModule, Sequence[Tensor]], CompiledProgram]  # a program for tensors like these
