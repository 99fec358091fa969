"""The laws of optimizers: each is a function that raises AssertionError if a case breaks it."""

import gc
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from torchpure import tree
from torchpure._collector import gc_paused
from torchpure._types import Params
from torchpure.optim import apply_updates
from torchpure.transforms import grad, jacfwd, vmap

from ._assert import assert_trees_close
from ._case import BOWL, PARABOLA, ROSENBROCK, Case, Problem, advance, extras

_COUNTERS = ("step", "mini_step")  # float fields that are counters


def inputs_are_unchanged(case: Case) -> None:
    """`update` and `step` do not change their inputs, bit for bit, and return no memory shared with them."""
    optimizer, (params, state) = case.make(), _after_two_steps(case)
    grads = BOWL.grad(params)
    given = extras(optimizer, BOWL, params, grads)
    before = [leaf.clone() for leaf in tree.leaves((grads, state, params))]
    results = (optimizer.update(grads, state, params, **given), optimizer.step(grads, state, params, **given))
    inputs = tree.leaves((grads, state, params))
    assert all(torch.equal(old, new) for old, new in zip(before, inputs, strict=True)), "an input was changed"
    memory = {leaf.untyped_storage().data_ptr() for leaf in inputs}
    shared = [path for path, leaf in _tensor_paths(results) if leaf.untyped_storage().data_ptr() in memory]
    assert not shared, f"outputs share memory with inputs, at (update, step).(result, state): {shared}"


def same_inputs_give_same_outputs(case: Case) -> None:
    """`step` is a function: two equal calls give equal results, bit for bit."""
    optimizer, (params, state) = case.make(), _after_two_steps(case)
    results = [advance(optimizer, BOWL, params, state) for _ in range(2)]
    assert_trees_close(results[0], results[1], rtol=0.0)


def step_is_update_and_apply(case: Case) -> None:
    """`step(g, s, p) == (apply_updates(p, u), s')` where `u, s' = update(g, s, p)`, over ten steps."""
    optimizer, params = case.make(), BOWL.start()
    one = two = (params, optimizer.init(params))
    for _ in range(10):
        one = advance(optimizer, BOWL, *one)
        grads = BOWL.grad(two[0])
        updates, state = optimizer.update(grads, two[1], two[0], **extras(optimizer, BOWL, two[0], grads))
        two = apply_updates(two[0], updates), state
    assert_trees_close(one, two, rtol=1e-11, atol=1e-14)


def structure_and_dtypes_stay(case: Case) -> None:
    """State and parameters keep structure, shapes and dtypes, so they can be the carry of a loop."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        params = tree.map(lambda leaf: leaf.to(dtype), BOWL.start())  # noqa: B023 called at once
        old = (params, case.make().init(params))
        new = advance(case.make(), BOWL, *old)
        tree.check_same(old, new, caller=f"step in {dtype}")
        for (path, was), (_, now) in zip(_tensor_paths(old), _tensor_paths(new), strict=True):
            assert (was.shape, was.dtype) == (now.shape, now.dtype), (
                f"in {dtype}, at (params, state).{path}: {tree.describe(was)} became {tree.describe(now)}"
            )


def missing_gradients_leave_leaves(case: Case) -> None:
    """A parameter whose gradient is None does not change, and does not affect the others."""
    params = {**BOWL.start(), "frozen": torch.ones(2), "count": torch.tensor(3), "name": "x", "none": None}
    optimizer, nothing = case.make(), {"frozen": None, "count": None, "name": None, "none": None}
    problem = Problem(BOWL.value, lambda p: {**BOWL.grad(p), **nothing}, lambda: params)
    moved, alone = _run(optimizer, problem, 2)[0], _run(optimizer, BOWL, 2)[0]
    assert moved["frozen"] is params["frozen"] and moved["count"] is params["count"] and moved["name"] == "x"
    assert_trees_close({name: moved[name] for name in alone}, alone, rtol=1e-12)


def differentiable_in_everything(case: Case) -> None:
    """Three unrolled steps have the right reverse and forward derivatives in parameters, state and every number.

    Right is what central differences say, entry by entry. One direction is pushed through torch's own dual numbers too.
    """
    if not case.differentiable:
        return
    unrolled, size = _unrolled(case)
    wanted = _central_differences(unrolled, size)
    zero = torch.zeros(size, dtype=torch.float64)
    reverse, again = _reverse(unrolled, zero), _reverse(unrolled, zero)
    assert torch.equal(reverse, again), "two backward passes differ"
    assert_trees_close(reverse, wanted, rtol=1e-3, atol=1e-5)
    forward = jacfwd(unrolled)(zero)
    assert_trees_close(forward, wanted, rtol=1e-3, atol=1e-5)
    direction = torch.linspace(0.5, 1.5, size, dtype=torch.float64)
    assert_trees_close(_slope(unrolled, zero, direction), forward @ direction, rtol=1e-8, atol=1e-10)


def _unrolled(case: Case) -> tuple[Callable[[Tensor], Tensor], int]:
    """Return three steps as a function of the relative change of each entry and number, and how many these are.

    The changes are relative, because entries of a state differ by orders of magnitude.
    """
    warm, numbers = _after_two_steps(case), case.numbers()
    leaves, structure = tree.flatten(warm)
    moving = [i for i, (path, leaf) in enumerate(_tensor_paths(warm)) if _is_continuous(path, leaf)]
    sizes = [1] * (1 + len(numbers)) + [leaves[i].numel() for i in moving]

    def unrolled(changes: Tensor) -> Tensor:
        rate, *rest = changes.split(sizes)
        values = {name: _changed_by(numbers[name], change[0]) for name, change in zip(numbers, rest, strict=False)}
        filled = list(leaves)
        for i, change in zip(moving, rest[len(numbers) :], strict=True):
            filled[i] = leaves[i] * (1 + change.reshape(leaves[i].shape))
        optimizer = case.make(case.learning_rate * (1 + rate[0]), **values)
        params, _ = _run(optimizer, BOWL, 3, tree.unflatten(structure, filled))
        return torch.cat([params["w"].reshape(-1), params["b"].reshape(-1)]) @ _weights()

    return unrolled, sum(sizes)


def _central_differences(function: Callable[[Tensor], Tensor], size: int, eps: float = 1e-6) -> Tensor:
    """Return the slope of `function` at zero along each axis, from one mapped call."""
    steps = eps * torch.eye(size, dtype=torch.float64)
    above, below = vmap(function)(torch.cat([steps, -steps])).split(size)
    return (above - below) / (2 * eps)


def _reverse(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    leaf = at.clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


def _slope(function: Callable[[Tensor], Tensor], at: Tensor, direction: Tensor) -> Tensor:
    with forward_ad.dual_level():
        value, slope = forward_ad.unpack_dual(function(forward_ad.make_dual(at, direction)))
    return torch.zeros_like(value) if slope is None else slope


def finite_at_zero_gradients(case: Case) -> None:
    """Derivatives through two steps are finite if one gradient, or every gradient, is exactly zero."""
    if not case.differentiable:
        return
    names = list(case.numbers())
    given = case.make  # at the default numbers: an eps of 1e-8 is the hard case
    values = [torch.tensor(_default(case, name), dtype=torch.float64) for name in names]
    for start in ([0.0, 1.0], [0.0, 0.0]):
        params = {"w": torch.tensor(start, dtype=torch.float64).reshape(2, 1), "b": torch.zeros(1).double()}

        def unrolled(p: Params, learning_rate: Tensor, *numbers: Tensor) -> Tensor:
            reached, _ = _run(given(learning_rate, **dict(zip(names, numbers, strict=True))), _ZEROS, 2, start=p)
            return _ZEROS.value(reached)

        learning_rate = torch.tensor(case.learning_rate, dtype=torch.float64)
        derivatives = grad(unrolled, argnums=tuple(range(2 + len(names))))(params, learning_rate, *values)
        odd = [path for path, leaf in _tensor_paths(derivatives) if not leaf.isfinite().all()]
        assert not odd, f"not finite, at {odd} of (params, learning_rate, {', '.join(names)}), started at {start}"


def batched_equals_looped(case: Case) -> None:
    """Vmap over parameters, learning rate and every number equals single runs, over four steps."""
    shifts = torch.tensor([0.0, 0.05, 0.1], dtype=torch.float64)
    starts = tree.map(lambda leaf: torch.stack([leaf, leaf + 0.5, leaf * 2]), BOWL.start())
    numbers = case.numbers()

    def run(params: Params, shift: Tensor) -> tuple[Params, Any]:
        values = {name: _changed_by(value, -shift if value else shift) for name, value in numbers.items()}
        return _run(case.make(case.learning_rate * (1 + shift), **values), BOWL, 4, start=params)

    together = vmap(run)(starts, shifts)
    for i in range(len(shifts)):
        alone = run(tree.map(lambda leaf: leaf[i], starts), shifts[i])  # noqa: B023 called at once
        assert_trees_close(tree.map(lambda leaf: leaf[i], together), alone, rtol=1e-10, atol=1e-13)  # noqa: B023


def tensors_equal_numbers(case: Case) -> None:
    """A hyper-parameter as a tensor of shape () gives the same result as the number."""
    numbers = case.numbers()
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
    one = _run(case.make(**numbers), BOWL, 3)
    two = _run(case.make(torch.tensor(case.learning_rate, dtype=torch.float64), **tensors), BOWL, 3)
    assert_trees_close(one[0], two[0], rtol=1e-11, atol=1e-14)


def complex_is_two_reals(case: Case) -> None:
    """A complex parameter moves as the pair of its real and imaginary parts does."""
    if not case.entrywise:
        return
    target = torch.tensor([[1 - 2j, 0.5j]], dtype=torch.complex128)
    start = torch.tensor([[0.9 + 0.1j, -0.3 + 1j]], dtype=torch.complex128)
    pairs = torch.view_as_real
    whole = Problem(lambda p: (p - target).abs().square().sum(), lambda p: 2 * (p - target), lambda: start)
    parts = Problem(
        lambda p: (p - pairs(target)).square().sum(), lambda p: 2 * (p - pairs(target)), lambda: pairs(start).clone()
    )
    one, two = _run(case.make(), whole, 5)[0], _run(case.make(), parts, 5)[0]
    assert_trees_close(pairs(one), two, rtol=1e-11)


def empty_trees_are_fine(case: Case) -> None:
    """A tree without leaves, and a leaf without entries, go through."""
    for params in ({}, {"w": torch.zeros(0)}):
        nothing = Problem(lambda p: torch.zeros(()), lambda p: p, lambda: params)  # noqa: B023 called at once
        tree.check_same(params, _run(case.make(), nothing, 1)[0])


def live_tensors_stay_constant(case: Case) -> None:
    """After 130 steps the tensors of one state are alive, at most two others, and no graph.

    What stays is counted from the tenth step on, so that one tensor in 40 steps is found.
    """
    with gc_paused():
        gc.collect(1)  # moves what lives to the oldest generation, which is large and need not be looked at
        optimizer, params = case.make(), BOWL.start()
        reached = _run(optimizer, BOWL, 10, (params, optimizer.init(params)))
        before = _young_tensors()
        reached = _run(optimizer, BOWL, 120, reached)
        more = _young_tensors() - before
    graphs = [path for path, leaf in _tensor_paths(reached) if leaf.requires_grad]
    assert not graphs, f"these hold a graph: {graphs}"
    assert more <= 2, f"{more} more tensors are alive after 120 steps, wanted at most 2"


def _young_tensors() -> int:
    """Count the living tensors that are not in the oldest generation of the collector."""
    gc.collect(0)
    return sum(issubclass(type(thing), Tensor) for age in (0, 1) for thing in gc.get_objects(generation=age))


def converges_on_a_parabola(case: Case) -> None:
    """The value of a parabola falls to a thousandth within the steps of the case."""
    if case.parabola is not None:
        _assert_converges(case, PARABOLA, case.learning_rate, case.parabola, 1e-3)


def converges_on_rosenbrock(case: Case) -> None:
    """Rosenbrock's function falls to a twentieth, at the learning rate and within the steps of the case."""
    if case.rosenbrock is not None:
        _assert_converges(case, ROSENBROCK, *case.rosenbrock, 0.05)


LAWS: dict[str, Callable[[Case], None]] = {
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
        tensors_equal_numbers,
        complex_is_two_reals,
        empty_trees_are_fine,
        live_tensors_stay_constant,
        converges_on_a_parabola,
        converges_on_rosenbrock,
    )
}


_ZEROS = Problem(
    lambda params: 0.5 * (params["w"].square().sum() + params["b"].square().sum()), lambda params: params, BOWL.start
)


def _assert_converges(case: Case, problem: Problem, learning_rate: float, steps: int, part: float) -> None:
    params = problem.start()
    first, last = problem.value(params), problem.value(_run(case.make(learning_rate), problem, steps)[0])
    assert last < part * first, f"in {steps} steps at learning rate {learning_rate} only from {first:.3g} to {last:.3g}"


def _run(optimizer: Any, problem: Problem, steps: int, carry: Any = None, start: Params = None) -> tuple[Params, Any]:
    if carry is None:
        start = problem.start() if start is None else start
        carry = start, optimizer.init(start)
    for _ in range(steps):
        carry = advance(optimizer, problem, *carry)
    return carry


def _after_two_steps(case: Case) -> tuple[Params, Any]:
    """Return parameters and state after two steps, when no part of the state is zero."""
    return _run(case.make(**case.numbers()), BOWL, 2)


def _tensor_paths(values: Any) -> list[tuple[str, Any]]:
    pairs = zip(tree.paths(values), tree.leaves(values), strict=True)
    return [(path, leaf) for path, leaf in pairs if isinstance(leaf, Tensor)]


def _is_continuous(path: str, leaf: Tensor) -> bool:
    return leaf.is_floating_point() and path.split(".")[-1] not in _COUNTERS


def _changed_by(value: float, change: Tensor) -> Tensor:
    return value * (1 + change) if value else change


def _default(case: Case, name: str) -> float:
    parameter = inspect.signature(case.factory).parameters.get(name)
    return case.hyper.get(name, parameter.default if parameter is not None else 0.0)


def _weights() -> Tensor:
    return torch.tensor([1.0, -0.7, 0.5, 0.3, -1.2], dtype=torch.float64)
