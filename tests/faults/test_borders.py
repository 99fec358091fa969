"""torch's autograd, hooks and constructors inside of transforms: the right value, or one clear error."""

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
