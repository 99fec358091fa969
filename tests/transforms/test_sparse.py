"""Captured sparse matrices: right, or an error that says so."""

import pytest
import torch

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
