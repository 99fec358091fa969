"""Run operations below the innermost levels, on the tensors of all members at once.

An operation on wrapped tensors passes through each level, at 5 to 10 microseconds a level. A rule that knows what the
levels would do takes the tensors out of them, and puts only its results in again.
"""

from types import TracebackType

from torch import Tensor

from torchpure._torch import DisableTorchFunction

from ._levels import functorch


class InnerLevels:
    """The innermost level, a forward derivative, and the vmap around it if there is one.

    Below them a tensor has one dimension for the members. Its size is one if the members share the tensor.
    """

    __slots__ = ("_forward", "_size", "_vmap")

    def __init__(self, forward: int, vmap: int | None, size: int) -> None:
        self._forward, self._vmap, self._size = forward, vmap, size

    def constant(self, leaf: Tensor) -> Tensor | None:
        """Return a tensor as it is below the levels; None if the members do not share it, or it has a tangent.

        A tensor of a lower level has no tangent of this one.
        """
        if not functorch.is_functorch_wrapped_tensor(leaf):
            return leaf
        level = functorch.maybe_get_level(leaf)
        return leaf if 0 <= level < min(self._forward, self._vmap or self._forward) else None

    def lower(self, leaf: Tensor, dim: int) -> Tensor | None:
        """Return a tensor without tangent as it is below the levels, with its members at `dim`; None if it is stale."""
        if functorch.is_gradtrackingtensor(leaf) and functorch.maybe_get_level(leaf) == self._forward:
            leaf = functorch.get_unwrapped(leaf)
        if not functorch.is_functorch_wrapped_tensor(leaf):
            return leaf.unsqueeze(dim)
        level = functorch.maybe_get_level(leaf)
        if level == self._vmap:
            return functorch.get_unwrapped(leaf).movedim(functorch.maybe_get_bdim(leaf), dim)
        return leaf.unsqueeze(dim) if 0 <= level < self._forward else None

    def lift(self, leaf: Tensor, dim: int) -> Tensor:
        """Return a tensor from below the levels as one member sees it."""
        if self._vmap is None or leaf.shape[dim] != self._size:
            return leaf.squeeze(dim)
        return functorch.add_batch_dim(leaf, dim, self._vmap)

    def left(self) -> "_Left":
        """Leave the levels, and all function modes, for a while."""
        return _Left(1 if self._vmap is None else 2)


class _Left:
    __slots__ = ("_count", "_layers", "_modes")

    def __init__(self, count: int) -> None:
        self._count = count

    def __enter__(self) -> None:
        self._modes = DisableTorchFunction()
        self._modes.__enter__()
        self._layers = [functorch.pop_dynamic_layer_stack() for _ in range(self._count)]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for layer in reversed(self._layers):
            functorch.push_dynamic_layer_stack(layer)
        self._modes.__exit__(kind, error, trace)


def inner_levels() -> InnerLevels | None:
    """Return the innermost levels; None if the innermost is no forward derivative."""
    stack = functorch.get_interpreter_stack()
    if not stack or stack[-1].key() != functorch.TransformType.Jvp:
        return None
    if len(stack) > 1 and stack[-2].key() == functorch.TransformType.Vmap:
        return InnerLevels(stack[-1].level(), stack[-2].level(), functorch.CVmapInterpreterPtr(stack[-2]).batchSize())
    return InnerLevels(stack[-1].level(), None, 1)
