"""Callbacks get values: in eager code at once, for each member, once under derivatives, and when a program runs."""

import pytest
import torch

import torchpure as tp
from torchpure.errors import TransformError

X = torch.tensor([1.0, 2.0])


def listening(heard):
    def f(x):
        tp.debug.callback(lambda tree: heard.append(float(tree["x"])), {"x": x, "name": "x"})
        return x**2

    return f


def loop(heard):
    f = listening(heard)
    return lambda x: tp.scan(lambda c, _: (f(c), None), x, None, 2)[0]


CASES = {
    "value": (lambda f: f(X[1]), [2.0]),
    "vmap": (lambda f: tp.vmap(f)(X), [1.0, 2.0]),
    "vmap vmap": (lambda f: tp.vmap(tp.vmap(f))(torch.stack([X, X + 2])), [1.0, 2.0, 3.0, 4.0]),
    "grad": (lambda f: tp.grad(f)(X[1]), [2.0]),
    "vmap grad": (lambda f: tp.vmap(tp.grad(f))(X), [1.0, 2.0]),
    "grad vmap": (lambda f: tp.grad(lambda x: tp.vmap(f)(x).sum())(X), [1.0, 2.0]),
    "jvp": (lambda f: tp.jvp(f, (X[1],), (X[0],)), [2.0]),
    "hessian": (lambda f: tp.hessian(f)(X[1]), [2.0]),
}


@pytest.mark.parametrize("name", CASES)
def test_how_often_a_callback_is_called(name):
    run, expected = CASES[name]
    heard = []
    run(listening(heard))
    assert heard == expected


@pytest.mark.parametrize("name", ["vmap", "vmap grad", "grad vmap"])
def test_a_traced_program_calls_back_when_it_runs(name):
    make = {
        "vmap": tp.vmap,
        "vmap grad": lambda f: tp.vmap(tp.grad(f)),
        "grad vmap": lambda f: tp.grad(lambda x: tp.vmap(f)(x).sum()),
    }
    for inside, expected in ((listening, [1.0, 2.0]), (loop, [1.0, 2.0, 1.0, 4.0])):
        heard = []
        graph = tp.make_graph(make[name](inside(heard)))(X)
        assert heard == []
        graph(X)
        graph(X)
        assert heard == expected * 2


def test_batched_values_in_other_dimensions_and_unbatched_values():
    heard = []
    xs = torch.arange(6.0).reshape(2, 3)
    tp.vmap(
        lambda x, y: (tp.debug.callback(lambda *v: heard.append([e.tolist() for e in v]), x, y), x)[1],
        in_dims=(1, None),
    )(xs, X)
    assert heard == [[[0.0, 3.0], [1.0, 2.0]], [[1.0, 4.0], [1.0, 2.0]], [[2.0, 5.0], [1.0, 2.0]]]


def test_print(capsys):
    tp.vmap(lambda x: (tp.debug.print("x = {x:.1f}, {}", {"a": x}, x=x), x)[1])(X)
    assert capsys.readouterr().out == "x = 1.0, {'a': 1.0}\nx = 2.0, {'a': 2.0}\n"


def test_a_callback_must_be_a_function():
    with pytest.raises(TransformError, match=r"^debug.callback: wanted a function, got int 3$"):
        tp.debug.callback(3, X)


def _in_branches(x):
    def took(x):
        tp.debug.print("took {:g}", x)
        return 2 * x

    def other(x):
        tp.debug.print("other {:g}", x)
        return x

    return tp.cond(x > 0.5, took, other, x)


def _in_a_loop(x):
    def body(x):
        tp.debug.print("{:g}", x)
        return 2 * x

    return tp.while_loop(lambda x: x < 1, body, x)


def _without_operands(x):
    return tp.cond(x > 0.5, lambda: (tp.debug.print("took"), 2 * x)[1], lambda: x)


THREE = torch.tensor([0.25, 0.75, 0.125])
IN_BRANCHES = {  # name -> (run, lines in any order)
    "vmap": (lambda: tp.vmap(_in_branches)(THREE), ["other 0.125", "other 0.25", "took 0.75"]),
    "vmap of grad": (lambda: tp.vmap(tp.grad(_in_branches))(THREE), ["other 0.125", "other 0.25", "took 0.75"]),
    "vmap of vmap": (
        lambda: tp.vmap(tp.vmap(_in_branches))(THREE[:, None]),
        ["other 0.125", "other 0.25", "took 0.75"],
    ),
    "nested": (
        lambda: tp.vmap(lambda x: tp.cond(x > 0.2, _in_branches, lambda x: x, x))(THREE),
        ["other 0.25", "took 0.75"],
    ),
    "while": (lambda: tp.vmap(_in_a_loop)(THREE), ["0.125", "0.25", "0.25", "0.5", "0.5", "0.75"]),
    "no operands": (lambda: tp.vmap(_without_operands)(THREE), ["took"]),
    "no member": (lambda: tp.vmap(_without_operands)(THREE[:1]), []),
    "outside of vmap": (lambda: _in_branches(THREE[1]), ["took 0.75"]),
    "switch": (
        lambda: tp.vmap(
            lambda i, x: tp.switch(i, [lambda x, n=n: (tp.debug.print("{} {:g}", n, x), x)[1] for n in range(3)], x)
        )(torch.tensor([2, 0, 2]), THREE),
        ["0 0.75", "2 0.125", "2 0.25"],
    ),
}


@pytest.mark.parametrize("name", IN_BRANCHES)
def test_a_branch_prints_for_the_members_that_run_it(name, capsys):
    run, lines = IN_BRANCHES[name]
    run()
    assert sorted(capsys.readouterr().out.splitlines()) == lines


@pytest.mark.compile
def test_a_branch_of_a_compiled_program_prints_for_the_members_that_run_it(capsys):
    fast = tp.jit(tp.vmap(_in_branches))
    for _ in range(2):
        fast(THREE)
        assert sorted(capsys.readouterr().out.splitlines()) == ["other 0.125", "other 0.25", "took 0.75"]
