"""The laws of optimizers, each a function that raises AssertionError when an optimizer breaks it.

Every check takes `make`, which makes the optimizer for a rate: a float, or a tensor of shape ().
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Params, Rate
from torchpure.optim import Optimizer, apply_updates
from torchpure.transforms import grad, vmap

from ._assert import assert_trees_close

Make = Callable[[Rate], Optimizer[Any]]
_RATE = 0.05


def check_optimizer(make: Make) -> None:
    """Check every law on a small problem.

    Raises:
        AssertionError: the optimizer breaks one.

    >>> from torchpure import optim
    >>> check_optimizer(lambda rate: optim.sgd(rate, momentum=0.9))
    """
    for law in LAWS.values():
        law(make)


def inputs_are_unchanged(make: Make) -> None:
    """`update` and `step` leave their inputs bitwise as they are, and share no memory with them."""
    optimizer, (params, state) = make(_RATE), _warm(make)
    grads = grad(_loss)(params)
    before = [leaf.clone() for leaf in tree.leaves((grads, state, params))]
    results = (optimizer.update(grads, state, params), optimizer.step(grads, state, params))
    inputs = tree.leaves((grads, state, params))
    assert all(torch.equal(old, new) for old, new in zip(before, inputs, strict=True)), "an input was changed"
    memory = {leaf.untyped_storage().data_ptr() for leaf in inputs}
    shared = [leaf for leaf in tree.leaves(results) if leaf.untyped_storage().data_ptr() in memory]
    assert not shared, f"an output shares memory with an input: {tree.describe(shared[0])}"


def same_inputs_give_same_outputs(make: Make) -> None:
    """`step` is a function: called twice it gives the same, bit for bit."""
    optimizer, (params, state) = make(_RATE), _warm(make)
    grads = grad(_loss)(params)
    assert_trees_close(optimizer.step(grads, state, params), optimizer.step(grads, state, params), rtol=0.0)


def step_is_update_and_apply(make: Make) -> None:
    """`step(g, s, p) == (apply_updates(p, u), s')` where `u, s' = update(g, s, p)`, over ten steps."""
    optimizer, params = make(_RATE), _params()
    one = two = (params, optimizer.init(params))
    for _ in range(10):
        one = optimizer.step(grad(_loss)(one[0]), one[1], one[0])
        updates, state = optimizer.update(grad(_loss)(two[0]), two[1], two[0])
        two = apply_updates(two[0], updates), state
    assert_trees_close(one, two, rtol=1e-12)


def structure_and_dtypes_stay(make: Make) -> None:
    """State and parameters keep structure, shapes and dtypes, so that they can be a loop's carry."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        params = tree.map(lambda leaf: leaf.to(dtype), _params())  # noqa: B023 called at once
        state = make(_RATE).init(params)
        new_params, new_state = make(_RATE).step(grad(_loss)(params), state, params)
        tree.check_same((params, state), (new_params, new_state), who=f"step in {dtype}")
        for old, new in zip(tree.leaves((params, state)), tree.leaves((new_params, new_state)), strict=True):
            assert (old.shape, old.dtype) == (new.shape, new.dtype), f"{tree.describe(old)} became {tree.describe(new)}"


def missing_gradients_leave_leaves(make: Make) -> None:
    """Where a gradient is None the parameter stays, and all others move as they would without it."""
    params = {**_params(), "frozen": torch.ones(2), "count": torch.tensor(3), "name": "x", "none": None}
    grads = {**grad(_loss)(_params()), "frozen": None, "count": None, "name": None, "none": None}
    optimizer = make(_RATE)
    moved, state = optimizer.step(grads, optimizer.init(params), params)
    moved, _ = optimizer.step(grads, state, moved)
    alone, state = optimizer.step(grad(_loss)(_params()), optimizer.init(_params()), _params())
    alone, _ = optimizer.step(grad(_loss)(_params()), state, alone)
    assert moved["frozen"] is params["frozen"] and moved["count"] is params["count"] and moved["name"] == "x"
    assert_trees_close({name: moved[name] for name in alone}, alone, rtol=1e-12)


def differentiable_in_everything(make: Make) -> None:
    """Three unrolled steps have right derivatives, in reverse and forwards, in parameters, state and rate."""
    params, state = _warm(make)
    leaves, structure = tree.flatten((params, state))
    moving = [i for i, leaf in enumerate(leaves) if leaf.ndim]  # all but the step count

    def unrolled(*changes: Tensor) -> Tensor:
        rate = _RATE * (1 + changes[0])
        filled = list(leaves)
        for i, change in zip(moving, changes[1:], strict=True):
            filled[i] = leaves[i] * (1 + change)
        p, s = tree.unflatten(structure, filled)
        for _ in range(3):
            p, s = make(rate).step(grad(_loss)(p), s, p)
        return _loss(p)

    # relative changes, since entries of a state differ by orders of magnitude
    shapes = [(), *(leaves[i].shape for i in moving)]
    changes = tuple(torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    torch.autograd.gradcheck(unrolled, changes, check_forward_ad=True)


def finite_at_zero_gradients(make: Make) -> None:
    """Derivatives through two steps are finite where a gradient is exactly zero."""
    params = {"w": torch.tensor([0.0, 1.0], dtype=torch.float64)}

    def unrolled(p: Params, rate: Tensor) -> Tensor:
        state = make(rate).init(p)
        for _ in range(2):
            p, state = make(rate).step(grad(lambda q: (q["w"] ** 2).sum())(p), state, p)
        return (p["w"] ** 2).sum()

    derivatives = grad(unrolled, argnums=(0, 1))(params, torch.tensor(_RATE, dtype=torch.float64))
    assert all(leaf.isfinite().all() for leaf in tree.leaves(derivatives)), f"not finite: {derivatives}"


def batched_equals_looped(make: Make) -> None:
    """Vmap over parameters and rates gives each member what it gets alone, over five steps."""
    rates = torch.tensor([0.01, 0.05, 0.1], dtype=torch.float64)
    starts = tree.map(lambda leaf: torch.stack([leaf, leaf + 0.5, leaf * 2]), _params())

    def run(params: Params, rate: Rate) -> tuple[Params, Any]:
        optimizer = make(rate)
        state = optimizer.init(params)
        for _ in range(5):
            params, state = optimizer.step(grad(_loss)(params), state, params)
        return params, state

    together = vmap(run)(starts, rates)
    for i, rate in enumerate(rates):
        alone = run(tree.map(lambda leaf: leaf[i], starts), rate.item())  # noqa: B023 called at once
        assert_trees_close(tree.map(lambda leaf: leaf[i], together), alone, rtol=1e-11, atol=1e-14)  # noqa: B023


def complex_is_two_reals(make: Make) -> None:
    """A complex parameter moves as the pair of its real and imaginary parts does."""
    target = torch.tensor([1 - 2j, 0.5j], dtype=torch.complex128)
    one = torch.tensor([0.9 + 0.1j, -0.3 + 1j], dtype=torch.complex128)
    two = torch.view_as_real(one).clone()
    optimizer = make(_RATE)
    state_one, state_two = optimizer.init(one), optimizer.init(two)
    for _ in range(5):
        gradient = 2 * (one - target)
        one, state_one = optimizer.step(gradient, state_one, one)
        two, state_two = optimizer.step(torch.view_as_real(gradient), state_two, two)
        assert_trees_close(torch.view_as_real(one), two, rtol=1e-12)


def empty_trees_are_fine(make: Make) -> None:
    """A tree without leaves, and a leaf without entries, go through."""
    for params in ({}, {"w": torch.zeros(0)}):
        optimizer = make(_RATE)
        moved, _ = optimizer.step(params, optimizer.init(params), params)
        tree.check_same(params, moved)


def converges_on_a_parabola(make: Make) -> None:
    """Four hundred steps bring a parabola's value down a thousandfold."""
    params = _params()
    start = _parabola(params)
    optimizer = make(_RATE)
    state = optimizer.init(params)
    for _ in range(400):
        params, state = optimizer.step(grad(_parabola)(params), state, params)
    assert _parabola(params) < 1e-3 * start, f"from {start:.3g} to {_parabola(params):.3g} only"


LAWS: dict[str, Callable[[Make], None]] = {
    law.__name__: law
    for law in (
        inputs_are_unchanged,
        same_inputs_give_same_outputs,
        step_is_update_and_apply,
        structure_and_dtypes_stay,
        missing_gradients_leave_leaves,
        differentiable_in_everything,
        finite_at_zero_gradients,
        batched_equals_looped,
        complex_is_two_reals,
        empty_trees_are_fine,
        converges_on_a_parabola,
    )
}


def check_compiled(make: Make, *, backend: str = "inductor") -> None:
    """Check that a step compiles in one graph, equals the eager step over ten steps, and never compiles again.

    Raises:
        AssertionError: results differ.
        torch._dynamo.exc.TorchDynamoException: the step cannot be traced whole, or wants to compile again.
    """
    optimizer, params = make(_RATE), _params()

    def step(params: Params, state: Any) -> tuple[Params, Any]:
        return optimizer.step(grad(_loss)(params), state, params)

    compiled = torch.compile(step, fullgraph=True, backend=backend)
    one = two = (params, optimizer.init(params))
    one, two = compiled(*one), step(*two)
    with torch.compiler.set_stance("fail_on_recompile"):
        for _ in range(9):
            one, two = compiled(*one), step(*two)
    assert_trees_close(one, two, rtol=1e-11, atol=1e-14)


def _params() -> Params:
    return {
        "w": torch.tensor([[0.3, -0.7], [1.1, 0.4], [-0.2, 0.9]], dtype=torch.float64),
        "b": torch.tensor([0.5, -1.5], dtype=torch.float64),
        "scale": torch.tensor(0.8, dtype=torch.float64),
    }


def _loss(params: Params) -> Tensor:
    x = torch.tensor([[0.2, 1.0, -0.5], [1.5, -0.3, 0.7]], dtype=params["w"].dtype)
    return (params["scale"] * torch.tanh(x @ params["w"] + params["b"]) - 0.25).square().sum()


def _parabola(params: Params) -> Tensor:
    return sum((leaf.square().sum() for leaf in tree.leaves(params)), start=torch.zeros((), dtype=torch.float64))


def _warm(make: Make) -> tuple[Params, Any]:
    """Return parameters and state after two steps, so that no part of the state is zero."""
    params = _params()
    optimizer = make(_RATE)
    state = optimizer.init(params)
    for _ in range(2):
        params, state = optimizer.step(grad(_loss)(params), state, params)
    return params, state
