"""Compiled functions: what they compute, when they are compiled again, and what a call costs."""

import gc
import threading
import time
import warnings
import weakref
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure.errors import TransformError
from torchpure.testing import assert_trees_close

D = torch.float64
X = torch.linspace(-1, 1, 12, dtype=D).reshape(4, 3)
W = torch.linspace(0, 2, 6, dtype=D).reshape(3, 2)


def loss(w, x):
    return (torch.tanh(x @ w) ** 2).sum()


def _counted(f):
    """Return a function, and a list that grows each time Python runs it: once a trace."""
    runs = []

    def g(*args, **kwargs):
        runs.append(1)
        return f(*args, **kwargs)

    return g, runs


@tp.custom_vjp
def doubled(x):
    return torch.sin(x)


doubled.defvjp(lambda x: (torch.sin(x), x), lambda x, g: (2 * g * torch.cos(x),))

PROGRAMS = {
    "plain": lambda w: loss(w, X),
    "grad": lambda w: tp.grad(loss)(w, X),
    "value and grad": lambda w: tp.value_and_grad(loss)(w, X),
    "vmap": lambda w: tp.vmap(loss, in_dims=(None, 0))(w, X[:, None]),
    "vmap grad": lambda w: tp.vmap(tp.grad(loss), in_dims=(None, 0))(w, X[:, None]),
    "hessian": lambda w: tp.hessian(loss)(w, X),
    "jvp": lambda w: tp.jvp(lambda w: loss(w, X), (w,), (torch.ones_like(w),)),
    "jacfwd": lambda w: tp.jacfwd(lambda w: X @ torch.sin(w))(w),
    "linearize": lambda w: tp.linearize(lambda w: loss(w, X), w)[1](torch.ones_like(w)),
    "remat": lambda w: tp.grad(tp.remat(loss))(w, X),
    "custom rule": lambda w: tp.grad(lambda w: doubled(w).sum())(w),
    "vmap of a custom rule": lambda w: tp.vmap(tp.grad(lambda w: doubled(w).sum()))(w),
    "temporaries in place": lambda w: torch.zeros_like(w).add_(w).mul_(2),
    "random": lambda w: w + tp.random.normal(tp.random.key(3), w.shape, dtype=D),
    "views": lambda w: {"t": w.t(), "v": w.view(-1), "same": w, "slice": w[1:]},
    "nothing": lambda w: (w, None, 3, "text"),
    "constants": lambda w: (torch.ones(2, dtype=D), torch.arange(3), torch.tensor(2.0, dtype=D) * w),
    "jit": lambda w: tp.jit(loss)(w, X),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_law_a_compiled_function_computes_what_the_function_does(name):
    compiled, plain = tp.jit(PROGRAMS[name])(W), PROGRAMS[name](W)
    assert_trees_close(compiled, plain, rtol=1e-12, atol=1e-13)
    kinds = [type(leaf) for leaf in tp.tree.leaves(plain)]
    assert [type(leaf) for leaf in tp.tree.leaves(compiled)] == kinds


@pytest.mark.parametrize("name", ["grad", "vmap grad", "hessian", "jvp"])
def test_a_transform_of_a_compiled_function_is_that_of_the_function(name):
    inner = tp.jit(loss)
    outer = {
        "grad": lambda f: tp.grad(f)(W, X),
        "vmap grad": lambda f: tp.vmap(tp.grad(f), in_dims=(None, 0))(W, X[:, None]),
        "hessian": lambda f: tp.hessian(f)(W, X),
        "jvp": lambda f: tp.jvp(lambda w: f(w, X), (W,), (W,)),
    }[name]
    assert_trees_close(outer(inner), outer(loss), rtol=1e-12, atol=1e-13)
    assert_trees_close(tp.jit(lambda: outer(inner))(), outer(loss), rtol=1e-12, atol=1e-13)


CHANGES = {
    "shape": lambda: (X[:2],),
    "dtype": lambda: (X.float(),),
    "strides": lambda: (X.t().contiguous().t(),),
    "structure": lambda: ({"a": X},),
    "another": lambda: (X, X),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_input_signature_is_traced_once(name):
    f, runs = _counted(lambda *args: tp.tree.map(lambda leaf: leaf + 1, args))
    compiled = tp.jit(f)
    args = CHANGES[name]()
    for _ in range(3):
        assert torch.equal(compiled(X)[0], X + 1)
        assert_trees_close(compiled(*args), tp.tree.map(lambda leaf: leaf + 1, args))
    assert len(runs) == 2


def test_values_other_than_tensors_are_static():
    f, runs = _counted(lambda x, n: x * n if n is not None else x)
    compiled = tp.jit(f)
    values = [2, 2.0, True, None, 3.0, 0.0, -0.0, np.float64(2.0), np.float32(2.0)]
    for _ in range(2):
        for value in values:
            wanted = X if value is None else X * value
            assert torch.equal(compiled(X, value), wanted) and compiled(X, value).dtype is wanted.dtype
    assert len(runs) == len(values)
    assert torch.equal(1 / compiled(X, -0.0), 1 / (X * -0.0))
    runs.clear()
    compiled(X, float("nan")), compiled(X, float("nan"))
    assert len(runs) == 1


class Size:
    def __init__(self, n):
        self.n = n

    def __eq__(self, other):
        return self.n == other.n

    def __hash__(self):
        return hash(self.n)


@pytest.mark.parametrize("static", [1, (1,), "size", ("size",), [1, "size"]])
def test_static_arguments_are_compared_by_value(static):
    f, runs = _counted(lambda x, size, *, scale=1.0: x[: size.n] * scale)

    def g(x, size, *, scale=1.0):
        return f(x, size, scale=scale)

    compiled = tp.jit(g, static=static)
    for n in (1, 2, 1, 2):
        assert torch.equal(compiled(X, Size(n)), X[:n])
        assert torch.equal(compiled(X, size=Size(n)), X[:n])
        assert torch.equal(compiled(x=X, size=Size(n), scale=3.0), X[:n] * 3)
    assert len(runs) == 6


def test_a_static_container_is_not_flattened():
    f = tp.jit(lambda x, names: dict.fromkeys(names, x), static=1)
    assert list(f(X, ("b", "a"))) == ["b", "a"] and list(f(X, ("a",))) == ["a"]


@dataclass(frozen=True)
class Config:
    scale: Any
    parts: tuple = ()


ALIKE = [  # static values that are equal, but differ
    [(1, 2), (1.0, 2), (True, 2)],
    [((0.0,), 1), ((-0.0,), 1)],
    [frozenset({1}), frozenset({1.0})],
    [Config(1), Config(1.0), Config(True)],
    [Config(2, (1,)), Config(2, (1.0,))],
]


@pytest.mark.parametrize("values", ALIKE)
def test_static_values_that_are_equal_but_differ_have_separate_programs(values):
    f, runs = _counted(lambda x, value: x + len(repr(value)))
    compiled = tp.jit(f, static="value")
    for _ in range(2):
        for value in values:
            assert torch.equal(compiled(X, value), X + len(repr(value)))
    assert len(runs) == len(values)


def test_the_training_mode_of_a_module_is_part_of_the_key():
    net = nn.Sequential(nn.Identity(), nn.Dropout(1.0))
    compiled = tp.jit(lambda net, x: net(x) if not net[1].training else x * 0)
    assert torch.equal(compiled(net, X), X * 0)
    assert torch.equal(compiled(net.eval(), X), X)
    net[1].train()
    assert torch.equal(compiled(net, X), X * 0)


def test_lower_accepts_shapes_in_place_of_tensors():
    lowered = tp.jit(lambda a, b: a @ b["w"]).lower(torch.ones(2, 3), {"w": tp.ShapeDtype((3, 4), torch.float32)})
    assert lowered.cost().operations == 2 * 2 * 3 * 4


class Point(NamedTuple):
    a: torch.Tensor
    b: dict


def test_keyword_arguments_defaults_and_trees():
    @tp.jit
    def f(point, /, scale, *more, shift=0.0, **rest):
        """Move."""
        return Point(point.a * scale, {**point.b, "sum": sum(more) + shift, **rest})

    point = Point(X, {"c": W, "none": None})
    assert_trees_close(f(point, 2.0, W, shift=W, d=X), f.__wrapped__(point, 2.0, W, shift=W, d=X))
    assert_trees_close(
        f(point, scale=W[0, 1], shift=W, e=(X, 1)), f.__wrapped__(point, scale=W[0, 1], shift=W, e=(X, 1))
    )
    assert f.__name__ == "f" and f.__doc__ == "Move."


class Model:
    def __init__(self, scale):
        self.scale = scale
        self.traces = 0

    @tp.jit
    def run(self, x):
        self.traces += 1
        return x * self.scale

    @partial(tp.jit, static="n")
    def sliced(self, x, n):
        return x[:n] * self.scale


def test_methods():
    one, two = Model(2.0), Model(W[0, 1])
    for _ in range(2):
        assert torch.equal(one.run(X), X * 2) and torch.equal(two.run(X), X * W[0, 1])
        assert torch.equal(one.sliced(X, n=2), X[:2] * 2) and torch.equal(one.sliced(X, 1), X[:1] * 2)
    assert one.traces == two.traces == 1


def test_a_captured_tensor_that_changes_in_place_is_seen():
    w = W.clone()
    f = tp.jit(lambda x: x @ w)
    g = tp.jit(lambda x: x @ (w * 2 + 1))  # a constant, computed while tracing
    for _ in range(3):
        assert_trees_close(f(X), X @ w, rtol=1e-13)
        assert_trees_close(g(X), X @ (w * 2 + 1), rtol=1e-13)
        w += 1
    w.data = torch.ones(3, 2, dtype=D)
    assert_trees_close(f(X), X @ w, rtol=1e-13)
    assert_trees_close(g(X), X @ (w * 2 + 1), rtol=1e-13)


def test_a_captured_mask_that_changes_in_place_is_seen():
    mask = torch.tensor([True, False, True])
    f = tp.jit(lambda x: x[:, mask] * mask.sum().item())
    assert torch.equal(f(X), X[:, [0, 2]] * 2)
    mask.logical_not_()
    assert torch.equal(f(X), X[:, [1]])


def test_a_captured_module_that_is_trained_is_seen():
    net = nn.Linear(3, 2).double()
    f = tp.jit(lambda x: torch.tanh(net(x)))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        with torch.no_grad():
            assert_trees_close(f(X), torch.tanh(net(X)), rtol=1e-12)
        assert f(X).requires_grad
        f(X).sum().backward()
        optimizer.step()
    net.load_state_dict({name: leaf * 2 for name, leaf in net.state_dict().items()})
    with torch.no_grad():
        assert_trees_close(f(X), torch.tanh(net(X)), rtol=1e-12)


def test_the_default_dtype_is_part_of_the_key():
    f = tp.jit(lambda x: torch.ones(2) * x)
    x = torch.tensor(2)
    assert f(x).dtype is torch.float32
    torch.set_default_dtype(D)
    try:
        assert f(x).dtype is D
    finally:
        torch.set_default_dtype(torch.float32)
    assert f(x).dtype is torch.float32


def test_without_tensors():
    assert tp.jit(lambda: 3)() == 3 and torch.equal(tp.jit(torch.ones)(2), torch.ones(2))
    assert tp.jit(lambda: None)() is None


def test_many_programs_for_changing_numbers_warn():
    f = tp.jit(lambda x, n: (x, n))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(40):
            assert f(X, n)[1] == n
    assert [str(w.message) for w in caught if "compiled 32 times" in str(w.message)] and len(caught) == 1
    assert caught[0].filename == __file__


def test_threads_share_programs():
    f, runs = _counted(lambda x: torch.sin(x) + 1)
    compiled, results = tp.jit(f), []
    threads = [threading.Thread(target=lambda: results.append(compiled(X))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 1 and len(results) == 4 and all(torch.equal(r, results[0]) for r in results)


def test_one_tensor_passed_twice():
    f, runs = _counted(lambda x, y: (x + y, x))
    compiled = tp.jit(f)
    for _ in range(3):
        assert torch.equal(compiled(X, X)[0], X + X) and torch.equal(compiled(X, 2 * X)[0], 3 * X)
    assert len(runs) == 1


def test_tensors_of_a_call_are_not_kept_alive():
    f = tp.jit(lambda x: x * 2)
    x = X.clone()
    out = f(x)
    seen = weakref.ref(x), weakref.ref(out)
    del x, out
    gc.collect()
    assert [one() for one in seen] == [None, None]


def test_a_call_costs_little():
    f, tensors = tp.jit(lambda *args: args), [torch.ones(4, 5) for _ in range(10)]
    f(*tensors)

    def once():
        start = time.perf_counter()
        for _ in range(200):
            f(*tensors)
        return (time.perf_counter() - start) / 200

    assert min(once() for _ in range(30)) < 60e-6  # 9 on an idle machine


def test_complex_programs_are_right_where_inductor_is_not():
    x = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inner = lambda x: torch.linalg.eig(x)[0].abs().sum()  # noqa: E731
    fn = tp.grad(lambda x: (tp.grad(inner)(x) * torch.arange(16.0, dtype=x.dtype).reshape(4, 4)).sum())
    torch.testing.assert_close(tp.jit(fn)(x), fn(x), rtol=1e-10, atol=1e-10)
    z = torch.randn(5, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(tp.jit(lambda z: torch.fft.fft(z * 2) / z.abs())(z), torch.fft.fft(z * 2) / z.abs())


NUMBERS = {
    "product": lambda x: torch.exp(1j * x),
    "sum": lambda x: (x + 1j).abs() * 2,
    "power": lambda x: x**1j,
    "comparison": lambda x: (x == 1j, x != 1 + 0j),
    "in a loop": lambda x: tp.scan(lambda c, row: (c + (row * 1j).imag.sum(), (row + 1j).abs() * c), x[0, 0], x),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_complex_numbers_with_real_tensors(name):
    assert_trees_close(tp.jit(NUMBERS[name])(X), NUMBERS[name](X))


INDEX = torch.tensor([0])
SELECTIONS = {
    "max": lambda a: a.max(0)[0],
    "max of all": lambda a: a.max(),
    "min": lambda a: a.min(0)[0],
    "max of rows": lambda a: a[None].max(1)[0],
    "argmax": lambda a: a.argmax(),
    "extremes": lambda a: a.amax(0) - a.amin(0),
    "index": lambda a: a[INDEX] * 2,
    "index of one": lambda a: a[torch.tensor(0)],
    "gather": lambda a: a.gather(0, INDEX),
    "index_select": lambda a: a.index_select(0, INDEX),
    "embedding": lambda a: nn.functional.embedding(INDEX, a[:, None]),
    "in a loop": lambda a: tp.scan(lambda c, row: (c + row.max(0)[0], c * 2 + 1), torch.tensor(1.0), a.expand(3, 0)),
    "index in a loop": lambda a: tp.scan(lambda c, row: (c + row[INDEX], c * 2), torch.ones(1), a.expand(3, 0)),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_selections_from_empty_tensors_are_errors_as_in_eager(name):
    for fn in (SELECTIONS[name], tp.jit(SELECTIONS[name])):
        with pytest.raises(
            (IndexError, RuntimeError), match=r"size 0|zero.size|numel\(\) == 0|out of range|be positive"
        ):
            fn(torch.zeros(0))


STRIDED = {
    "read": lambda a: (a.T + 1).as_strided((3, 2), (2, 1), 1) * 2,
    "written": lambda a: (a * 2).as_strided_scatter(a[:2, :2], (2, 2), (3, 2), 1),
    "written to a part": lambda a: (a * 2)[1:].as_strided_scatter(a[:2, :2], (2, 2), (3, 2), 1),
}


@pytest.mark.parametrize("name", STRIDED)
def test_strides_are_those_of_eager_memory(name):
    for x in (X, X.T.contiguous().T):  # torch.compile is wrong about the second
        assert torch.equal(tp.jit(STRIDED[name])(x), STRIDED[name](x))


def _attention(**options):
    def value(q, k, v):
        return (torch.nn.functional.scaled_dot_product_attention(q.sin(), k * 2, v, **options) ** 2).sum()

    return tp.grad(value, argnums=(0, 1, 2))


ATTENTION = {
    "plain": {},
    "causal": {"is_causal": True},
    "masked": {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril()},
    "weighted": {"attn_mask": torch.linspace(-1, 1, 25, dtype=D).reshape(5, 5), "scale": 0.3},
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_without_dropout_draws_nothing(name):
    given = [torch.linspace(-1, i, 160, dtype=D).reshape(2, 4, 5, 4) for i in (1, 2, 3)]
    fn = _attention(**ATTENTION[name])
    assert_trees_close(tp.jit(fn)(*given), fn(*given), rtol=1e-12)
    with pytest.raises(TransformError, match="draws from the global generator"):
        tp.jit(_attention(dropout_p=0.5))(*given)


def test_a_factory_with_counters_is_constructed_and_trained_for_each_member():
    net = tp.functional(lambda: nn.Sequential(nn.Linear(3, 2, dtype=D), nn.BatchNorm1d(2, dtype=D)))

    def train(key):
        params, state = net.init(key)

        def step(carry, _):
            params, state = carry

            def value(params):
                out, new = net.apply(params, state, X)
                return ((out - X[:, :2]) ** 2).mean(), new

            grads, state = tp.grad(value, has_aux=True)(params)
            return (tp.tree.map(lambda p, g: p - 0.1 * g, params, grads), state), None

        return tp.scan(step, (params, state), None, length=3)[0]

    keys = tp.random.split(tp.random.key(0), 3)
    params, state = tp.jit(tp.vmap(train))(keys)
    assert state["1.num_batches_tracked"].tolist() == [3, 3, 3]
    assert_trees_close(params, tp.vmap(train)(keys)[0], rtol=1e-10, atol=1e-12)


ROWS = {
    "forward over forward": tp.jacfwd(tp.jacfwd(lambda x: x.sin() * x)),
    "scan": tp.hessian(lambda x: tp.scan(lambda c, _: (c.sin(), None), x, None, length=2)[0].sum()),
    "cond": tp.hessian(lambda x: tp.cond(x.sum() > 0, torch.sin, torch.cos, x).sum()),
}


@pytest.mark.compile
@pytest.mark.parametrize("name", ROWS)
def test_second_derivatives_at_a_part_of_a_tensor(name):
    """torch's fake-tensor cache drops storage offsets of tangents: the second trace failed."""
    fn = ROWS[name]
    for _ in range(2):
        assert_trees_close(tp.make_graph(fn)(X[1])(X[1]), fn(X[1]))
        assert tp.eval_shape(fn, X[1]).shape == fn(X[1]).shape
    assert_trees_close(tp.jit(fn)(X[1]), fn(X[1]))


CONSTANTS = {
    "alone": lambda x: torch.tensor([1.0, 2.0]),
    "a part": lambda x: torch.tensor([[1.0, 2.0]])[0],
    "beside an argument": lambda x: (torch.tensor([1.0, 2.0]), x),
    "of a captured tensor": lambda x: W + 1,
    "beside a result": lambda x: (torch.tensor([1.0, 2.0]), x + 1),
    "beside what runs one by one": lambda x: (torch.tensor([1.0, 2.0]), torch.complex(x, x)),
}


@pytest.mark.compile
@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_is_new_at_each_call(name):
    compiled = tp.jit(CONSTANTS[name])
    for _ in range(2):
        out = compiled(torch.ones(2))
        assert_trees_close(out, CONSTANTS[name](torch.ones(2)))
        tp.tree.leaves(out)[0].add_(5)


def test_a_captured_tensor_that_is_returned_is_itself():
    assert tp.jit(lambda x: W)(X) is W
