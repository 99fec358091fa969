"""Captured sparse matrices: right, or an error that says so. Embeddings with sparse gradients: these are dense."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torchpure as tp
from torchpure.errors import TransformError

DENSE = torch.sin(torch.arange(10.0)).reshape(2, 5)
X = torch.linspace(-1, 1, 5)
SPARSE = {"coo": torch.Tensor.to_sparse, "csr": torch.Tensor.to_sparse_csr}
CALLS = {
    "grad": lambda f: tp.grad(lambda x: f(x).sum())(X),
    "vjp": lambda f: tp.vjp(f, X)[1](torch.ones(2))[0],
    "jvp": lambda f: tp.jvp(f, (X,), (X,))[1],
    "jacfwd": lambda f: tp.jacfwd(f)(X),
    "jit": lambda f: tp.jit(f)(X),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("layout", SPARSE)
def test_a_captured_sparse_matrix_is_right_or_refused(layout, call):
    matrix = SPARSE[layout](DENSE)
    want = (call, layout) == ("vjp", "coo") or call == "grad"
    if want:
        torch.testing.assert_close(CALLS[call](lambda x: matrix @ x), DENSE.sum(0))
        return
    with pytest.raises(
        TransformError, match=rf"^{call}: .* captures or makes a sparse tensor, .* use its .to_dense\(\)"
    ):
        CALLS[call](lambda x: matrix @ x)


WORDS = torch.tensor([[[0, 2], [2, 1]], [[3, 0], [1, 1]]])
WEIGHT = torch.sin(torch.arange(15.0)).reshape(5, 3)
EMBEDDINGS = {
    "embedding": lambda w, i, sparse: F.embedding(i, w, sparse=sparse),
    "by position": lambda w, i, sparse: F.embedding(i, w, 1, None, 2.0, False, sparse),
    "torch.embedding": lambda w, i, sparse: torch.embedding(w, i, -1, False, sparse),
    "bag of sums": lambda w, i, sparse: F.embedding_bag(i, w, mode="sum", sparse=sparse),
    "bag of means": lambda w, i, sparse: F.embedding_bag(i, w, sparse=sparse),
    "torch.embedding_bag": lambda w, i, sparse: torch.embedding_bag(
        w, i.reshape(-1), torch.tensor([0, 2]), False, 0, sparse
    )[0],
    "scaled bag": lambda w, i, sparse: F.embedding_bag(i, w, mode="sum", scale_grad_by_freq=True, sparse=sparse),
}
EMBEDDED = {
    "grad": lambda f: tp.grad(f)(WEIGHT, WORDS[0]),
    "value_and_grad": lambda f: tp.value_and_grad(f)(WEIGHT, WORDS[0])[1],
    "vmap(grad)": lambda f: tp.vmap(tp.grad(f), in_dims=(None, 0))(WEIGHT, WORDS),
    "grad(vmap)": lambda f: tp.grad(lambda w: tp.vmap(f, in_dims=(None, 0))(w, WORDS).sum())(WEIGHT),
    "vjp": lambda f: tp.vjp(lambda w: f(w, WORDS[0]), WEIGHT)[1](torch.tensor(1.0))[0],
    "jacrev": lambda f: tp.jacrev(f)(WEIGHT, WORDS[0]),
    "hessian": lambda f: tp.hessian(f)(WEIGHT, WORDS[0]),
    "grad(grad)": lambda f: tp.grad(lambda w: tp.grad(f)(w, WORDS[0]).square().sum())(WEIGHT),
    "scan": lambda f: tp.grad(lambda w: tp.scan(lambda c, i: (c + f(w, i), None), w.sum() * 0, WORDS)[0])(WEIGHT),
    "remat": lambda f: tp.grad(tp.remat(f))(WEIGHT, WORDS[0]),
}


FIRST_DERIVATIVE = {"torch.embedding_bag", "scaled bag"}  # torch has no other, and maps none
CASES = [(name, call) for name in EMBEDDINGS for call in EMBEDDED if name not in FIRST_DERIVATIVE or call == "grad"]


@pytest.mark.parametrize(("name", "call"), CASES)
def test_the_gradient_of_a_sparse_embedding_is_dense(name, call):
    def loss(sparse):
        return lambda w, i: (EMBEDDINGS[name](w, i, sparse) ** 3).sum()

    torch.testing.assert_close(EMBEDDED[call](loss(True)), EMBEDDED[call](loss(False)))


@pytest.mark.parametrize("layer", [nn.Embedding(5, 3, sparse=True), nn.EmbeddingBag(5, 3, sparse=True)])
def test_an_optimizer_takes_the_gradient_of_a_sparse_layer(layer):
    net, adam = tp.functional(layer), tp.optim.adam(0.1)
    dense = tp.functional(type(layer)(5, 3))

    def step(net):
        grads = tp.grad(lambda p: (net(p, WORDS[0]) ** 3).sum())({"weight": WEIGHT})
        return adam.update(grads, adam.init({"weight": WEIGHT}), {"weight": WEIGHT})[0]

    torch.testing.assert_close(step(net), step(dense))


def test_outside_of_transforms_a_sparse_embedding_is_torchs_own():
    w = WEIGHT.clone().requires_grad_()
    F.embedding(WORDS, w, sparse=True).sum().backward()
    assert w.grad.is_sparse
