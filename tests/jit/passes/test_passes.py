"""Passes: what each removes or moves, what it leaves as it is, and that results are equal bit for bit."""

import pytest
import torch

import torchpure as tp
from torchpure.jit._executable import run_passes
from torchpure.jit._trace import trace
from torchpure.jit.passes import eliminate_common_subexpressions, eliminate_dead_code, hoist_loop_invariants
from torchpure.jit.passes._fx import bodies, control_flow_kind
from torchpure.transforms.calls._primitives import callback_p, scan_p, switch_p, while_p

D = torch.float64
X = torch.linspace(-1, 1, 12, dtype=D).reshape(4, 3)
W = torch.linspace(0, 2, 9, dtype=D).reshape(3, 3)
CALLS = []


def straight(x, w):
    unused = torch.sin(x) @ w
    del unused
    return torch.tanh(x @ w) + torch.tanh(x @ w), x * 1.0, x * 1, torch.zeros(2), torch.zeros(2)


def scanned(x, w):
    def body(c, row, w):
        dull = torch.exp(row)
        del dull
        c = torch.tanh(c @ torch.cos(w) + row @ torch.cos(w)) + torch.ones(3, dtype=D).sin()
        return c, c * 2

    return scan_p(body, (x[0],), (x,), (w,), 4, False)


def reverse(x, w):
    return scan_p(lambda c, row, w: (c + row * w.sin()[0], c - w.t().cos()[1]), (x[0],), (x,), (w,), 4, True)


def chained(x, w):
    def body(c, row, w):
        a = w.sin()
        b = a.cos()  # depends on a value that moves out
        return c @ a + b[0], row @ b

    return scan_p(body, (x[0],), (x,), (w,), 4, False)


def looped(x, w):
    def condition(i, c, w):
        return (i < 5) & (c.sum() < w.exp().sum())

    return while_p(condition, lambda i, c, w: (i + 1, c + w.exp()[0]), (torch.tensor(0), x[0]), (w,))


def branched(x, w):
    index = (x.sum() > 0).long()
    return switch_p(index, (lambda x, w: (x @ w + x @ w,), lambda x, w: (x.sin(),)), (x, w))


def nested(x, w):
    def outer(c, row, w):
        (inner,) = scan_p(lambda d, w: (d * w.exp()[0],), (c,), (), (w,), 3, False)
        return inner + row, inner.sum()

    return scan_p(outer, (x[0],), (x,), (w,), 4, False)


def with_callback(x, w):
    def body(c, row, w):
        callback_p(lambda c: CALLS.append(c.clone()), (c,), "c")
        return (c + row * w.sin()[0],)

    return scan_p(body, (x[0],), (x,), (w,), 4, False)


def checked(x, w):
    tp.check(x.sum() < 100, "too much")
    return x @ w


def in_place(x, w):
    (c,) = scan_p(lambda c, row: (c + row,), (x[0],), (x,), (), 4, False)
    made = torch.zeros(3, dtype=D)
    before = made.sin()
    made.add_(c)
    return before, made.sin(), w


def constants(x, w):
    held = torch.arange(9, dtype=D).reshape(3, 3)
    three = torch.full((3,), 3.0, dtype=D)
    return scan_p(lambda c, row, w, h: (c @ (w * h).tanh() + row,), (x[0],), (x,), (w, held * three), 4, False)


def _named(passes):
    return "-".join(one.__name__ for one in passes)


PROGRAMS = [straight, scanned, reverse, chained, looped, branched, nested, with_callback, checked, in_place, constants]


def _traced(f, *tensors):
    return trace(f, lambda values: (tuple(values), {}), tensors or (X, W)).module


def _names(module):
    return [str(node.target).removeprefix("aten.").split(".")[0] for node in module.graph.nodes if node.op == "call_function"]  # fmt: skip


def _inner(module, number=0):
    node = next(node for node in module.graph.nodes if control_flow_kind(node))
    return bodies(module, node)[number]


@pytest.mark.parametrize(
    "passes",
    [
        [eliminate_dead_code],
        [eliminate_common_subexpressions],
        [hoist_loop_invariants],
        [eliminate_common_subexpressions, hoist_loop_invariants, eliminate_dead_code],
    ],
    ids=_named,
)
@pytest.mark.parametrize("f", PROGRAMS)
def test_law_passes_compute_the_same_bits(f, passes):
    module = _traced(f)
    text, wanted = str(module.graph), module(X, W)
    made = module
    for one in passes:
        made = one(made)
    made.graph.lint()
    got = made(X, W)
    assert len(got) == len(wanted) and all(map(torch.equal, got, wanted))
    assert str(module.graph) == text and all(map(torch.equal, module(X, W), wanted))
    plain = f(X, W)
    torch.testing.assert_close(got, plain if isinstance(plain, tuple) else (plain,), rtol=1e-12, atol=1e-13)


def test_dead_code_is_removed_in_bodies_too_and_checks_stay():
    assert _names(_traced(straight)).count("sin") == 0  # a trace has no dead work left
    assert "exp" not in _names(_inner(_traced(scanned)))
    assert "torchpure_callback" in _names(_traced(checked))
    assert any(control_flow_kind(node) == "callback_p" for node in _inner(_traced(with_callback)).graph.nodes)
    CALLS.clear()
    eliminate_dead_code(_traced(with_callback))(X, W)
    assert len(CALLS) == 4


def test_common_subexpressions_are_computed_once():
    names = _names(eliminate_common_subexpressions(_traced(straight)))
    assert names.count("tanh") == names.count("mm") == 1
    assert names.count("zeros") == 2  # results that share no memory
    assert names.count("mul") == 2  # by 1 and by 1.0
    assert _names(_inner(eliminate_common_subexpressions(_traced(scanned)))).count("cos") == 1
    assert _names(_inner(eliminate_common_subexpressions(_traced(branched)))).count("mm") == 1
    assert _names(eliminate_common_subexpressions(_traced(in_place))).count("sin") == 2


def test_loop_invariant_work_moves_out():
    made = hoist_loop_invariants(eliminate_common_subexpressions(_traced(scanned)))
    assert "cos" not in _names(_inner(made)) and _names(made).count("cos") == 1
    assert not {"sin", "cos"} & set(_names(_inner(hoist_loop_invariants(_traced(chained)))))
    made = hoist_loop_invariants(_traced(looped))
    assert "exp" not in _names(_inner(made, 0)) + _names(_inner(made, 1)) and "exp" in _names(made)
    made = hoist_loop_invariants(_traced(nested))
    assert "exp" not in _names(_inner(made)) + _names(_inner(_inner(made))) and "exp" in _names(made)
    made = hoist_loop_invariants(_traced(constants))
    assert "tanh" not in _names(_inner(made)) and "tanh" in _names(made)
    names = _names(_inner(hoist_loop_invariants(_traced(reverse))))
    assert "sin" not in names and "select" in names  # a view costs nothing


def test_large_values_stay_in_the_loop():
    def outer_product(x, w):
        return scan_p(lambda c, row, v: (c + (v[:, None] * v).sum(0),), (w,), (x,), (w,), 4, False)

    w = torch.linspace(0, 1, 100, dtype=D)
    made = hoist_loop_invariants(_traced(outer_product, torch.ones(4, 1), w))
    assert "mul" in _names(_inner(made)) or "sum" not in _names(_inner(made))
    assert torch.equal(made(torch.ones(4, 1), w)[0], outer_product(torch.ones(4, 1), w)[0])


def test_a_loop_without_iterations():
    def none(x, w):
        return scan_p(lambda c, w: (c * w.sin()[0], c * 2), (x[0],), (), (w,), 0, False)

    made = hoist_loop_invariants(_traced(none))
    carry, ys = made(X, W)
    assert torch.equal(carry, X[0]) and ys.shape == (0, 3)


def _layer(x, w):
    return torch.tanh(tp.remat_name(torch.sin(x @ w), "hidden"))


def _in_place_layer(x, w):
    made = torch.zeros_like(x)
    made[:] = torch.sin(x @ w)
    return torch.tanh(made)


def _of_two(wrap):
    return lambda w: wrap(_layer)(wrap(_layer)(w * 2, w), w).sum()


def _is_tanh(operation):
    return operation is torch.ops.aten.tanh.default


AGAIN = {  # how often a product, a sine, a tanh is computed again
    "nothing": (tp.remat, (2, 2, 2)),
    "dots": (lambda f: tp.remat(f, "dots"), (0, 2, 2)),
    "a name": (lambda f: tp.remat(f, {"hidden"}), (2, 0, 2)),
    "another name": (lambda f: tp.remat(f, {"other"}), (2, 2, 2)),
    "a function": (lambda f: tp.remat(f, _is_tanh), (2, 0, 0)),
    "all": (lambda f: tp.remat(f, lambda _: True), (0, 0, 0)),
    "in another": (lambda f: tp.remat(tp.remat(f, "dots")), (2, 2, 2)),  # what the inner one keeps, the outer one does not
    "with a temporary": (lambda _: tp.remat(_in_place_layer), (2, 2, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", AGAIN)
@pytest.mark.parametrize("members", [False, True], ids=["one", "members"])
def test_rematerialised_work_is_computed_again_in_programs(name, members):
    wrap, more = AGAIN[name]

    def program(f):
        gradient = tp.vmap(tp.grad(f)) if members else tp.grad(f)
        return run_passes(_traced(gradient, torch.stack([W, W + 1]) if members else W))

    plain, made = program(_of_two(lambda f: f)), program(_of_two(wrap))
    product = "bmm" if members else "mm"
    counts = [[_names(one).count(kind) for kind in (product, "sin", "tanh")] for one in (made, plain)]
    assert [one - two for one, two in zip(*counts, strict=True)] == list(more)
    given = torch.stack([W, W + 1]) if members else W
    torch.testing.assert_close(made(given), plain(given), rtol=1e-12, atol=1e-13)


def test_rematerialised_work_is_done_once_in_each_run():
    def twice(x):
        return (torch.exp(x) * torch.exp(x).cos()).sum()

    made = run_passes(_traced(tp.value_and_grad(tp.remat(twice)), X))
    assert _names(made).count("exp") == 2
