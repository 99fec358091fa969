"""`stop_gradient`: values as constants."""

from torch import Tensor

from torchpure import tree
from torchpure._types import T


def stop_gradient(values: T) -> T:
    """Return the same values as constants: every derivative through them is zero, in both modes.

    >>> import torch
    >>> from torchpure import grad
    >>> grad(lambda x: x * stop_gradient(x))(torch.tensor(3.0))
    tensor(3.)
    """
    return tree.map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, values)
