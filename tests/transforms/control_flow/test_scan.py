"""scan equals an unrolled loop in every stack of transforms: eager, rematerialised and traced."""

from functools import cache
from itertools import product

import pytest
import torch
from daily import daily
from loops import DEEP, T, traced, unrolled
from stacks import STACKS, D, U
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import ImpureError, StructureError, TransformError

TRACED = [name for name in STACKS if "autograd" not in name and "graph" not in name]


@tp.custom_vjp
def cube(x):
    return x**3


cube.defvjp(lambda x: (x**3, x), lambda x, g: (3 * x**2 * g,))


@tp.custom_jvp
def square(x):
    return x**2


@square.defjvp
def square_rule(primals, tangents):
    return primals[0] ** 2, 2 * primals[0] * tangents[0]


def integers(loop, u):
    init = (u, torch.tensor(0), torch.ones((), dtype=D))
    carry, ys = loop(
        lambda c, x: ((c[0] * u + c[1], c[1] + 1, c[2] * u[0]), (c[1] > 2, c[0] * x)), init, torch.arange(5)
    )
    return carry[0].sum() + ys[1].sum() * carry[2]


def slices(loop, u):
    xs = {"a": u * T[:, None], "b": u[1] * T}
    return loop(lambda c, x: (c * x["a"].sum() + x["b"], {"y": c * x["b"], "n": None}), u[0], xs, reverse=True)[1][
        "y"
    ].sum()


def nested(loop, u):
    def step(c, x):
        return loop(lambda d, y: (torch.sin(d * c + y * u), d), c * x, T[:2])[0], c.sum()

    return loop(step, u, T[:3])[1].sum()


def with_grad(loop, u):
    return loop(lambda c, x: (c + x * tp.grad(lambda v: torch.sin(v * c * u).sum())(c), None), u, T[:3])[0].sum()


def with_rules(loop, u):
    def step(c, x):
        return cube(c * x) + square(u) + tp.remat(lambda c: torch.sin(c * u))(c), None

    return loop(step, u, T[:3])[0].sum()


PROGRAMS = {
    "carry": lambda loop, u: loop(lambda c, x: (torch.sin(c) * x + c * c, None), u, T)[0].sum(),
    "closure": lambda loop, u: loop(lambda c, x: (torch.sin(c * u) + x * u[0], c * u), U * 0 + 1, T)[1].prod(0).sum(),
    "slices": slices,
    "integers": integers,
    "no slices": lambda loop, u: loop(lambda c, _: (torch.cos(c) * u, None), u, None, 3)[0].sum(),
    "nested": nested,
    "grad inside": with_grad,
    "vmap inside": lambda loop, u: loop(
        lambda c, x: (tp.vmap(lambda v: torch.sin(v * u.sum()) * x)(c), None), u, T[:3]
    )[0].prod(),
    "rules inside": with_rules,
    "captured and given": lambda loop, u: loop(lambda c, x: (c * u + x, u * c), u, T[:3])[1].sum(),
}


def check(actual, expected):
    assert_close(actual, expected, rtol=1e-9, atol=1e-11)


@cache  # several tests compare with the same
def plainly(stack, program):
    return STACKS[stack](lambda u: PROGRAMS[program](unrolled, u))


@pytest.mark.parametrize(
    ("program", "stack"),
    [(p, s) for p in PROGRAMS for s in (STACKS if p in {"closure", "integers"} else DEEP)],
)
def test_a_scan_is_a_loop(program, stack):
    check(STACKS[stack](lambda u: PROGRAMS[program](tp.scan, u)), plainly(stack, program))


@pytest.mark.parametrize("stack", TRACED)
@pytest.mark.parametrize("program", ["closure"])
def test_a_traced_scan_is_a_loop(program, stack, monkeypatch):
    run = PROGRAMS[program]
    graph, actual = traced(STACKS[stack], lambda u: run(tp.scan, u), monkeypatch)
    check(actual, plainly(stack, program))
    names = [str(node.target) for node in graph.module.graph.nodes]
    assert any("scan" in name for name in names) and not any("sin" in name for name in names)


@pytest.mark.parametrize(("program", "stack"), daily(product(PROGRAMS, DEEP), every=2))
def test_every_traced_scan_is_a_loop(program, stack, monkeypatch):
    run = PROGRAMS[program]
    _, actual = traced(STACKS[stack], lambda u: run(tp.scan, u), monkeypatch)
    check(actual, plainly(stack, program))


OPTIONS = [{"remat": 2}, {"remat": 3}, {"unroll": 3}, {"unroll": 9}, {"remat": 3, "unroll": 2}]


@pytest.mark.parametrize(("name", "program", "options"), daily(product(DEEP, ["slices", "integers"], OPTIONS), every=4))
def test_unroll_and_remat_change_nothing(name, program, options, monkeypatch):
    run = PROGRAMS[program]

    def scan_with_options(*args, **kwargs):
        return tp.scan(*args, **kwargs, **options)

    expected = plainly(name, program)
    check(STACKS[name](lambda u: run(scan_with_options, u)), expected)
    check(traced(STACKS[name], lambda u: run(scan_with_options, u), monkeypatch)[1], expected)


@pytest.mark.parametrize("stack", STACKS)
def test_remat_changes_nothing(stack):
    run = PROGRAMS["closure"]
    actual = STACKS[stack](lambda u: run(lambda *a, **k: tp.scan(*a, **k, remat=2), u))
    check(actual, plainly(stack, "closure"))


def leapfrog(loop, u, **options):
    def step(state, x):
        q, p, count = state
        p = p - 0.3 * torch.sin(q * u) * x
        return (q + 0.3 * p, p, count + 1), q * u[0]

    def undo(state, x):
        q, p, count = state
        q = q - 0.3 * p
        return q, p + 0.3 * torch.sin(q * u) * x, count - 1

    given = {"inverse": undo, **options} if loop is tp.scan else {}
    (q, p, count), ys = loop(step, (u, torch.ones_like(u), torch.tensor(0)), T, **given)
    return (q * p).sum() + ys.prod() + count


@pytest.mark.parametrize("stack", DEEP)
def test_inverse_changes_no_result_and_gradients_by_rounding_errors_only(stack, monkeypatch):
    expected = STACKS[stack](lambda u: leapfrog(unrolled, u))
    check(STACKS[stack](lambda u: leapfrog(tp.scan, u)), expected)
    check(STACKS[stack](lambda u: leapfrog(tp.scan, u, remat=3)), expected)
    check(traced(STACKS[stack], lambda u: leapfrog(tp.scan, u), monkeypatch)[1], expected)


def test_an_inverse_that_writes_to_its_carry_does_not_change_the_result():
    def run(c):
        last, _ = tp.scan(lambda c, x: (c * x, None), c, T + 1, inverse=lambda c, x: c.div_(x))
        return last.sum(), last

    grads, last = tp.grad(run, has_aux=True)(U)
    check((grads, last), ((T + 1).prod().expand(2), U * (T + 1).prod()))


def test_inverse_of_members_may_mix_what_is_the_same_for_all_with_what_is_not():
    def run(loop, w, **options):  # the counter is one for all members, until the inverse adds a zero of each of them
        back = {"inverse": lambda c, x: (c[0] - c[1] * w, c[1] - 1 + 0 * c[0])} if loop is tp.scan else {}
        return (
            (
                loop(lambda c, x: ((c[0] + (c[1] + 1) * w, c[1] + 1), None), (w, torch.zeros((), dtype=D)), T, **back)[
                    0
                ][0]
            )
            ** 2
        )

    close = tp.grad(lambda ws: tp.vmap(lambda w: run(tp.scan, w))(ws).sum())(U)
    check(close, tp.grad(lambda ws: tp.vmap(lambda w: run(unrolled, w))(ws).sum())(U))


def test_remat_re_runs_nothing_without_gradients():
    calls = []

    def deep(depth):
        if not depth:
            return lambda u: calls.append(None) or torch.sin(u)
        inner = deep(depth - 1)
        return lambda u: tp.scan(lambda c, _: (inner(c), None), u, None, 2, remat=1)[0]

    with torch.no_grad():
        tp.jvp(tp.vmap(deep(3)), (U,), (U,))
    assert len(calls) == 2**3


def memory_and_gradient(step, **options):
    """Return how many numbers a scan of 100 steps saves for its gradient, and the gradient."""
    saved, u = [], torch.ones(1000, dtype=D, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        q, p = tp.scan(step, (u, u), None, 100, **options)[0]
        out = (q * p).sum()
    return sum(saved), torch.autograd.grad(out, u)[0]


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({"remat": 10}, 0.4),
        ({"inverse": lambda c, _: (c[0] - c[1] * 0.1, c[1] + (c[0] - c[1] * 0.1).sin() * 0.1)}, 0.08),
    ],
    ids=["remat", "inverse"],
)
def test_remat_saves_few_carries_and_an_inverse_the_last_only(options, share):
    def step(carry, _):
        q, p = carry
        p = p - q.sin() * 0.1
        return (q + p * 0.1, p), None

    plain, wanted = memory_and_gradient(step)
    few, grad = memory_and_gradient(step, **options)
    assert few < share * plain
    check(grad, wanted)


def test_against_finite_differences():
    assert torch.autograd.gradcheck(lambda u: PROGRAMS["nested"](tp.scan, u), U.clone().requires_grad_())


def test_backward_reaches_captured_tensors():
    w = torch.tensor(0.7, dtype=D, requires_grad=True)
    for remat in (None, 2):
        w.grad = None
        tp.scan(lambda c, x: (torch.sin(c * w) + x, None), U, T, remat=remat)[0].sum().backward()
        expected = unrolled(lambda c, x: (torch.sin(c * w) + x, None), U, T)[0].sum()
        check(w.grad, torch.autograd.grad(expected, w)[0])


def test_batched_carry_slices_and_closures():
    xs, ws = torch.stack([T, T * 2]), torch.tensor([0.5, 1.5], dtype=D)
    cases = [
        ((0, None, None), (ws, T, ws[0])),
        ((None, 0, None), (ws[0], xs, ws[0])),
        ((None, None, 0), (ws[0], T, ws)),
    ]
    for dims, args in cases:

        def run(loop, c, x, w):
            return loop(lambda c, x: (torch.cos(c * w) + x, (c, x * 2)), c, x)

        mapped = tp.vmap(lambda *a: run(tp.scan, *a), in_dims=dims)
        expected = tp.vmap(lambda *a: run(unrolled, *a), in_dims=dims)(*args)
        check(mapped(*args), expected)
        check(tp.make_graph(mapped)(*args)(*args), expected)


def test_a_counter_stays_unbatched():
    def run(x):
        return tp.scan(lambda c, _: ((c[0] + 1, c[1] * x + c[0]), None), (torch.tensor(0), x), None, 3)[0]

    graph = tp.make_graph(tp.vmap(run))(T)
    scan = next(node for node in graph.module.graph.nodes if "scan" in str(node.target) and node.op == "call_function")
    assert [tuple(value.shape) for value in scan.meta["val"]] == [(), (4,)]


@pytest.mark.parametrize("length", [0, 1])
@pytest.mark.parametrize("reverse", [False, True])
def test_short_loops(length, reverse):
    def run(x):
        return tp.scan(lambda c, x: (c + x, {"y": c * x}), U, x[:length], reverse=reverse)

    xs = torch.stack([T[:2], T[2:]])
    carry, ys = run(xs)
    assert ys["y"].shape == (length, 2)
    check(carry, U + xs[:length].sum(0))
    check(tp.make_graph(run)(xs)(xs), (carry, ys))
    check(tp.eval_shape(run, xs)[1]["y"].shape, (length, 2))


def test_numbers_none_and_names_in_a_carry():
    carry, ys = tp.scan(lambda c, x: ({**c, "n": c["n"] + 1}, 2), {"n": 0, "name": "net", "none": None}, T)
    assert carry == {"n": torch.tensor(4), "name": "net", "none": None} and ys.tolist() == [2] * 4


def test_callbacks_in_a_traced_scan_run_with_the_program():
    received = []

    def run(x):
        tp.scan(lambda c, _: (tp.debug.callback(received.append, c), (c + 1, None))[1], x, None, 3)
        return x

    graph = tp.make_graph(run)(torch.tensor(0))
    assert not received
    graph(torch.tensor(5))
    assert [int(x) for x in received] == [5, 6, 7]


def step(c, x):
    return c


def loses(c, x):
    return {"b": c["a"]}, None


def grows(c, x):
    return {"a": torch.stack([c["a"], c["a"]])}, None


def casts(c, x):
    return {"a": c["a"].float()}, None


def names(c, x):
    return c, "name"


def changes(c, x):
    c["a"].add_(1)
    return c, None


A = {"a": U.clone()}  # a copy: a refused body may have changed it already
LINE = {
    f.__name__: f"`{f.__name__}` (test_scan.py:{f.__code__.co_firstlineno})"
    for f in (step, loses, grows, casts, names, changes)
}
LIKE = "must return a carry like the one that it is given: at `a` wanted a float64 tensor of shape (2,), got"
WAY_OUT = "Convert it there, or start with one like it"
ERRORS = {
    "pair": ((step, A, T), TransformError, f"scan: {LINE['step']} must return (carry, y), got dict of 1"),
    "structure": (
        (loses, A, T),
        StructureError,
        f"scan: {LINE['loses']}: the carry that it returns, against the one that it is given: trees differ at `.`: "
        "wanted keys 'a', got 'b' (missing 'a'; unexpected 'b')",
    ),
    "shape": ((grows, A, T), TransformError, f"scan: {LINE['grows']} {LIKE} a float64 tensor of shape (2, 2). {WAY_OUT}"),
    "dtype": ((casts, A, T), TransformError, f"scan: {LINE['casts']} {LIKE} a float32 tensor of shape (2,). {WAY_OUT}"),
    "lengths": ((step, A, {"p": T, "q": T[:2]}), TransformError, f"scan: {LINE['step']}: xs differ in length: 4 at `p`, 2 at `q`"),
    "no length": ((step, A), TransformError, f"scan: {LINE['step']}: without xs the number of steps is unknown: pass length="),
    "other length": ((step, A, T, 3), TransformError, f"scan: {LINE['step']}: length=3, but xs have 4 slices: leave out length"),
    "length": ((step, A, None, -1), TransformError, "scan: length must be an int of at least 0, got int -1"),
    "no tensor": (
        (step, A, {"p": 1}),
        TransformError,
        f"scan: {LINE['step']}: xs at `p` must be a tensor whose dimension 0 has the slices, got int 1. What is the same "
        "for all steps can be captured",
    ),
    "y": (
        (names, A, T),
        TransformError,
        f"scan: {LINE['names']} must return tensors as y, to be stacked: at `.` got str 'name'",
    ),
    "changes": (
        (changes, A, T),
        ImpureError,
        f"scan: {LINE['changes']} changes argument 0 at `a` in place, which a function under a transform must leave alone: "
        "clone it, or return the new value. tp.pure(fn) shows the line",
    ),
    "no function": ((3, A, T), TransformError, "scan: wanted a function, got int 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    args, kind, message = ERRORS[name]
    with pytest.raises(kind) as error:
        tp.scan(*args)
    assert str(error.value) == message


def test_errors_of_options_and_while_tracing():
    with pytest.raises(TransformError, match=r"^scan: unroll must be an int of at least 1, got int 0$"):
        tp.scan(step, A, T, unroll=0)
    with pytest.raises(TransformError, match=r"^scan: remat must be an int of at least 1, or None, got str 'all'$"):
        tp.scan(step, A, T, remat="all")
    with pytest.raises(TransformError, match=r"^scan: inverse undoes single steps, but unroll=2 joins them"):
        tp.scan(lambda c, x: (c, None), U, T, unroll=2, inverse=lambda c, x: c)
    with pytest.raises(
        TransformError, match=r"^scan: `<lambda>` \(test_scan.py:\d+\) must return a carry like the one"
    ):
        tp.scan(lambda c, x: (c, None), U, T, inverse=lambda c, x: c.float())
    one = lambda c, x: (c, None)  # noqa: E731
    for inverse, came in ((lambda c: c, r"\(c\): too many"), (lambda c, x, y: c, r"\(c, x, y\): missing .* 'y'")):
        for context in (torch.enable_grad(), torch.no_grad()):
            with context, pytest.raises(TransformError, match=r"inverse `<lambda>` \(.*\) must take two .*" + came):
                tp.scan(one, U, T, inverse=inverse)
    for inverse, kind, came in (
        (lambda c, x: (c, x), StructureError, r"at `\.`: wanted a float64 tensor of shape .*, got tuple of 2"),
        (
            lambda c, x: c[None],
            TransformError,
            r"at `\.` wanted a float64 tensor of .*, got a float64 tensor of shape \(1,",
        ),
    ):
        for run in (tp.scan, tp.jit(tp.scan, static=("inverse", "f"))):
            with pytest.raises(kind, match=came):
                run(one, U, T, inverse=inverse)
    for name in ("pair", "structure", "shape", "dtype", "y"):
        (fn, init, xs), kind, message = ERRORS[name]
        with pytest.raises(kind) as error:
            tp.make_graph(lambda u, xs, fn=fn: tp.scan(fn, {"a": u}, xs))(init["a"], xs)
        assert str(error.value) == message


def test_collectives_inside_of_a_loop():
    def run(loop, x):
        return loop(lambda c, _: (c * 0.5 + tp.pmean(c, "m") + tp.axis_index("m"), None), x, None, 3)[0]

    f = tp.vmap(lambda x: run(tp.scan, x), axis_name="m")
    expected = tp.vmap(lambda x: run(unrolled, x), axis_name="m")(T)
    check(f(T), expected)
    check(tp.make_graph(f)(T)(T), expected)


def test_a_traced_loop_differentiates_captured_parameters():
    w = torch.tensor(0.7, dtype=D, requires_grad=True)
    graph = tp.make_graph(lambda x: tp.scan(lambda c, t: (torch.sin(c * w) + t, None), x, T)[0])(U)
    expected = unrolled(lambda c, t: (torch.sin(c * w) + t, None), U, T)[0]
    check(torch.autograd.grad(graph(U).sum(), w), torch.autograd.grad(expected.sum(), w))


@pytest.mark.compile
def test_a_power_of_the_carry_inside_of_a_forward_derivative_in_a_program():
    """The body is traced below autograd, where no rule may ask an operand for its tangent."""

    def run(rate):
        return tp.scan(lambda c, _: ((c[0] * rate + 0.9 ** c[1], c[1] + 1), None), (rate, torch.zeros(())), length=3)[
            0
        ][0]

    push = lambda rate: tp.jvp(run, (rate,), (torch.ones_like(rate),))  # noqa: E731
    assert_close(tp.jit(push)(torch.tensor(0.5)), push(torch.tensor(0.5)))
