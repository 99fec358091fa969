"""The names of the things that go in and out of functions."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeAlias, TypeVar

from torch import Tensor

P = ParamSpec("P")  # the arguments of a function that is transformed
T = TypeVar("T")  # what it returns, or a tree that comes back in its own structure
X = TypeVar("X")  # the slices that a loop takes
Y = TypeVar("Y")  # and those that it gives
Tree: TypeAlias = Any  # a nest of dicts, lists, tuples, NamedTuples and registered nodes; None is an empty subtree
Params: TypeAlias = Tree  # dict[str, Tensor] by default; a tuple or a nested dict is accepted too
State: TypeAlias = dict[str, Tensor]  # the buffers of a module, by dotted name
Grads: TypeAlias = Tree  # as Params, with None where a leaf has no gradient
Updates: TypeAlias = Tree  # as Grads: what is added to the parameters
Key: TypeAlias = Tensor  # int64, shape (2,): two 32-bit words
Step: TypeAlias = Tensor  # float64, shape (): how many updates were made
Schedule: TypeAlias = Callable[[Step], Tensor]  # step -> a value, shape ()
ScalarOrSchedule: TypeAlias = float | Tensor | Schedule
