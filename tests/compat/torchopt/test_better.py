"""Where torchopt is wrong: its result beside ours."""

import pytest
import torch

import torchpure.compat.torchopt as ours

theirs = pytest.importorskip("torchopt")
F64 = torch.float64
pytestmark = pytest.mark.filterwarnings("ignore:We've integrated functorch:FutureWarning")  # of torchopt


def first_update(library, name, **options):
    optimizer = getattr(library, name)(**options)
    grads = (torch.ones(2, 2), torch.ones(2))
    params = (torch.ones(2, 2), torch.ones(2))
    return optimizer.update(grads, optimizer.init(params), params=params, inplace=False)[0]


def test_bias_correction_is_in_float64():
    errors = []
    for library in (ours, theirs):
        optimizer, grad = library.adam(1.0, eps=0.0), (torch.tensor([0.3], dtype=F64),)
        state = optimizer.init(grad)
        for _ in range(7):
            updates, state = optimizer.update(grad, state, inplace=False)
        errors.append((updates[0] + 1).abs().item())
    assert errors[0] < 1e-14 and errors[1] > 1e-8


@pytest.mark.parametrize("name", ["adam", "rmsprop", "adagrad"])
def test_meta_gradients_at_a_zero_gradient_are_finite(name):
    found = []
    for library in (ours, theirs):
        optimizer = library.FuncOptimizer(getattr(library, name)(0.1))
        w = torch.zeros(2, requires_grad=True)
        moved = optimizer.step((w**2).sum(), (w,))[0]
        found.append(torch.autograd.grad(moved.sum(), w)[0])
    assert found[0].isfinite().all() and found[1].isnan().any()


def test_masks_of_adamw_select_the_leaves_that_decay():
    masked = first_update(ours, "adamw", weight_decay=0.5, mask=lambda p: [leaf.ndim != 1 for leaf in p])
    as_tree = first_update(ours, "adamw", weight_decay=0.5, mask=(True, False))
    decayed, plain = first_update(ours, "adamw", weight_decay=0.5), first_update(ours, "adamw", weight_decay=0.0)
    for updates in (masked, as_tree):
        torch.testing.assert_close(updates, (decayed[0], plain[1]))
    with pytest.raises(AttributeError, match="MaskedNode"):
        first_update(theirs, "adamw", weight_decay=0.5, mask=lambda p: [leaf.ndim != 1 for leaf in p])


def test_centered_rmsprop_of_constant_gradients_is_finite():
    for library, finite in ((ours, True), (theirs, False)):
        optimizer, grad = library.rmsprop(centered=True), (torch.tensor([1.1, 0.3, -0.7]),)
        state = optimizer.init(grad)
        for _ in range(3000):
            updates, state = optimizer.update(grad, state, inplace=False)
        assert updates[0].isfinite().all().item() is finite


@pytest.mark.parametrize("name", ["radam", "adamax"])
def test_a_leaf_without_gradient_stays(name):
    for library, stays in ((ours, True), (theirs, False)):
        optimizer, params = getattr(library, name)(1.0), (torch.ones(1), torch.ones(1))
        _, state = optimizer.update(params, optimizer.init(params), inplace=False)
        updates, _ = optimizer.update((torch.ones(1), None), state, inplace=False)
        assert (updates[1] is None) is stays


def test_a_second_run_with_dampening_is_like_the_first():
    for library, alike in ((ours, True), (theirs, False)):
        optimizer, one = library.sgd(1.0, momentum=0.9, dampening=0.5), (torch.ones(1),)
        first, second = (optimizer.update(one, optimizer.init(one), inplace=False)[0][0] for _ in range(2))
        assert torch.equal(first, second) is alike


def test_custom_root_takes_any_argnums():
    b = torch.tensor([2.0], requires_grad=True)
    for library in (ours, theirs):
        solver = library.diff.implicit.custom_root(lambda x, a, b: x * b - a, argnums=(2,))(lambda x, a, b: a / b)
        value = solver(torch.zeros(1), torch.tensor([3.0]), b).sum()
        if library is ours:
            torch.testing.assert_close(torch.autograd.grad(value, b)[0], torch.tensor([-0.75]))
        else:
            with pytest.raises(IndexError):
                torch.autograd.grad(value, b)


def test_a_derivative_of_an_implicit_gradient_is_an_error():
    a = torch.tensor(4.0, requires_grad=True)
    root = ours.diff.implicit.custom_root(lambda x, a: x**2 - a, argnums=1)(lambda x, a: a.sqrt())
    (slope,) = torch.autograd.grad(root(torch.tensor(0.0), a) ** 2, a, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.backward()


def test_the_forward_estimator_is_right():
    for library, right in ((ours, True), (theirs, False)):
        torch.manual_seed(0)
        estimate = library.diff.zero_order(torch.randn, method="forward", num_samples=4000, sigma=0.1)
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        (grad,) = torch.autograd.grad(estimate(lambda x: (x**2).sum())(x), x)
        assert torch.allclose(grad, 2 * x, atol=0.3) is right


def test_solve_inv_uses_the_whole_matrix():
    b = (torch.tensor([1.0]), torch.tensor([2.0]))

    def matvec(x):
        return x[0] + 0.5 * x[1], x[0] + 2 * x[1]

    for library, right in ((ours, True), (theirs, False)):
        x = library.linear_solve.solve_inv()(matvec, b)
        assert all(map(torch.allclose, matvec(x), b)) is right


def test_the_derivative_of_adam_op_is_exact():
    gaps = []
    for library in (ours, theirs):
        g = torch.tensor([0.5, -0.2], dtype=F64, requires_grad=True)
        op = library.accelerated_op.AdamOp(eps=0.5, inplace=False)
        zeros = torch.zeros(2, dtype=F64)
        (grad,) = torch.autograd.grad(op(zeros, zeros, g, torch.tensor(1))[2].sum(), g)
        gaps.append((grad - 0.5 / (g.abs() + 0.5) ** 2).abs().max().item())
    assert gaps[0] < 1e-12 and gaps[1] > 1e-2
