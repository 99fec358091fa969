"""Errors of operators: who, where, what was wanted, what came, the way out."""

import pytest
import torch

import torchpure as tp

X = torch.tensor([0.3, -0.7, 0.45])


def u(x):
    return (x**3).sum()


def wave(x, t):
    return x * t


def _through_a_view(x):
    h = x * 2
    part = h[:2]
    part += x[:2].sin()
    return (h**3).sum()


ERRORS = {
    "integer point": (lambda: tp.laplacian(u)(torch.arange(3)), r"laplacian: .*nothing to differentiate: argument 0 is an int64 tensor.*Wanted a floating"),
    "complex point": (lambda: tp.laplacian(u)(X + 0j), r"laplacian: .*argument 0 is complex, and coordinates are real"),
    "no coordinates": (lambda: tp.laplacian(u)(X[:0]), r"laplacian: the point of .* has no coordinates"),
    "no function": (lambda: tp.laplacian(3), r"laplacian: .*3"),
    "weights": (lambda: tp.laplacian(u, weights=X[:2])(X), r"weights must have shape \(3,\) or \(3, 3\) for 3 coordinates, got"),
    "has_aux": (lambda: tp.laplacian(u, has_aux=True)(X), r"laplacian: with has_aux, .* must return \(value, aux\)"),
    "no tensor": (lambda: tp.laplacian(lambda x: 3)(X), r"must return floating point or complex tensors"),
    "not as many components": (lambda: tp.divergence(u)(X), r"divergence: .*wanted shapes \[\(3,\)\], got \[\(\)\].*use tp.vmap"),
    "curl of a scalar": (lambda: tp.curl(u)(X), r"curl: .*wanted shapes"),
    "curl in four dimensions": (lambda: tp.curl(lambda x: x)(torch.ones(4)), r"curl: the point .* shape \(2,\) or \(3,\), got"),
    "strain of a batch": (lambda: tp.strain(lambda x: x)(torch.ones(4, 3)), r"strain: .*use tp.vmap for many"),
    "velocity": (lambda: tp.advection(lambda x: x, X[:2])(X), r"advection: the velocity for argument 0: wanted shape \(3,\), like the point"),
    "direction": (lambda: tp.directional(u, X[:2])(X), r"directional: the direction for argument 0: wanted shape \(3,\)"),
    "order zero": (lambda: tp.directional(u, X, order=0), r"directional: the order .* must be an int, at least 1, got 0"),
    "order true": (lambda: tp.directional(u, X, order=True), r"at least 1, got True"),
    "empty word": (lambda: tp.partial(wave, ""), r"partial: the order .* must be at least 1: .*got ''"),
    "unknown name": (lambda: tp.partial(wave, "xy"), r"partial: .*wave.* has no coordinate 'y' of 'xy': there are 'x', 't'"),
    "unknown number": (lambda: tp.partial(u, (0, 4), coordinates="xyz")(X), r"has no coordinate 4: there are 3, from 0"),
    "one word for several": (lambda: tp.partials(wave, "xt"), r"wanted a tuple of words, got 'xt': for one write \('xt',\)"),
    "coordinates": (lambda: tp.partial(u, "x", coordinates="xy")(X), r"2 names of coordinates, x, y, for a point .* with 3 entries"),
    "argument with entries": (lambda: tp.partial(wave, "x")(X, X), r"must have one entry, got .*coordinates=\"xt\""),
    "series of other lengths": (lambda: tp.jet(wave, (X, X), ([X], [X, X])), r"jet: each series must .* got lengths \[1, 2\]"),
    "write through a view": (lambda: tp.laplacian(_through_a_view)(X), r"in place into a value that a second forward derivative follows.*h = h"),
    "no series": (lambda: tp.jet(u, (X,), ([],)), r"jet: each series .* at least one, got lengths \[0\]"),
    "series of one argument": (lambda: tp.jet(wave, (X, X), ([X],)), r"jet: wanted a tuple of primals and a tuple of series"),
    "term": (lambda: tp.jet(u, (X,), ([X[:2]],)), r"jet: term 1 for argument 0: wanted shape \(3,\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_says_what_to_do(name):
    call, message = ERRORS[name]
    with pytest.raises((tp.errors.TransformError, TypeError), match=message):
        call()


def test_an_error_of_the_user_is_seen_as_it_is():
    with pytest.raises(ZeroDivisionError):
        tp.laplacian(lambda x: x / (1 // 0))(X)


def test_a_write_into_an_argument_is_refused():
    with pytest.raises(tp.errors.ImpureError):
        tp.laplacian(lambda x: x.mul_(2).sum())(X.clone())
