"""The interpreter backend: run the operations of a program one after another, with torch's own kernels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from torchpure.transforms.tracing import program_text


class InterpretedProgram:
    """A program whose operations run one after another, with torch's own kernels.

    Programs run here if inductor fails, and if it computes them wrongly:

    - Complex numbers: the gradient of a gradient through `linalg.eig` had wrong numbers.
    - Strides of memory that is not row-major: `as_strided_scatter` wrote to wrong places.
    - Elements of empty tensors: inductor reads memory out of range, where torch raises an error.
    """

    def __init__(self, module: GraphModule) -> None:
        self._module, self.source, self.reason = module, program_text(module), ""

    def __call__(self, *tensors: Tensor) -> Sequence[Any]:
        """Run the program."""
        with torch.no_grad():
            return self._module(*tensors)
