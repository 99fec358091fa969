"""Type aliases for the arguments and results of public functions."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeAlias, TypeVar

from torch import Tensor

P = ParamSpec("P")  # the arguments of a transformed function
T = TypeVar("T")  # the result of the function, or a tree whose structure is kept
X = TypeVar("X")  # the input slices of a loop
Y = TypeVar("Y")  # the output slices of a loop
Tree: TypeAlias = Any  # nested dicts, lists, tuples, NamedTuples and registered nodes; None is an empty subtree
Params: TypeAlias = Tree  # dict[str, Tensor] by default; a tuple or a nested dict is accepted too
State: TypeAlias = dict[str, Tensor]  # the buffers of a module, by dotted name
Grads: TypeAlias = Tree  # like Params, with None for a leaf without a gradient
Updates: TypeAlias = Tree  # like Grads: these are added to the parameters
Key: TypeAlias = Tensor  # int64, shape (2,): two 32-bit words
Step: TypeAlias = Tensor  # float64, shape (): the number of updates made
Schedule: TypeAlias = Callable[[Step], Tensor]  # step -> value, shape ()
ScalarOrSchedule: TypeAlias = float | Tensor | Schedule
