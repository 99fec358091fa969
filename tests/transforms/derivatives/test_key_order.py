"""Key order carries no meaning: values of dicts are matched by key."""

import pytest
import torch
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import StructureError

D = torch.float64
X = torch.tensor([0.5, 1.5, -0.75], dtype=D)


def turned(tree):
    return dict(reversed(tree.items()))


def same(tree):
    return tree


def cond(order, x):
    return tp.cond(x > 0, lambda x: {"a": 10 * x, "b": x**2}, lambda x: order({"a": -x, "b": x**3}), x)


def switch(order, x):
    branches = [lambda x: {"a": x, "b": 2 * x}, lambda x: order({"a": 3 * x, "b": x**2}), lambda x: {"a": x, "b": x}]
    return tp.switch((x > 0).long(), branches, x)


def while_loop(order, x):
    def body(c):
        return order({"a": c["a"] * 1.5 + 0.5, "b": c["b"] + c["a"], "n": c["n"] + 1})

    return tp.while_loop(lambda c: c["n"] < 3, body, {"a": x, "b": 0 * x, "n": torch.tensor(0)})


def bounded(order, x):
    def body(c):
        return order({"a": c["a"].abs() * 2, "b": c["b"] + 1})

    return tp.while_loop(lambda c: c["a"] < 5, body, {"a": x, "b": 0 * x}, max_steps=9)


def scan(order, x, remat=None):
    def step(c, x):
        return order({"a": c["a"] + x, "b": c["b"] * x}), order({"y": c["a"] * x, "z": c["b"]})

    return tp.scan(step, {"a": x, "b": x**2}, X, remat=remat)


def turning(order, x):
    """Return ys whose key order alternates from step to step."""
    count = []

    def step(c, x):
        count.append(1)
        ys = {"y": c * x, "z": c + x}
        return c + x, order(ys) if len(count) % 2 else ys

    return tp.scan(step, x, X, remat=2)


def fori_loop(order, x):
    return tp.fori_loop(0, 3, lambda i, c: order({"a": c["a"] + i, "b": c["b"] * c["a"]}), {"a": x, "b": x**2})


def mapped(order, x):
    return tp.map(lambda y: order({"a": y * x, "b": y + x}), X, batch_size=2)


def associative_scan(order, x):
    def combine(one, two):
        return order({"a": one["a"] * two["a"], "b": one["b"] * two["a"] + two["b"]})

    return tp.associative_scan(combine, {"a": X * x, "b": X + x})


def custom_jvp(order, x):
    f = tp.custom_jvp(lambda p: {"a": 10 * p["x"], "b": p["x"] * p["y"]})

    @f.defjvp
    def rule(primals, tangents):
        (p,), (t,) = primals, tangents
        value = {"a": 10 * p["x"], "b": p["x"] * p["y"]}
        return order(value), order(turned({"a": 7 * t["x"], "b": p["y"] * t["x"] + p["x"] * t["y"]}))

    return f({"x": x, "y": x**2})


def custom_vjp(order, x):
    f = tp.custom_vjp(lambda p: {"a": 10 * p["x"], "b": p["x"] * p["y"]})

    def forward(p):
        return order({"a": 10 * p["x"], "b": p["x"] * p["y"]}), order(p)

    def backward(p, c):
        return (order({"x": 7 * c["a"] + p["y"] * c["b"], "y": p["x"] * c["b"]}),)

    f.defvjp(forward, backward)
    return f({"x": x, "y": x**2})


def custom_vmap(order, x):
    f = tp.custom_vmap(lambda x: {"a": 10 * x, "b": x**2})
    f.def_vmap(lambda size, batched, x: (order({"a": 10 * x, "b": x**2}), order({"b": True, "a": True})))
    return f(x)


FUNCTIONS = {
    "cond": cond,
    "switch": switch,
    "while_loop": while_loop,
    "while_loop with max_steps": bounded,
    "scan": scan,
    "scan with remat": lambda order, x: scan(order, x, remat=2),
    "scan whose keys turn": turning,
    "fori_loop": fori_loop,
    "map": mapped,
    "associative_scan": associative_scan,
    "custom_jvp": custom_jvp,
    "custom_vjp": custom_vjp,
    "custom_vmap": custom_vmap,
}


def total(f):
    """Weight each result by its key."""
    names = {name: i + 1.0 for i, name in enumerate("abnyz")}

    def weighed(tree):
        parts = tree if isinstance(tree, tuple) else (tree,)
        return sum(
            (names[name] * leaf * (1 if leaf.is_floating_point() else 0)).sum()
            for part in parts
            for name, leaf in (part.items() if isinstance(part, dict) else [("a", part)])
        )

    return lambda x: weighed(f(x))


WAYS = {
    "eager": lambda f: lambda: [f(x) for x in X],
    "program": lambda f: lambda: [tp.make_graph(f)(x)(x) for x in X],
    "vmap": lambda f: lambda: tp.vmap(f)(X),
    "chunks": lambda f: lambda: tp.vmap(f, chunk_size=1)(X),
    "jvp": lambda f: lambda: tp.vmap(lambda x: tp.jvp(f, (x,), (torch.ones_like(x),)))(X),
    "vmap of grad": lambda f: lambda: tp.vmap(tp.grad(total(f)))(X),
    "grad": lambda f: lambda: [tp.grad(total(f))(x) for x in X],
    "program of grad": lambda f: lambda: [tp.make_graph(tp.grad(total(f)))(x)(x) for x in X],
}
NO_BACKWARD = {("while_loop", way) for way in ("vmap of grad", "program of grad")}  # its length is not known
CASES = [(name, way) for name in FUNCTIONS for way in WAYS if (name, way) not in NO_BACKWARD]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_key_order_carries_no_meaning(name, way):
    results = [WAYS[way](lambda x, order=order: FUNCTIONS[name](order, x))() for order in (same, turned)]
    assert tp.tree.paths(results[0])
    assert_close(*results, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("way", ["eager", "vmap", "program"])
@pytest.mark.parametrize("name", ["while_loop", "while_loop with max_steps", "scan", "fori_loop", "associative_scan"])
def test_loops_return_the_key_order_of_their_initial_carry(name, way):
    result = WAYS[way](lambda x: FUNCTIONS[name](turned, x))()
    carry = (result if way == "vmap" else result[0])[0] if name == "scan" else result if way == "vmap" else result[0]
    assert list(carry)[:2] == ["a", "b"]


def test_key_order_carries_no_meaning_in_derivatives():
    primal, tangent = {"a": X[0], "b": X[1]}, {"b": torch.ones((), dtype=D), "a": 2 * torch.ones((), dtype=D)}

    def f(p):
        return {"s": p["a"] ** 2 * p["b"], "t": p["b"] ** 3}

    wanted = tp.jvp(f, (primal,), (turned(tangent),))[1]
    assert_close(tp.jvp(f, (primal,), (tangent,))[1], wanted)
    assert_close(tp.linearize(f, primal)[1](tangent), wanted)
    cotangent = {"t": X[2], "s": X[0]}
    assert_close(tp.vjp(f, primal)[1](cotangent), tp.vjp(f, primal)[1](turned(cotangent)))
    transpose = tp.linear_transpose(lambda p: {"s": p["a"] + 2 * p["b"], "t": p["b"]}, primal)
    assert_close(transpose(cotangent), ({"a": X[0], "b": 2 * X[0] + X[2]},))


def test_outputs_of_chunks_with_another_key_order():
    def turning_by_call(count=[]):  # noqa: B006
        def f(x):
            count.append(1)
            out = {"a": x, "b": 2 * x, "shared": X[0]}
            return turned(out) if len(count) % 2 else out

        return f

    dims = {"a": 0, "b": 0, "shared": None}
    wanted = {"a": X, "b": 2 * X, "shared": X[0]}
    assert_close(tp.vmap(turning_by_call(), out_dims=dims, chunk_size=1)(X), turned(wanted))
    rows = tp.jacfwd(turning_by_call(), chunk_size=1)(X)
    assert_close(rows["b"], 2 * torch.eye(3, dtype=D))


def test_key_order_of_arguments_carries_no_meaning_in_programs():
    def f(p):
        return p["a"] * 10 + p["b"]

    p = {"a": X, "b": X**2}
    assert_close(tp.make_graph(f)(p)(turned(p)), f(p))
    run = tp.jit(f)
    assert_close(run(p), f(p))
    assert_close(run(turned(p)), f(p))


def test_other_keys_are_an_error():
    count = []

    def counted(c, x):
        count.append(1)
        return c + x, {"a": x} if len(count) % 2 else {"b": x}

    with pytest.raises(StructureError, match=r"^scan: `.*counted` .*: the y of one step .*: trees differ at `\.`: "):
        tp.scan(counted, X[0], X)
