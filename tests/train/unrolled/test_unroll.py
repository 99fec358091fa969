"""Derivatives through optimizer steps: closed forms on quadratics, and Python loops."""

from functools import partial

import pytest
import torch

import torchpure as tp
from torchpure.errors import TransformError

unroll = tp.train.unroll
close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
CURVATURE = torch.tensor([[2.0, 0.3], [0.3, 0.5]], dtype=torch.float64)
START = torch.tensor([1.0, -2.0], dtype=torch.float64)
RATE = torch.tensor(0.2, dtype=torch.float64)
STEPS = 7


def quadratic(x):
    return x @ CURVATURE @ x / 2


def by_sgd(rate, start=START, **options):
    return unroll(quadratic, start, tp.optim.sgd(rate), STEPS, **options).params


def in_closed_form(rate, start=START):
    return torch.linalg.matrix_power(torch.eye(2, dtype=start.dtype) - rate * CURVATURE, STEPS) @ start


def by_momentum(rate, start=START, **options):
    return unroll(quadratic, start, tp.optim.sgd(rate, momentum=0.9), STEPS, **options).params


def momentum_in_closed_form(rate, start=START):
    """x' = x − rate v', v' = 0.9 v + C x: the power of one matrix."""
    eye, zero = torch.eye(2, dtype=start.dtype), torch.zeros(2, 2, dtype=start.dtype)
    step = torch.cat([torch.cat([eye - rate * CURVATURE, -0.9 * rate * eye], 1), torch.cat([CURVATURE, 0.9 * eye], 1)])
    return (torch.linalg.matrix_power(step, STEPS) @ torch.cat([start, zero[0]]))[:2]


DERIVATIVES = {
    "value": lambda f: f(RATE),
    "reverse": lambda f: tp.jacrev(f, (0, 1))(RATE, START),
    "forward": lambda f: tp.jacfwd(f, (0, 1))(RATE, START),
    "forward over reverse": lambda f: tp.hessian(lambda *args: (f(*args) ** 2).sum(), (0, 1))(RATE, START),
    "reverse over forward": lambda f: tp.jacrev(tp.jacfwd(lambda rate: (f(rate) ** 2).sum()))(RATE),
    "reverse over reverse": lambda f: tp.grad(tp.grad(lambda rate: (f(rate) ** 2).sum()))(RATE),
    "members": lambda f: tp.vmap(tp.grad(lambda rate: (f(rate) ** 2).sum()))(RATE * torch.arange(1, 4)),
}
FEW = ("reverse", "reverse over reverse", "members")
MEMORY = {"all": {}, "remat": {"remat": 3}, "a window": {"truncate": STEPS}}


@pytest.mark.parametrize(("name", "memory"), [(n, m) for m in MEMORY for n in DERIVATIVES if m == "all" or n in FEW])
def test_derivatives_on_a_quadratic_are_those_of_the_closed_form(name, memory):
    close(DERIVATIVES[name](partial(by_sgd, **MEMORY[memory])), DERIVATIVES[name](in_closed_form))
    close(DERIVATIVES[name](partial(by_momentum, **MEMORY[memory])), DERIVATIVES[name](momentum_in_closed_form))


@pytest.mark.compile
def test_derivatives_on_a_quadratic_are_those_of_the_closed_form_in_a_program():
    for memory in MEMORY.values():
        program = tp.jit(lambda rate: [DERIVATIVES[n](partial(by_momentum, **memory)) for n in ("reverse", "members")])  # noqa: B023
        close(program(RATE), [DERIVATIVES[name](momentum_in_closed_form) for name in ("reverse", "members")])
    program = tp.jit(lambda rate: tp.grad(tp.grad(lambda rate: (by_sgd(rate) ** 2).sum()))(rate))
    close(program(RATE), DERIVATIVES["reverse over reverse"](in_closed_form))


UNDONE = {
    "sgd": lambda rate: tp.optim.sgd(rate, momentum=0.9),
    "sgd, schedule": lambda rate: tp.optim.sgd(lambda step: rate * 0.9**step, momentum=0.8),
    "adam": lambda rate: tp.optim.adam(rate, eps=1e-3),
    "adamw": lambda rate: tp.optim.adamw(rate, eps=1e-3, weight_decay=0.1),
}


def undone_and_not(name, memory):
    """Return a function of the rate and the start, with steps that are undone, and the same with steps that are kept."""

    def run(rate, start, **options):
        out = unroll(quadratic, start, UNDONE[name](rate), STEPS, **memory, **options)
        return (out.params**2).sum() + (out.losses * torch.arange(STEPS)).sum()

    return partial(run, reversible=True), run


@pytest.mark.parametrize("memory", [{}, {"remat": 3}, {"truncate": 4}], ids=repr)
@pytest.mark.parametrize("name", UNDONE)
def test_reversible_changes_no_result_and_gradients_by_rounding_errors_only(name, memory):
    undone, kept = undone_and_not(name, memory)
    assert torch.equal(undone(RATE, START), kept(RATE, START))
    close(tp.grad(undone, (0, 1))(RATE, START), tp.grad(kept, (0, 1))(RATE, START))


@pytest.mark.parametrize(
    "derive",
    [
        lambda f: tp.jacfwd(tp.grad(f, 1), 1)(RATE, START),
        lambda f: tp.grad(lambda rate: tp.grad(f)(rate, START) ** 2)(RATE),
        lambda f: tp.vmap(tp.grad(f, (0, 1)), (0, None))(RATE * torch.arange(1, 4), START),
    ],
    ids=["forward over reverse", "reverse over reverse", "members"],
)
def test_reversible_changes_no_derivative_but_by_rounding_errors(derive):
    undone, kept = undone_and_not("sgd", {})
    close(derive(undone), derive(kept))


@pytest.mark.compile
def test_reversible_changes_gradients_by_rounding_errors_only_in_a_program():
    program = tp.jit(tp.grad(lambda rate: (by_momentum(rate, reversible=True) ** 2).sum()))
    close(program(RATE), tp.grad(lambda rate: (momentum_in_closed_form(rate) ** 2).sum())(RATE))


OPTIMIZERS = {
    "adam": lambda rate: tp.optim.adam(rate, eps=1e-3),
    "nesterov": lambda rate: tp.optim.sgd(rate, momentum=0.9, nesterov=True),
    "polyak": lambda rate: tp.optim.polyak_sgd(scaling=rate),  # it asks for the value of the loss
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_unroll_and_its_derivatives_equal_a_python_loop_of_steps(name):
    batches = tp.random.normal(tp.random.key(0), (4, 3, 2), dtype=torch.float64)
    loss = lambda p, x: ((x @ p["w"] - 1).tanh() ** 2).mean() + 0.1 * p["b"][0] ** 2  # noqa: E731
    params = {"w": START, "b": (RATE,)}

    def unrolled(rate, params, batches):
        found = unroll(loss, params, OPTIMIZERS[name](rate), batches=(batches,))
        return found.losses, found.params

    def looped(rate, params, batches):
        optimizer, losses = OPTIMIZERS[name](rate), []
        state = optimizer.init(params)
        for x in batches:
            value, grads = tp.value_and_grad(loss)(params, x)
            params, state = optimizer.step(grads, state, params, value=value)
            losses.append(value)
        return torch.stack(losses), params

    close(unrolled(RATE, params, batches), looped(RATE, params, batches))
    close(tp.jacrev(unrolled, (0, 1, 2))(RATE, params, batches), tp.jacrev(looped, (0, 1, 2))(RATE, params, batches))


def test_a_truncated_run_depends_on_its_last_window_alone():
    end = by_sgd(RATE, truncate=3)
    close(end, by_sgd(RATE))
    before = unroll(quadratic, START, tp.optim.sgd(RATE), STEPS - 3).params
    last = lambda rate: unroll(quadratic, before, tp.optim.sgd(rate), 3).params  # noqa: E731
    for jacobian in (tp.jacrev, tp.jacfwd):
        close(jacobian(lambda rate: by_sgd(rate, truncate=3))(RATE), jacobian(last)(RATE))
        assert (jacobian(lambda start: by_sgd(RATE, start, truncate=3))(START) == 0).all()


def test_the_losses_of_a_truncated_run_depend_on_their_windows():
    def losses(rate, **options):
        return unroll(quadratic, START, tp.optim.sgd(rate), STEPS, **options).losses

    slopes, whole = tp.jacfwd(partial(losses, truncate=3))(RATE), tp.jacfwd(losses)(RATE)
    assert slopes.shape == (STEPS,)
    assert (slopes[[0, 1, 4]] == 0).all()  # windows of 1, 3 and 3 steps begin there
    assert whole[0] == 0 and (whole[1:] != 0).all()
    batches = tp.random.normal(tp.random.key(0), (STEPS, 2), dtype=torch.float64)
    loss = lambda p, x: ((p - x) ** 2).sum()  # noqa: E731
    run = partial(unroll, loss, START, tp.optim.sgd(RATE), batches=(batches,))
    close(run(truncate=3), run())


def test_a_run_goes_on_from_its_state():
    optimizer = tp.optim.adam(RATE)
    half = unroll(quadratic, START, optimizer, 3)
    end = unroll(quadratic, half.params, optimizer, 4, opt_state=half.opt_state)
    whole = unroll(quadratic, START, optimizer, 7)
    close(end.params, whole.params)
    close(torch.cat([half.losses, end.losses]), whole.losses)


def test_first_order_gradients_are_a_link_of_the_optimizer():
    """Gradients as constants: the derivative of the last parameters by the first is the identity (first-order MAML)."""
    first_order = tp.optim.chain(tp.optim.stateless(lambda grads, params: tp.stop_gradient(grads)), tp.optim.sgd(0.2))
    close(tp.jacrev(lambda start: unroll(quadratic, start, first_order, 5).params)(START), torch.eye(2).double())


ERRORS = {
    "without batches the number of steps is unknown: pass steps=": lambda: unroll(quadratic, START, tp.optim.sgd(0.1)),
    "steps must be an int of at least 1, got int 0": lambda: unroll(quadratic, START, tp.optim.sgd(0.1), 0),
    "remat must be an int of at least 1, or None, got int 0": lambda: by_sgd(0.1, remat=0),
    "truncate must be an int of at least 1, or None, got bool True": lambda: by_sgd(0.1, truncate=True),
    "batches must be a tuple .* got a float64 tensor": lambda: unroll(quadratic, START, tp.optim.sgd(0.1), 2, START),
    r"batches must be tensors .* the same number for each, got .*\(3,\).*\(4,\)": lambda: unroll(
        quadratic, START, tp.optim.sgd(0.1), None, (torch.ones(3), torch.ones(4))
    ),
    "reversible=True needs an optimizer .* sgd with momentum .* got Optimizer sgd": lambda: by_sgd(
        0.1, reversible=True
    ),
    "reversible=True needs real parameters, got a complex128 tensor .* at `w`": lambda: unroll(
        lambda p: p["w"].abs().sum(), {"w": START * 1j}, tp.optim.adam(0.1), 2, reversible=True
    ),
    "reversible=True needs an optimizer .* with b1 and b2 above 0; got Optimizer adam": lambda: unroll(
        quadratic, START, tp.optim.adam(0.1, b2=0.0), 2, reversible=True
    ),
    "steps=2, but batches have 3 rows": lambda: unroll(quadratic, START, tp.optim.sgd(0.1), 2, (torch.ones(3),)),
}


@pytest.mark.parametrize("message", ERRORS)
def test_wrong_arguments_are_refused(message):
    with pytest.raises(TransformError, match=f"unroll: {message}"):
        ERRORS[message]()


def test_wrong_optimizers_are_refused():
    with pytest.raises(TypeError, match="unroll: wanted an optimizer of tp.optim, got"):
        unroll(quadratic, START, torch.optim.SGD([START.clone().requires_grad_()], 0.1), 3)
    needy = tp.optim.Optimizer(lambda params: None, lambda grads, state, params: (grads, state), extra=("moon",))
    with pytest.raises(TypeError, match="unroll: the optimizer needs moon, which unroll does not know: use tp.scan"):
        unroll(quadratic, START, needy, 3)
