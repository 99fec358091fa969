"""The names of the things that go in and out of functions."""

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor

Tree: TypeAlias = Any  # a nest of dicts, lists, tuples, NamedTuples and registered nodes; None is an empty subtree
Params: TypeAlias = Tree  # dict[str, Tensor] by default; a tuple or a nested dict is accepted too
State: TypeAlias = dict[str, Tensor]  # the buffers of a module, by dotted name
Grads: TypeAlias = Tree  # as Params, with None where a leaf has no gradient
Updates: TypeAlias = Tree  # as Grads: what is added to the parameters
Key: TypeAlias = Tensor  # int64, shape (2,): two 32-bit words
Step: TypeAlias = Tensor  # float64, shape (): how many updates were made
Schedule: TypeAlias = Callable[[Step], Tensor]  # step -> rate, shape ()
Rate: TypeAlias = float | Tensor | Schedule
