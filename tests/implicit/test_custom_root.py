"""Derivatives of solutions against closed forms, under every transform."""

from functools import partial

import pytest
import torch

import torchpure as tp
from torchpure.errors import StructureError, TransformError
from torchpure.implicit import solve_cg, solve_gmres, solve_normal_cg

A = tp.random.normal(tp.random.key(0), (12, 4), dtype=torch.float64)
Y = tp.random.normal(tp.random.key(1), (12,), dtype=torch.float64)
RATE = torch.tensor(0.3, dtype=torch.float64)
SOLVERS = {"cg": solve_cg, "normal cg": solve_normal_cg, "gmres": solve_gmres}
close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


def _closed_form(rate, y=Y):
    return torch.linalg.solve(A.T @ A + rate * torch.eye(4, dtype=A.dtype), A.T @ y)


def _ridge(solve):
    loss = lambda w, rate, y: ((A @ w - y) ** 2).sum() / 2 + rate * (w**2).sum() / 2  # noqa: E731

    @tp.custom_root(tp.grad(loss), solve=solve)
    def fit(init, rate, y):
        return solve_cg(lambda v: A.T @ (A @ v) + rate * v, A.T @ y, init=init, tol=1e-14)

    return lambda rate, y=Y: fit(None, rate, y)


DERIVATIVES = {
    "value": lambda f: f(RATE),
    "jacrev": lambda f: tp.jacrev(f)(RATE),
    "jacfwd": lambda f: tp.jacfwd(f)(RATE),
    "jvp": lambda f: tp.jvp(f, (RATE,), (torch.ones_like(RATE),)),
    "vjp": lambda f: tp.vjp(f, RATE)[1](torch.ones(4, dtype=A.dtype)),
    "second, forward over reverse": lambda f: tp.hessian(lambda rate: (f(rate) ** 2).sum())(RATE),
    "second, reverse over reverse": lambda f: tp.grad(tp.grad(lambda rate: (f(rate) ** 2).sum()))(RATE),
    "third": lambda f: tp.grad(tp.grad(tp.grad(lambda rate: f(rate).sum())))(RATE),
    "both arguments": lambda f: tp.grad(lambda rate, y: (f(rate, y) ** 3).sum(), (0, 1))(RATE, Y),
    "vmap": lambda f: tp.vmap(f)(RATE * torch.arange(1, 4)),
    "vmap of grad": lambda f: tp.vmap(tp.grad(lambda rate: (f(rate) ** 2).sum()))(RATE * torch.arange(1, 4)),
    "grad of vmap": lambda f: tp.grad(lambda rates: (tp.vmap(f)(rates) ** 2).sum())(RATE * torch.arange(1, 4)),
    "vmap of hessian": lambda f: tp.vmap(tp.hessian(lambda rate: (f(rate) ** 2).sum()))(RATE * torch.arange(1, 3)),
}


FEW = ("jacrev", "jacfwd", "second, reverse over reverse", "vmap of grad")  # for the solvers that take longer


@pytest.mark.parametrize(("name", "solver"), [(n, s) for s in SOLVERS for n in DERIVATIVES if s == "cg" or n in FEW])
def test_the_derivatives_of_ridge_are_those_of_the_closed_form(name, solver):
    close(DERIVATIVES[name](_ridge(SOLVERS[solver])), DERIVATIVES[name](_closed_form))


@pytest.mark.compile
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_derivatives_are_those_of_the_closed_form_in_a_program(solver):
    loss = lambda f: tp.value_and_grad(lambda rate: (f(rate) ** 2).sum())  # noqa: E731
    close(tp.jit(loss(_ridge(SOLVERS[solver])))(RATE), loss(_closed_form)(RATE))
    rates = RATE * torch.arange(1, 4)
    close(tp.jit(tp.vmap(loss(_ridge(SOLVERS[solver]))))(rates), tp.vmap(loss(_closed_form))(rates))


def _kepler(init, mean, eccentricity):
    newton = lambda i, e: e - (e - eccentricity * e.sin() - mean) / (1 - eccentricity * e.cos())  # noqa: E731
    return tp.fori_loop(0, 30, newton, mean if init is None else init)


def test_a_fixed_point_is_a_root():
    mean, eccentricity = torch.tensor([1.1, 0.2]).double()
    step = lambda e, mean, eccentricity: mean + eccentricity * e.sin()  # noqa: E731
    by_point = tp.custom_fixed_point(step)(_kepler)
    by_root = tp.custom_root(lambda e, *args: step(e, *args) - e)(_kepler)
    e = _kepler(None, mean, eccentricity)
    slope = 1 - eccentricity * e.cos()
    for solver in (by_point, by_root):
        close(tp.grad(solver, (1, 2))(None, mean, eccentricity), (1 / slope, e.sin() / slope))
        close(tp.grad(tp.grad(solver, 1), 1)(None, mean, eccentricity), -eccentricity * e.sin() / slope**3)


@pytest.mark.parametrize("solve", [solve_normal_cg, solve_gmres])
def test_a_system_that_is_not_symmetric_has_the_right_derivatives(solve):
    matrix = torch.tensor([[2.0, 5.0, 0.0], [0.0, 1.0, -3.0], [1.0, 0.0, 4.0]]).double()
    b = torch.tensor([1.0, -2.0, 0.5]).double()
    exact = torch.linalg.solve
    fit = tp.custom_root(lambda x, matrix, b: matrix @ x - b, solve=solve)(lambda _, matrix, b: exact(matrix, b))
    close(tp.jacrev(lambda *args: fit(None, *args), (0, 1))(matrix, b), tp.jacrev(exact, (0, 1))(matrix, b))
    second = lambda f: tp.hessian(lambda m: (f(m, b) ** 2).sum())(matrix)  # noqa: E731
    torch.testing.assert_close(second(lambda *args: fit(None, *args)), second(exact), rtol=1e-8, atol=1e-8)


def test_solutions_are_trees_and_arguments_may_be_anything():
    def equations(x, target, *, power, factor):
        return {"a": x["a"] ** power - target["a"], "b": (factor * x["b"] - target["b"],)[0]}

    @tp.custom_root(equations, has_aux=True)
    def solver(init, target, *, power, factor):
        return {"a": target["a"] ** (1 / power), "b": target["b"] / factor}, (target["a"] * 1, "words")

    target = {"a": torch.tensor(8.0).double(), "b": torch.tensor([1.0, 2.0]).double()}
    x, aux = solver(None, target, power=3, factor=RATE)
    close(x, {"a": torch.tensor(2.0).double(), "b": target["b"] / RATE})
    assert aux[1] == "words"
    total = lambda target, factor: tp.tree.ravel(solver(None, target, power=3, factor=factor)[0])[0].sum()  # noqa: E731
    grads, by_factor = tp.grad(total, (0, 1))(target, RATE)
    close(grads, {"a": torch.ones(()).double() / 12, "b": torch.ones(2).double() / RATE})
    close(by_factor, -3 / RATE**2)


def test_the_auxiliary_value_and_the_start_are_constants():
    fit = tp.custom_root(lambda x, a: x - a, has_aux=True)(lambda init, a: (a + 0 * init, a * 2))
    assert tp.grad(lambda a: fit(a, a)[1])(RATE) == 0
    assert tp.grad(lambda init: fit(init, RATE)[0])(RATE) == 0


def test_the_solver_itself_is_not_differentiated():
    records = []

    @tp.custom_root(lambda x, a: x**2 - a)
    def solver(init, a):
        records.append(a.requires_grad)
        return a.sqrt()

    tp.grad(lambda a: solver(None, a))(RATE)
    assert records == [False]


def test_captures_that_a_transform_follows_are_refused():
    def outer(a):
        return tp.custom_root(lambda x: x - a)(lambda init: a * 1)(None)

    with pytest.raises(TransformError, match=r"custom_root: .* captures .*a.*Pass it as an argument"):
        tp.grad(outer)(RATE)


def test_wrong_functions_are_refused():
    with pytest.raises(TransformError, match="custom_root"):
        tp.custom_root(3)
    with pytest.raises(TransformError, match="solver"):
        tp.custom_root(lambda x: x)(3)
    with pytest.raises(TransformError, match=r"must return \(x, aux\), got a float64 tensor"):
        tp.custom_root(lambda x, a: x - a, has_aux=True)(lambda init, a: a)(None, RATE)
    with pytest.raises(TransformError, match="must return real floating point tensors, got an int32 tensor"):
        tp.custom_root(lambda x, a: x - a)(lambda init, a: a.int())(None, RATE)
    bad = tp.custom_root(lambda x, a: (x - a).expand(2))(lambda init, a: a * 1)
    with pytest.raises(TransformError, match=r"value like the solution: at .* wanted .* shape \(\), got .* \(2,\)"):
        tp.grad(lambda a: bad(None, a))(RATE)
    with pytest.raises(StructureError, match=r"custom_fixed_point: .* its value against x: trees differ"):
        tp.grad(tp.custom_fixed_point(lambda x, a: (x, a))(lambda init, a: a * 1), 1)(None, RATE)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_derivative_at_a_singular_root_is_not_a_number(solver):
    root = tp.custom_root(lambda x, a: x**2 - a, solve=SOLVERS[solver])(lambda init, a: a.sqrt())
    assert tp.grad(root, 1)(None, torch.zeros(())).isnan()
