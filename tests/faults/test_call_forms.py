"""Calls as NumPy's users write them, and products whose parts leave the range of floats."""

import pytest
import torch
from torch.testing import assert_close

import torchpure as tp

pytestmark = pytest.mark.faults
X = torch.tensor([[[1.0, 2.0], [3.0, 5.0]], [[0.0, 0.0], [0.0, 0.0]]])  # the second member is constant, and zero
CALLS = {
    "vector_norm over no dimension": lambda x: torch.linalg.vector_norm(x, dim=()),
    "std, axis": lambda x: torch.std(x, axis=0),
    "std, axis and keepdims": lambda x: x.std(axis=0, keepdims=True),
    "std_mean, axis": lambda x: torch.std_mean(x, axis=0),
    "prod, axis": lambda x: torch.prod(x, axis=0),
    "vector_norm, axis": lambda x: torch.linalg.vector_norm(x, axis=1, keepdims=True),
}
DERIVED = {
    "vmap": tp.vmap,
    "vmap jacrev": lambda f: tp.vmap(tp.jacrev(f)),
    "vmap jacfwd": lambda f: tp.vmap(tp.jacfwd(f)),
    "graph": lambda f: lambda x: tp.make_graph(tp.vmap(f))(x)(x),
}


@pytest.mark.parametrize("transform", DERIVED)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_has_the_shape_of_torch(name, transform):
    f = CALLS[name]
    wanted = tp.tree.map(lambda *leaves: torch.stack(leaves), *(f(x) for x in X))
    got = DERIVED[transform](f)(X)
    if "jac" not in transform:
        assert_close(got, wanted)
    shapes = tp.tree.map(lambda leaf: torch.empty(*leaf.shape, *(X.shape[1:] if "jac" in transform else ())), wanted)
    assert [leaf.shape for leaf in tp.tree.leaves(got)] == [leaf.shape for leaf in tp.tree.leaves(shapes)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_call_in_half_precision_keeps_its_dtype(dtype):
    assert_close(tp.vmap(CALLS["std, axis"])(X.to(dtype)), torch.stack([x.to(dtype).std(0) for x in X]))


@pytest.mark.parametrize("factors", [[1e-22, 1e-22, 1e30], [1e-20, 1e-20, 3e-5, 1e38], [1e30, 1e-30, 1e30, 1e-25]])
@pytest.mark.parametrize("transform", [tp.grad, lambda f: lambda x: tp.vmap(tp.grad(f))(x[None])[0]])
def test_the_gradient_of_a_product_whose_partial_products_are_denormal(factors, transform):
    x = torch.tensor(factors)
    wanted = torch.stack([torch.cat([x[:i], x[i + 1 :]]).double().prod() for i in range(len(x))])
    # the product of two factors is rounded too: 1e-40 has five digits in float32
    assert_close(transform(torch.prod)(x).double(), wanted, rtol=1e-5, atol=1e-44)
