"""Linear solvers without a matrix, against torch.linalg."""

import pytest
import torch

import torchpure as tp
from torchpure.errors import StructureError, TransformError
from torchpure.implicit import solve_cg, solve_gmres, solve_normal_cg

SOLVERS = {"cg": solve_cg, "normal cg": solve_normal_cg, "gmres": solve_gmres}
N = 30
RANDOM = tp.random.normal(tp.random.key(3), (N, N), dtype=torch.float64)
B = tp.random.normal(tp.random.key(4), (N,), dtype=torch.float64)
SYMMETRIC = RANDOM @ RANDOM.T / N + torch.eye(N).double()


@pytest.mark.parametrize("name", SOLVERS)
def test_a_symmetric_system(name):
    found = SOLVERS[name](lambda v: SYMMETRIC @ v, B)
    torch.testing.assert_close(found, torch.linalg.solve(SYMMETRIC, B), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["normal cg", "gmres"])
def test_a_system_that_is_not_symmetric(name):
    matrix = RANDOM / N + torch.diag(torch.linspace(1, 3, N)).double()
    found = SOLVERS[name](lambda v: matrix @ v, B)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, B), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", SOLVERS)
def test_members_of_a_batch_and_float32(name):
    bs = torch.stack([B, 2 * B.flip(0), 0 * B])
    exact = torch.linalg.solve(SYMMETRIC, bs.T).T
    found = tp.vmap(lambda b: SOLVERS[name](lambda v: SYMMETRIC @ v, b))(bs)
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-9)
    single = SOLVERS[name](lambda v: SYMMETRIC.float() @ v, bs[0].float())
    assert single.dtype == torch.float32 and (single - exact[0]).abs().max() < 1e-4


@pytest.mark.parametrize("name", SOLVERS)
def test_ridge_start_tolerance_and_number_of_steps(name):
    identity = torch.eye(N).double()
    product = lambda v: SYMMETRIC @ v  # noqa: E731
    shifted = SYMMETRIC @ SYMMETRIC + 0.5 * identity if name == "normal cg" else SYMMETRIC + 0.5 * identity
    right = SYMMETRIC @ B if name == "normal cg" else B
    exact = torch.linalg.solve(shifted, right)
    torch.testing.assert_close(SOLVERS[name](product, B, 0.5), exact, rtol=1e-8, atol=1e-9)
    assert torch.equal(SOLVERS[name](product, B, 0.5, exact), exact)
    few = {"restart": 5} if name == "gmres" else {}
    loose, tight = (SOLVERS[name](product, B, tol=tol, **few) for tol in (1e-1, 1e-12))
    residual = lambda x: (product(x) - B).norm()  # noqa: E731
    assert residual(tight) < 1e-9 < 1e-3 < residual(loose)
    assert residual(SOLVERS[name](product, B, maxiter=1)) < residual(torch.zeros_like(B))


@pytest.mark.parametrize("name", SOLVERS)
def test_trees_zero_right_hand_sides_and_complete_spaces(name):
    b = {"w": torch.tensor([[2.0, 4.0]]), "b": (torch.tensor(6.0),)}
    found = SOLVERS[name](lambda v: tp.tree.scale(v, 2.0), b)
    torch.testing.assert_close(found, {"w": torch.tensor([[1.0, 2.0]]), "b": (torch.tensor(3.0),)})
    assert torch.equal(SOLVERS[name](lambda v: 3 * v, torch.zeros(3)), torch.zeros(3))


def test_gmres_restarts():
    matrix = RANDOM / N + torch.diag(torch.linspace(1, 3, N)).double()
    found = solve_gmres(lambda v: matrix @ v, B, restart=5)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, B), rtol=1e-8, atol=1e-9)


def test_wrong_arguments_are_refused():
    with pytest.raises(TransformError, match="solve_cg: maxiter must be an int of at least 1, or None, got 0"):
        solve_cg(lambda v: v, B, maxiter=0)
    with pytest.raises(TransformError, match="solve_cg: tol must be at least 0, or None, got -1"):
        solve_cg(lambda v: v, B, tol=-1)
    with pytest.raises(TransformError, match="solve_normal_cg: matvec must be a function, got a float64"):
        solve_normal_cg(SYMMETRIC, B)
    with pytest.raises(TransformError, match="solve_gmres: restart must be an int of at least 1, got 0"):
        solve_gmres(lambda v: v, B, restart=0)
    with pytest.raises(TransformError, match="real floating point tensors only, got an int64 tensor .* at `n`"):
        solve_cg(lambda v: v, {"n": torch.arange(3)})
    with pytest.raises(StructureError, match="solve_cg: the result of matvec against b: trees differ"):
        solve_cg(lambda v: (v, v), B)
    with pytest.raises(TransformError, match="matvec must keep the shapes of b: 30 numbers became 60"):
        solve_cg(lambda v: torch.cat([v, v]), B)
