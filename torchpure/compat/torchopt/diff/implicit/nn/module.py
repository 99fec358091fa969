"""Modules that solve for their parameters, and pass implicit gradients to their meta-parameters."""

import functools
import inspect
from typing import Any

from torch import Tensor

from torchpure.compat.torchopt.diff.implicit.decorator import custom_root
from torchpure.compat.torchopt.modules import MetaGradientModule, reparametrize, swap_state
from torchpure.compat.torchopt.typing import LinearSolver
from torchpure.transforms import grad

__all__ = ["ImplicitMetaGradientModule"]


class ImplicitMetaGradientModule(MetaGradientModule):
    """A module whose `solve` finds parameters that minimize `objective`, or that are a root of `optimality`.

    After `solve`, the parameters depend on the meta-parameters, with implicit gradients (iMAML: Rajeswaran et al. 2019,
    arXiv:1909.04630). A subclass defines `solve`, and one of `objective` (a scalar) and `optimality` (a tensor for each
    parameter). It may name a linear solver: `class Net(ImplicitMetaGradientModule, linear_solve=...)`.

    >>> import torch
    >>> class Ridge(ImplicitMetaGradientModule):
    ...     def __init__(self, center):
    ...         super().__init__()
    ...         self.center, self.x = center, torch.nn.Parameter(torch.tensor(0.0))
    ...     def objective(self):
    ...         return (self.x - 2 * self.center) ** 2
    ...     def solve(self):
    ...         self.x.data.copy_(2 * self.center.detach())
    ...         return self
    >>> center = torch.tensor(1.0, requires_grad=True)
    >>> torch.autograd.grad(Ridge(center).solve().x, center)[0]
    tensor(2.)
    """

    _custom_optimality: bool
    _custom_objective: bool
    linear_solve: LinearSolver | None

    def __init_subclass__(cls, linear_solve: LinearSolver | None = None) -> None:
        """Check the methods, and give `solve` its implicit gradients.

        Raises:
            TypeError: there is neither `optimality` nor `objective`, or it is no plain method.
        """
        super().__init_subclass__()
        cls.linear_solve = linear_solve
        cls._custom_optimality = _is_custom(cls, "optimality")
        cls._custom_objective = _is_custom(cls, "objective")
        if cls._custom_optimality:
            _check_method(cls, "optimality")
        elif cls._custom_objective:
            _check_method(cls, "objective")
            cls.optimality = _gradient_of_objective
        else:
            raise TypeError(
                "ImplicitMetaGradientModule requires either an optimality() method or an objective() method"
            )
        enable_implicit_gradients(cls)

    def solve(self, *input: Any, **kwargs: Any) -> Any:
        """Find the parameters, and put them into the module.

        Raises:
            NotImplementedError: the subclass has none.
        """
        raise NotImplementedError

    def optimality(self, *input: Any, **kwargs: Any) -> Any:
        """Return what is zero at the solution, a tensor for each parameter.

        Raises:
            NotImplementedError: the subclass has neither this nor `objective`.
        """
        raise NotImplementedError

    def objective(self, *input: Any, **kwargs: Any) -> Tensor:
        """Return what the solution minimizes.

        Raises:
            NotImplementedError: the subclass has none.
        """
        raise NotImplementedError


def _is_custom(cls: type, name: str) -> bool:
    base = inspect.getattr_static(ImplicitMetaGradientModule, name)
    method = inspect.getattr_static(cls, name)
    return method is not base and method is not _gradient_of_objective


def _check_method(cls: type, name: str) -> None:
    method = inspect.getattr_static(cls, name)
    for kind in (staticmethod, classmethod):
        if isinstance(method, kind):
            raise TypeError(f"method {name}() must not be a {kind.__name__}.")
    if not callable(method):
        raise TypeError(f"method {name}() must be callable.")


def _named(module: MetaGradientModule) -> tuple[Any, Any]:
    """Return the names and tensors of the parameters, and of the meta-parameters."""
    found = []
    for kind, pairs in (("parameters", module.named_parameters()), ("meta-parameters", module.named_meta_parameters())):
        named = dict(pairs)
        if not named:
            raise RuntimeError(f"The module has no {kind}.")
        found.append((tuple(named), tuple(named.values())))
    return found[0], found[1]


def _gradient_of_objective(self: Any, *input: Any, **kwargs: Any) -> Any:
    (names, params), _ = _named(self)

    def objective(values: Any) -> Tensor:
        with reparametrize(self, zip(names, values, strict=True)):
            return self.objective(*input, **kwargs)

    return grad(objective)(params)


def enable_implicit_gradients(cls: Any) -> Any:
    """Wrap the `solve` of a class.

    Raises:
        TypeError: it is wrapped already.
    """
    solve = cls.solve
    if getattr(solve, "__implicit_gradients_enabled__", False):
        raise TypeError("Implicit gradients are already enabled for the `solve` method.")

    @functools.wraps(solve)
    def solver(self: Any, *input: Any, **kwargs: Any) -> Any:
        (names, params), (meta_names, meta_params) = _named(self)

        def optimality(values: Any, meta_values: Any) -> Any:
            tensors = dict(zip(names + meta_names, (*values, *meta_values), strict=True))
            with reparametrize(self, tensors):
                return self.optimality(*input, **kwargs)

        @custom_root(optimality, argnums=1, has_aux=True, solve=cls.linear_solve)
        def solution(values: Any, meta_values: Any) -> Any:
            output = solve(self, *input, **kwargs)
            return tuple(param.detach_() for param in self.parameters()), output

        found, output = solution(params, meta_params)
        swap_state(self, zip(names, found, strict=True))
        return output

    solver.__implicit_gradients_enabled__ = True  # pyrefly: ignore[missing-attribute]
    cls.solve = solver
    return cls
