"""What operators are in a program, how some decompose, and how to write one that takes functions."""

from torch._C import DispatchKey as DispatchKey
from torch._C import DispatchKeySet as DispatchKeySet
from torch._C import _AutoDispatchBelowAutograd as AutoDispatchBelowAutograd
from torch._C import _dispatch_has_kernel_for_dispatch_key as has_kernel
from torch._C._dynamo.guards import TensorGuards as TensorGuards
from torch._decomp import core_aten_decompositions as core_aten_decompositions
from torch._decomp import get_decompositions as get_decompositions
from torch._library.utils import is_impure as is_impure
from torch._ops import HigherOrderOperator as HigherOrderOperator
from torch._ops import OpOverload as OpOverload
from torch._ops import OpOverloadPacket as OpOverloadPacket
