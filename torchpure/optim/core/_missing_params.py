"""What update rules get where parameters were not given: reading it is an error."""

from typing import Any, NoReturn

from torchpure._types import Params
from torchpure.errors import StructureError


def check_given(caller: str, params: Params) -> None:
    """Check that parameters are given, for a rule that always reads them.

    Raises:
        StructureError: they are None.
    """
    if params is None:
        _refuse(caller)


def _refuse(caller: str) -> NoReturn:
    raise StructureError(f"{caller}: the parameters are None: pass them, as in update(grads, state, params)")


class MissingParameter:
    """Stand for a parameter that was not given. Every operation on it raises StructureError."""

    def __init__(self, caller: str) -> None:
        """Take the name for the error."""
        self._caller = caller

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse methods and attributes of tensors."""
        _refuse(self._caller)

    def _operate(self, *others: Any) -> NoReturn:
        _refuse(self._caller)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _operate
    __matmul__ = __rmatmul__ = __pow__ = __rpow__ = __neg__ = __abs__ = __getitem__ = _operate
    __lt__ = __le__ = __gt__ = __ge__ = _operate

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> NoReturn:
        """Refuse functions of torch."""
        given = next(part for part in (*args, *(kwargs or {}).values()) if isinstance(part, cls))
        _refuse(given._caller)
