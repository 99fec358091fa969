"""A program keeps the numbers that Python and NumPy draw while it is traced, and a warning says so."""

import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

import torchpure as tp

X = torch.ones(2)
DRAWS = {  # name of the generator: a function that draws from it
    "`random`": lambda x: x * random.random(),
    "`numpy.random`": lambda x: x * float(np.random.randn()),
    "`random` and `numpy.random`": lambda x: x * random.random() + float(np.random.rand()),
}
TRACED = {
    "make_graph": lambda f: tp.make_graph(f)(X),
    "make_graph: grad": lambda f: tp.make_graph(tp.grad(lambda x: f(x).sum()))(X),
    "make_graph: scan": lambda f: tp.make_graph(lambda x: tp.scan(lambda c, _: (f(c), None), x, None, length=2)[0])(X),
    "jit": lambda f: tp.jit(f).lower(X),
}


@pytest.mark.parametrize("traced", TRACED)
@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_in_a_trace_warns(name, traced):
    with pytest.warns(UserWarning, match=rf"^{traced.split(':')[0]}: .* draws from {name} while it is traced"):
        TRACED[traced](DRAWS[name])


@pytest.mark.parametrize("traced", TRACED)
def test_a_trace_without_draws_warns_of_nothing(traced):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = np.random.default_rng(0)
        TRACED[traced](lambda x: x * float(own.normal()))


def test_eager_transforms_draw_anew():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, other = (tp.grad(lambda x: DRAWS["`random`"](x).sum())(X) for _ in range(2))
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("drawn", "warns"), [("np.random.rand()", True), ("np.random.default_rng(0).normal()", False)])
def test_the_first_draw_of_a_process(drawn, warns):
    """NumPy imports its generators when they are first used."""
    code = (
        "import sys, torch, numpy as np, torchpure as tp; assert 'numpy.random' not in sys.modules;"
        f"tp.jit(lambda x: x * {drawn}).lower(torch.ones(2))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert ("draws from `numpy.random` while it is traced" in done.stderr) is warns
