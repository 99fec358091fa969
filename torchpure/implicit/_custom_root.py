"""Implicit differentiation of solvers (Blondel et al. 2022, arXiv:2105.15183), with the calling form of jaxopt."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms import custom_vjp, describe_function, grad, stop_gradient
from torchpure.transforms.calls import check_callable
from torchpure.transforms.engine import is_variable
from torchpure.transforms.rules import refuse_captures

from ._conjugate_gradient import solve_normal_cg
from ._linear_system import MatVec

Solve = Callable[[MatVec, Tree], Tree]
Residual = Callable[[Tree, Tree], Tree]  # (solution, inputs) -> zero at the solution
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def custom_root(
    optimality_fun: Callable[..., Tree], has_aux: bool = False, solve: Solve = solve_normal_cg
) -> Decorator:
    """Decorate a solver, so that its derivatives are those of the root of `optimality_fun`.

    The solver is `solver(init, *args, **kwargs) -> x` with `optimality_fun(x, *args, **kwargs) = 0`, a tree like x.
    With `has_aux` it returns (x, aux), and aux is a constant. It may do anything that the transforms around it allow,
    and is never differentiated. A derivative costs one linear system in ∂F/∂x, solved by `solve(matvec, b)`: `solve_cg`
    for a minimum (symmetric), `solve_normal_cg` or `solve_gmres` otherwise. `init` has derivative zero. What the
    derivatives shall reach must be in the arguments.

    Law: `jacobian(solver) = −(∂F/∂x)⁻¹ ∂F/∂args`, forward, backward and to every order.

    Raises:
        TransformError: a function captures a tensor that a transform follows, `optimality_fun` changes a shape, or the
            solution has another leaf than a real floating point tensor.
        StructureError: the value of `optimality_fun` has another structure than the solution.

    >>> import torch
    >>> from torchpure import grad
    >>> @custom_root(lambda x, a: x**2 - a)
    ... def root(init, a):
    ...     return a.sqrt()
    >>> grad(lambda a: root(None, a))(torch.tensor(4.0))
    tensor(0.2500)
    """
    return _decorator(
        "custom_root", optimality_fun, lambda x, args, kwargs: optimality_fun(x, *args, **kwargs), has_aux, solve
    )


def custom_fixed_point(
    fixed_point_fun: Callable[..., Tree], has_aux: bool = False, solve: Solve = solve_normal_cg
) -> Decorator:
    """Decorate a solver, so that its derivatives are those of the fixed point of `fixed_point_fun`.

    The solver is `solver(init, *args, **kwargs) -> x` with `fixed_point_fun(x, *args, **kwargs) = x`. All else is as in
    `custom_root`.

    Law: `custom_fixed_point(T)` is `custom_root` of T(x, …) − x.

    Raises:
        TransformError: as in `custom_root`.
        StructureError: as in `custom_root`.

    >>> import torch
    >>> from torchpure import fori_loop, grad
    >>> @custom_fixed_point(lambda x, a: (x + a / x) / 2)
    ... def root(init, a):
    ...     return fori_loop(0, 20, lambda i, x: (x + a / x) / 2, init)
    >>> grad(root, 1)(torch.tensor(1.0), torch.tensor(4.0))
    tensor(0.2500)
    """

    def residual(x: Tree, args: Tree, kwargs: Tree) -> Tree:
        out = fixed_point_fun(x, *args, **kwargs)
        tree.check_same(x, out, caller=f"custom_fixed_point: {describe_function(fixed_point_fun)}: its value against x")
        return tree.sub(out, x)

    return _decorator("custom_fixed_point", fixed_point_fun, residual, has_aux, solve)


def _decorator(
    caller: str, fn: Callable[..., Tree], residual: Callable[..., Tree], has_aux: bool, solve: Solve
) -> Decorator:
    check_callable(caller, fn)
    check_callable(f"{caller}: solve", solve)

    def checked(x: Tree, inputs: Tree) -> Tree:
        out = residual(x, *inputs)
        _check_residual(caller, fn, x, out)
        return out

    attach = _implicit(checked, solve)

    def decorate(solver: Callable[..., Any]) -> Callable[..., Any]:
        check_callable(f"{caller}: the solver", solver)

        @wraps(solver, updated=())
        def differentiable_solver(init: Tree, *args: Tree, **kwargs: Any) -> Any:
            refuse_captures(caller, fn, solver)
            start, constants, named = stop_gradient((init, args, kwargs))
            result = solver(start, *constants, **named)
            if has_aux and (not isinstance(result, tuple) or len(result) != 2):
                raise TransformError(
                    f"{caller}: {describe_function(solver)} must return (x, aux), got {tree.describe(result)}"
                )
            x, aux = result if has_aux else (result, None)
            _check_solution(caller, solver, x)
            x = attach(stop_gradient(x), (args, kwargs))
            return (x, stop_gradient(aux)) if has_aux else x

        return differentiable_solver

    return decorate


def _check_solution(caller: str, solver: Callable[..., Any], x: Tree) -> None:
    for path, leaf in zip(tree.paths(x), tree.leaves(x), strict=True):
        if not is_variable(leaf) or leaf.is_complex():
            raise TransformError(
                f"{caller}: {describe_function(solver)} must return real floating point tensors, got "
                f"{tree.describe(leaf)} at `{path}`: return it as aux, with has_aux=True"
            )


def _check_residual(caller: str, fn: Callable[..., Tree], x: Tree, out: Tree) -> None:
    """Check that the function has as many values as there are unknowns."""
    tree.check_same(x, out, caller=f"{caller}: {describe_function(fn)}: its value against the solution")
    for path, wanted, got in zip(tree.paths(x), tree.leaves(x), tree.leaves(out), strict=True):
        if not isinstance(got, Tensor) or wanted.shape != got.shape:
            raise TransformError(
                f"{caller}: {describe_function(fn)} must return a value like the solution: at `{path}` wanted "
                f"{tree.describe(wanted)}, got {tree.describe(got)}"
            )


def _implicit(residual: Residual, solve: Solve) -> Callable[[Tree, Tree], Tree]:
    """Return `attach(x, inputs)`: the constant x, with the derivatives of the root of `residual(x, inputs)`.

    The adjoint λ is itself the root of the linear residual (∂F/∂x)ᵀλ − u. So it is attached in the same way, and every
    order of derivatives follows. No derivative ever runs through a solver.
    """

    @custom_vjp
    def attach(x: Tree, inputs: Tree) -> Tree:
        return x

    def forward(x: Tree, inputs: Tree) -> tuple[Tree, Tree]:
        return x, (x, inputs)

    def backward(residuals: Tree, cotangent: Tree) -> tuple[None, Tree]:
        x, inputs = residuals
        x = attach(stop_gradient(x), inputs)
        system = (cotangent, x, inputs)
        right, *constants = stop_gradient(system)
        found = stop_gradient(solve(partial(_transposed, residual, *constants), right))
        adjoint = _implicit(partial(_adjoint_residual, residual), solve)(found, system)
        return None, _pull(lambda inputs: residual(x, inputs), inputs, tree.scale(adjoint, -1.0))

    attach.defvjp(forward, backward)
    return attach


def _transposed(residual: Residual, x: Tree, inputs: Tree, cotangent: Tree) -> Tree:
    return _pull(lambda x: residual(x, inputs), x, cotangent)


def _pull(fn: Callable[[Tree], Tree], at: Tree, cotangent: Tree) -> Tree:
    """Return cotangent · ∂fn: as a gradient, whose level is open while it is computed, under any transform."""
    return grad(lambda at: tree.dot(fn(at), cotangent))(at)


def _adjoint_residual(residual: Residual, adjoint: Tree, system: Tree) -> Tree:
    cotangent, x, inputs = system
    return tree.sub(_transposed(residual, x, inputs, adjoint), cotangent)
