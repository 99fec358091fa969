"""Gradients of a solution by the implicit function theorem (Blondel et al. 2022, arXiv:2105.15183, section 2.1).

A solution x of F(x, θ) = 0 has the derivative −(∂F/∂x)⁻¹ ∂F/∂θ. The backward pass
solves one linear system for each cotangent.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from torchpure.compat.torchopt import linear_solve, pytree
from torchpure.transforms import vjp

__all__ = ["custom_root"]

Function = Callable[..., Any]
_WHO = "custom_root(optimality_fn)(solver_fn)(*args)"


class _Problem(NamedTuple):
    solver_fn: Function
    optimality_fn: Function
    solve: Function
    argnums: tuple[int, ...]
    has_aux: bool
    signature: inspect.Signature  # resolves keyword arguments to the positions of the optimality function


def custom_root(
    optimality_fn: Function, argnums: int | tuple[int, ...], has_aux: bool = False, solve: Function | None = None
) -> Callable[[Function], Function]:
    """Give a solver implicit gradients with respect to the arguments `argnums`, which are tensors or tuples of them.

    `optimality_fn(solution, *args)` is zero at the solution; its first argument replaces the solver's first one, so
    `argnums` has no 0. `solve(matvec, b)` is a linear solver, by default `solve_normal_cg()`. With `has_aux` the
    solver returns (solution, anything). The gradient cannot be differentiated again: that is an error.

    >>> @custom_root(lambda x, a: x**2 - a, argnums=1)
    ... def square_root(x, a):
    ...     return a.sqrt()
    >>> a = torch.tensor(4.0, requires_grad=True)
    >>> torch.autograd.grad(square_root(torch.tensor(0.0), a), a)[0]
    tensor(0.2500)
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    assert 0 not in numbers
    linear = linear_solve.solve_normal_cg() if solve is None else solve

    def decorate(solver_fn: Function, reference_signature: inspect.Signature | Function | None = None) -> Function:
        problem = _Problem(
            solver_fn, optimality_fn, linear, numbers, has_aux, _signature(reference_signature, optimality_fn)
        )
        own = inspect.signature(solver_fn)

        @functools.wraps(solver_fn)
        def solver(*args: Any, **kwargs: Any) -> Any:
            bound = own.bind(*args, **kwargs)
            bound.apply_defaults()
            return _run(problem, bound.args, bound.kwargs)

        return solver

    return decorate


def _signature(given: inspect.Signature | Function | None, optimality_fn: Function) -> inspect.Signature:
    if isinstance(given, inspect.Signature):
        return given
    return inspect.signature(optimality_fn if given is None else getattr(given, "subfn", given))


def _run(problem: _Problem, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    chosen = [args[number] for number in problem.argnums if number < len(args)]
    for arg in chosen:
        if not isinstance(arg, Tensor) and not (isinstance(arg, tuple | list) and all(map(torch.is_tensor, arg))):
            raise RuntimeError(
                f"{_WHO}: argument of function solver_fn specified with `argnums` should be a torch.Tensor or a "
                f"tuple of "
                f"torch.Tensor. Got {type(arg).__name__}"
            )
    call = _Call(problem, args, kwargs)
    outputs = _Root.apply(call, *pytree.tree_leaves(chosen))
    solution = outputs[0] if call.is_tensor else tuple(outputs)
    return (solution, call.aux) if problem.has_aux else solution


class _Call:
    """One call of a solver: what its forward and backward passes share."""

    def __init__(self, problem: _Problem, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.problem, self.is_tensor, self.aux = problem, False, None
        self.args, self.kwargs = args, kwargs

    def solution(self) -> tuple[Tensor, ...]:
        """Run the solver, and forget its arguments' graphs."""
        output = self.problem.solver_fn(*self.args, **self.kwargs)
        if self.problem.has_aux:
            if not (isinstance(output, tuple) and len(output) == 2):
                raise RuntimeError(
                    f"{_WHO}: output of function solver_fn should be a tuple: (output, aux) if has_aux is True. "
                    f"Got {output}"
                )
            output, self.aux = output
        self.is_tensor = isinstance(output, Tensor)
        parts = (output,) if self.is_tensor else output
        if not (isinstance(parts, tuple) and all(map(torch.is_tensor, parts))):
            raise RuntimeError(
                f"{_WHO}: output of function solver_fn should be a torch.Tensor or a tuple of torch.Tensor. Got "
                f"{output}"
            )
        self.args, self.kwargs = pytree.tree_map(_detached, (self.args, self.kwargs), none_is_leaf=True)
        return tuple(part.detach() for part in parts)

    def gradient(self, solution: tuple[Tensor, ...], cotangents: tuple[Tensor, ...]) -> list[Tensor]:
        """Return the cotangents of the leaves of the chosen arguments."""
        problem, args = self.problem, self._optimality_args()

        def pack(parts: Any) -> Any:
            return parts[0] if self.is_tensor else parts

        def of_solution(parts: Any) -> Any:
            return problem.optimality_fn(pack(parts), *args)

        def of_chosen(*chosen: Any) -> Any:
            replaced = list(args)
            for number, value in zip(problem.argnums, chosen, strict=True):
                replaced[number - 1] = value
            return problem.optimality_fn(pack(solution), *replaced)

        transposed = vjp(of_solution, solution)[1]
        adjoint = problem.solve(lambda u: transposed(pack(u))[0], tuple(-cotangent for cotangent in cotangents))
        back = vjp(of_chosen, *(args[number - 1] for number in problem.argnums))[1]
        return pytree.tree_leaves(back(pack(adjoint)))

    def _optimality_args(self) -> tuple[Any, ...]:
        """Return the arguments after the solution, by the position that the optimality function gives them."""
        bound = self.problem.signature.bind(*self.args, **self.kwargs)
        if bound.kwargs:
            raise TypeError(
                f"keyword arguments to solver_fn could not be resolved to positional arguments based on the signature "
                f"{self.problem.signature}: got {sorted(bound.kwargs)}. Let optimality_fn name them"
            )
        return bound.args[1:]


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


class _Root(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *chosen: Tensor) -> tuple[Tensor, ...]:
        outputs = call.solution()
        ctx.call = call
        ctx.save_for_backward(*outputs)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:  # pyrefly: ignore[bad-override]
        with torch.enable_grad():
            solution = tuple(part.detach() for part in ctx.saved_tensors)
            return None, *map(_detached, ctx.call.gradient(solution, cotangents))
