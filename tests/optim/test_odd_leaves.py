"""Gradients and parameters of other layouts, dtypes and sizes: the right step, or an error that names the path."""

import pytest
import torch
from cases import OPTIMIZERS
from torch.testing import assert_close

from torchpure import optim
from torchpure.errors import StructureError
from torchpure.testing._case import Problem, advance

X = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
DENSE = torch.tensor([[2.0, 0.0], [1.0, 0.0]])


def stepped(name, params, grads):
    optimizer = OPTIMIZERS[name].make()
    problem = Problem(lambda params: torch.tensor(1.0), lambda params: grads, lambda: params)
    state = optimizer.init(params)
    for _ in range(2):
        params, state = advance(optimizer, problem, params, state)
    return params


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sparse_gradients_are_right_or_refused(name, layout):
    try:
        found = stepped(name, {"w": X}, {"w": layout(DENSE)})
    except StructureError as error:
        assert "the gradient at `w` is sparse (torch.sparse_c" in str(error) and "with .to_dense()" in str(error)
    else:
        assert_close(found, stepped(name, {"w": X}, {"w": DENSE}))


@pytest.mark.parametrize(
    "leaf", [torch.tensor([1, 2]), torch.tensor([True]), torch.zeros(0, 3), None, 3.0, torch.zeros(0)]
)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_leaves_without_numbers_to_change(name, leaf):
    grad = torch.zeros_like(leaf) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else None
    found, wanted = stepped(name, {"w": X, "n": leaf}, {"w": X, "n": grad}), stepped(name, {"w": X}, {"w": X})
    assert found["n"] is leaf if grad is None else found["n"].shape == leaf.shape
    assert found["w"].isfinite().all() and found["w"].shape == wanted["w"].shape


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_gradient_at_all(name):
    assert_close(stepped(name, {"w": X}, {"w": None}), {"w": X})


WRONG = {
    "complex for real": (X, torch.complex(X, X)),
    "integers for floats": (X, X.long()),
    "a gradient of integers": (torch.tensor([1, 2]), torch.tensor([1, 1])),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", ["adam", "lion", "soap", "galore", "adafactor", "lbfgs", "kron", "muon", "prodigy"])
def test_dtypes_that_do_not_fit(name, kind):
    leaf, gradient = WRONG[kind]
    try:
        found = stepped(name, {"w": leaf}, {"w": gradient})
    except StructureError as error:
        assert "the gradient at `w` is a" in str(error)
    else:
        assert kind == "integers for floats"
        assert_close(found, stepped(name, {"w": leaf}, {"w": gradient.float()}))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_real_gradient_of_a_complex_parameter(name):
    leaf = torch.complex(X, X)
    try:
        found = stepped(name, {"w": leaf}, {"w": X})
    except StructureError as error:
        assert "the gradient at `w` is a float32 tensor of shape (2, 2), the parameter a complex64" in str(error)
    else:
        assert found["w"].shape == leaf.shape and found["w"].dtype == leaf.dtype


@pytest.mark.parametrize("pair", [(X, torch.complex(X, X)), (X.long(), X)])
def test_updates_that_a_parameter_cannot_hold(pair):
    with pytest.raises(
        StructureError, match="^apply_updates: an update is a .*: give None as the gradient of integers"
    ):
        optim.apply_updates(*pair)
