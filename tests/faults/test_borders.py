"""torch's autograd, hooks and constructors inside of transforms: the right value, or one clear error."""

import copy

import pytest
import torch
from torch.autograd.graph import register_multi_grad_hook
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import TransformError

pytestmark = pytest.mark.faults
X = torch.tensor([1.0, 2.0])


def rows(y):
    (g,) = torch.autograd.grad(y**3, y, torch.eye(2), is_grads_batched=True)
    return (g * g).sum()


def test_a_batch_of_seeds():
    assert_close(tp.grad(rows)(X), 36 * X**3)
    for transform in (tp.hessian, tp.jacrev, lambda f: tp.vmap(f), lambda f: tp.grad(lambda y: tp.grad(f)(y).sum())):
        with pytest.raises(TransformError, match="is_grads_batched, .*: call it once for each row, or use tp.jacrev"):
            transform(rows)(X)


HOOKS = {
    "tensor": lambda z: z.register_hook(lambda g: g * 10),
    "node": lambda z: z.grad_fn.register_hook(lambda ins, outs: (ins[0] * 10,)),
    "before a node": lambda z: z.grad_fn.register_prehook(lambda outs: (outs[0] * 10,)),
    "several": lambda z: register_multi_grad_hook((z,), lambda grads: None),
}


@pytest.mark.parametrize("name", HOOKS)
def test_hooks(name):
    def f(y):
        z = y**2
        HOOKS[name](z)
        return z.sum()

    factor = 1 if name == "several" else 10
    for transform in (tp.grad, tp.jacrev, lambda f: lambda x: tp.vmap(tp.grad(f))(x[None])[0]):
        assert_close(transform(f)(X), factor * 2 * X)
    assert_close(tp.hessian(f)(X), factor * 2 * torch.eye(2))
    for call in (lambda: tp.vmap(f)(X[None]), lambda: tp.jvp(f, (X,), (X,)), lambda: tp.jit(f)(X)):
        with pytest.raises(TransformError, match="registers a hook on a tensor that has no gradient of its own there"):
            call()


DERIVATIVES = {
    "grad": lambda f: tp.grad(f)(X),
    "vjp": lambda f: tp.vjp(f, X)[1](torch.tensor(1.0))[0],
    "jacfwd": lambda f: tp.jacfwd(f)(X),
    "vmap": lambda f: tp.vmap(tp.grad(f))(X[None])[0],
    "jit": lambda f: tp.jit(tp.grad(f))(X),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_new_tensors_of_tensors(name):
    for make in (lambda p: p.new([p[0], p[1]]), lambda p: p.new(p), lambda p: p.new_tensor([p[0], p[1]])):
        assert_close(DERIVATIVES[name](lambda p, make=make: (make(p) * p).sum()), 2 * X)
    with pytest.raises(TransformError):
        DERIVATIVES[name](lambda p: (torch.FloatTensor([p[0], p[1]]) * p).sum())


@pytest.mark.parametrize("name", DERIVATIVES)
def test_a_shallow_copy_is_refused(name):
    with pytest.raises(TransformError, match=r"as copy.deepcopy does: copy it with .clone\(\)"):
        DERIVATIVES[name](lambda p: (copy.copy(p) * p).sum())


def test_a_shallow_copy_of_a_constant():
    assert_close(tp.grad(lambda p: (copy.copy(X) * p).sum())(X), X)


PLACES = torch.tensor([[0, 1]])
ROWS, COLUMNS = torch.tensor([0, 1, 2]), torch.tensor([0, 1])
SPARSE = {
    "coo": lambda p: torch.sparse_coo_tensor(PLACES, p**2, (2,)).to_dense().sum(),
    "values": lambda p: torch.sparse_coo_tensor(PLACES, p**2, (2,)).coalesce().values().sum(),
    "csr": lambda p: torch.sparse_csr_tensor(ROWS, COLUMNS, p**2, (2, 2)).to_dense().sum(),
    "to_sparse": lambda p: (p**2).to_sparse().to_dense().sum(),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("name", DERIVATIVES)
@pytest.mark.parametrize("made", SPARSE)
def test_a_sparse_tensor_of_a_variable(name, made):
    if name == "grad" or (name, made) in {("vjp", "coo"), ("vjp", "values"), ("vjp", "to_sparse")}:
        assert_close(DERIVATIVES[name](SPARSE[made]), 2 * X)
        return
    with pytest.raises(
        TransformError,
        match="captures or makes a sparse tensor, .* use its .to_dense|has no forward derivative in torch",
    ):
        DERIVATIVES[name](SPARSE[made])


@pytest.mark.parametrize("made", ["coo", "to_sparse"])
def test_a_program_that_makes_a_sparse_tensor(made):
    assert_close(tp.jit(SPARSE[made])(X), (X**2).sum())
