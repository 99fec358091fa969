"""A program whose operations run one after another, as torch's own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from torchpure.transforms.tracing import program_text


class InterpretedProgram:
    """A program whose operations run one after another, as torch's own.

    Inductor knows no complex numbers, and what it makes of programs with them is wrong in places: the gradient of a
    gradient through `linalg.eig` came out with other numbers. And it lays memory out in its own way:
    `as_strided_scatter` on memory that does not lie row by row wrote to other places. And it reads an element of an
    empty tensor without a word, where torch raises an error.
    """

    def __init__(self, module: GraphModule) -> None:
        self._module, self.source = module, program_text(module)

    def __call__(self, *tensors: Tensor) -> Sequence[Any]:
        """Run it."""
        with torch.no_grad():
            return self._module(*tensors)
