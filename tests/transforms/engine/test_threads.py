"""Several threads at once, although torch counts forward levels for the whole process."""

import threading

import pytest
import torch
from torch.autograd import forward_ad
from torch.testing import assert_close

import torchpure as tp

D = torch.float64
X = torch.tensor([0.3, -1.2], dtype=D)


def sines(x):
    return torch.sin(torch.sin(x))


def cube(x):
    return (x**3).sum()


def in_threads(*works):
    """Run each in its own thread, all at once, and raise the first error of any."""
    errors = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


CALLS = {
    "grad": (tp.grad(cube), 3 * X**2),
    "grad of grad": (tp.grad(lambda x: tp.grad(cube)(x).sum()), 6 * X),
    "vmap of grad": (tp.vmap(tp.grad(lambda t: t**3)), 3 * X**2),
    "jvp": (lambda x: tp.jvp(sines, (x,), (torch.ones_like(x),))[1], torch.cos(torch.sin(X)) * torch.cos(X)),
    "jvp of jvp": (
        lambda x: tp.jvp(lambda y: tp.jvp(lambda z: z**3, (y,), (torch.ones_like(y),))[1], (x,), (x,))[1],
        6 * X**2,
    ),
    "jacfwd": (tp.jacfwd(lambda x: x**3), torch.diag(3 * X**2)),
    "jacrev": (tp.jacrev(lambda x: x**3), torch.diag(3 * X**2)),
    "hessian": (tp.hessian(cube), torch.diag(6 * X)),
}


@pytest.mark.parametrize("name", CALLS)
def test_one_transform_in_four_threads(name):
    fn, expected = CALLS[name]

    def work():
        for _ in range(40):
            assert_close(fn(X), expected, rtol=1e-12, atol=0)

    in_threads(*[work] * 4)
    assert forward_ad._current_level == -1


def test_all_transforms_at_once():
    def work_of(fn, expected):
        def work():
            for _ in range(15):
                assert_close(fn(X), expected, rtol=1e-12, atol=0)

        return work

    in_threads(*[work_of(*call) for call in CALLS.values()])
    assert forward_ad._current_level == -1


def test_a_thread_started_inside_a_differentiated_function():
    def fn(x):
        found = {}

        def work():
            found["own"] = tp.grad(cube)(x).sum()
            found["captured"] = tp.grad(lambda y: (y**2 * x).sum())(torch.ones(2, dtype=D)).sum()

        in_threads(work)
        return found["own"] + found["captured"]

    assert_close(tp.grad(fn)(X), 6 * X + 2, rtol=1e-12, atol=0)


def test_a_thread_started_inside_a_forward_derivative():
    found = []

    def fn(x):
        in_threads(lambda: found.append(tp.jvp(sines, (X,), (X,))[1]))
        return x**2

    assert_close(tp.jvp(fn, (X,), (X,))[1], 2 * X**2, rtol=1e-12, atol=0)
    assert_close(found[0], X * torch.cos(torch.sin(X)) * torch.cos(X), rtol=1e-12, atol=0)


def test_a_forward_level_of_torch_is_joined():
    def inner(x):
        return tp.jvp(lambda y: y**3, (x,), (torch.ones_like(x),))[1]

    assert_close(torch.func.jvp(inner, (X,), (X,))[1], 6 * X**2, rtol=1e-12, atol=0)
    assert forward_ad._current_level == -1


def test_an_exception_closes_the_level():
    def broken(x):
        raise KeyError("broken")

    for fn in (lambda: tp.jvp(broken, (X,), (X,)), lambda: tp.jacfwd(broken)(X), lambda: tp.hessian(broken)(X)):
        with pytest.raises(KeyError, match="broken"):
            fn()
        assert forward_ad._current_level == -1
    assert_close(tp.jacfwd(cube)(X), 3 * X**2, rtol=1e-12, atol=0)
