"""The types that torchopt's annotations use."""

from collections.abc import Callable, Sequence
from typing import Any, Dict, List, Optional, Protocol, Tuple, TypeAlias, TypeVar, Union, runtime_checkable  # noqa: UP035

import torch
from optree.typing import PyTree, PyTreeTypeVar
from torch import Tensor
from torch.distributed import rpc
from torch.distributions import Distribution
from torch.futures import Future

from .base import ChainedGradientTransformation, EmptyState, GradientTransformation, UninitializedState

__all__ = [
    "ChainedGradientTransformation",
    "Device",
    "Distribution",
    "EmptyState",
    "Future",
    "GradientTransformation",
    "LinearSolver",
    "ListOfOptionalTensors",
    "ListOfTensors",
    "ModuleTensorContainers",
    "Numeric",
    "OptState",
    "OptionalTensor",
    "OptionalTensorOrOptionalTensors",
    "OptionalTensorTree",
    "Params",
    "PyTree",
    "RRef",
    "Samplable",
    "SampleFunc",
    "Scalar",
    "ScalarOrSchedule",
    "Schedule",
    "SequenceOfOptionalTensors",
    "SequenceOfTensors",
    "Size",
    "Tensor",
    "TensorContainer",
    "TensorOrTensors",
    "TensorTree",
    "TupleOfOptionalTensors",
    "TupleOfTensors",
    "UninitializedState",
    "Updates",
]

T = TypeVar("T")
# typing's own generics, not list and | : a program may compare them with torchopt's, or ask for their __origin__
Device: TypeAlias = Union[torch.device, str, int]  # noqa: UP007
Scalar: TypeAlias = Union[float, int, bool]  # noqa: UP007
Numeric: TypeAlias = Union[Tensor, Scalar]  # noqa: UP007
Schedule: TypeAlias = Callable[[Numeric], Numeric]
ScalarOrSchedule: TypeAlias = Union[float, Schedule]  # noqa: UP007
OptionalTensor: TypeAlias = Optional[Tensor]  # noqa: UP045
ListOfTensors: TypeAlias = List[Tensor]  # noqa: UP006
TupleOfTensors: TypeAlias = Tuple[Tensor, ...]  # noqa: UP006
SequenceOfTensors: TypeAlias = Sequence[Tensor]
TensorOrTensors: TypeAlias = Union[Tensor, SequenceOfTensors]  # noqa: UP007
ListOfOptionalTensors: TypeAlias = List[OptionalTensor]  # noqa: UP006
TupleOfOptionalTensors: TypeAlias = Tuple[OptionalTensor, ...]  # noqa: UP006
SequenceOfOptionalTensors: TypeAlias = Sequence[OptionalTensor]
OptionalTensorOrOptionalTensors: TypeAlias = Union[OptionalTensor, SequenceOfOptionalTensors]  # noqa: UP007
TensorContainer: TypeAlias = Dict[str, OptionalTensor]  # noqa: UP006
ModuleTensorContainers: TypeAlias = Tuple[TensorContainer, ...]  # noqa: UP006
TensorTree: Any = PyTreeTypeVar("TensorTree", Tensor)  # trees of tensors, which no annotation can say exactly
OptionalTensorTree: Any = PyTreeTypeVar("OptionalTensorTree", OptionalTensor)
Params: Any = TensorTree
Updates: Any = TensorTree
OptState: Any = TensorTree
RRef: Any = rpc.RRef if rpc.is_available() else None
LinearSolver: TypeAlias = Callable[[Callable[[Any], Any], Any], Any]
Size = torch.Size
SampleFunc: TypeAlias = Callable[[Size], Union[Tensor, Sequence[Numeric]]]  # noqa: UP007


@runtime_checkable
class Samplable(Protocol):
    """What can draw samples: torch's distributions, or a class with this method."""

    def sample(self, sample_shape: Size = Size()) -> Tensor | Sequence[Numeric]:  # noqa: B008
        """Draw a sample of this shape."""
        raise NotImplementedError
