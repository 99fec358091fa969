"""Errors of operators: who, where, what was wanted, what came, the way out."""

import pytest
import torch

import torchpure as tp

X = torch.tensor([0.3, -0.7, 0.45])
KEY = tp.random.key(0)
LAYERS = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
DOUBLE = X.double()
MIXED = {  # operators of a network in another dtype
    "laplacian": lambda f: tp.laplacian(f)(DOUBLE),
    "bilaplacian": lambda f: tp.bilaplacian(f)(DOUBLE),
    "hessian_diagonal": lambda f: tp.hessian_diagonal(f)(DOUBLE),
    "divergence": lambda f: tp.divergence(f)(DOUBLE),
    "curl": lambda f: tp.curl(f)(DOUBLE),
    "jacobian_diagonal": lambda f: tp.jacobian_diagonal(f)(DOUBLE),
    "strain": lambda f: tp.strain(f)(DOUBLE),
    "advection": lambda f: tp.advection(f)(DOUBLE),
    "directional": lambda f: tp.directional(f, DOUBLE, 2)(DOUBLE),
    "partial": lambda f: tp.partial(f, "xy", coordinates="xyz")(DOUBLE),
    "partials": lambda f: tp.partials(f, ["x", "yy"], coordinates="xyz")(DOUBLE),
    "jet": lambda f: tp.jet(f, (DOUBLE,), ((DOUBLE, DOUBLE),)),
    "hutchinson_laplacian": lambda f: tp.operators.hutchinson_laplacian(f)(DOUBLE, key=KEY),
    "hutchinson_divergence": lambda f: tp.operators.hutchinson_divergence(f)(DOUBLE, key=KEY),
    "stde_laplacian": lambda f: tp.operators.stde_laplacian(f, 2)(DOUBLE, key=KEY),
    "stde_bilaplacian": lambda f: tp.operators.stde_bilaplacian(f)(DOUBLE, key=KEY),
    "vmap": lambda f: tp.vmap(f)(DOUBLE[None]),
    "grad": lambda f: tp.grad(lambda x: f(x).sum())(DOUBLE),
    "jvp": lambda f: tp.jvp(f, (DOUBLE,), (DOUBLE,)),
    "hessian": lambda f: tp.hessian(f)(DOUBLE),
}


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
    "no words": (lambda: tp.partials(wave, None), r'partials: a derivative is a word such as "xxt", .* got None'),
    "a number for a word": (lambda: tp.partials(wave, ("xx", 3)), r'partials: a derivative is a word such as "xxt", .* got 3'),
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


def _without_second_derivative(x):
    return torch.ops.aten.glu(torch.cat([x, x])).sum()


def _without_derivative(x):
    return torch.segment_reduce(x, "sum", lengths=torch.tensor([1, 2])).sum()


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("who", ["laplacian", "bilaplacian", "jet"])
def test_an_operation_without_a_second_derivative_is_named_with_its_line(who):
    run = (lambda fn: tp.jet(fn, (X,), ([X, X],))) if who == "jet" else (lambda fn: getattr(tp, who)(fn)(X))
    line = _without_second_derivative.__code__.co_firstlineno + 1
    with pytest.raises(
        tp.errors.TransformError,
        match=rf"^{who}: `_without_second_derivative` .*, line {line} of test_errors.py, uses `glu.*tp.custom_jvp",
    ):
        run(_without_second_derivative)
    with pytest.raises(
        tp.errors.TransformError,
        match=rf"^{who}: `_without_derivative` .*, line \d+ of test_errors.py, uses `segment_reduce`, which has no forward",
    ):
        run(_without_derivative)


NET = tp.functional(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)))
KINKED = {
    "laplacian": lambda: tp.laplacian(lambda x: NET(NET.params, x)[0])(X),
    "hessian_diagonal": lambda: tp.hessian_diagonal(lambda x: NET(NET.params, x)[0])(X)[0],
    "partials": lambda: tp.partials(lambda x: NET(NET.params, x)[0], ("x", "xx"), coordinates="xyz")(X)[1],
    "bilaplacian": lambda: tp.bilaplacian(lambda x: NET(NET.params, x)[0])(X),
    "directional": lambda: tp.directional(lambda x: NET(NET.params, x)[0], X, order=2)(X),
}


@pytest.mark.parametrize("name", KINKED)
def test_a_function_that_is_linear_between_kinks_is_warned_of(name):
    with pytest.warns(UserWarning, match=r"zero everywhere.*`relu`, line \d+ of test_errors.py\. .*take tanh, GELU"):
        assert KINKED[name]() == 0


@pytest.mark.parametrize(
    "activation", [torch.relu, torch.nn.functional.leaky_relu, torch.nn.functional.relu6, torch.nn.functional.hardtanh]
)
def test_each_activation_with_kinks_is_known(activation):
    for run in (tp.laplacian, tp.bilaplacian, lambda fn: tp.directional(fn, X, order=3)):
        with pytest.warns(UserWarning, match=f"`{activation.__name__}`"):
            assert run(lambda x: activation(x).sum())(X) == 0
    smooth = lambda x: activation(x.sin()).exp().sum()  # noqa: E731
    torch.testing.assert_close(tp.laplacian(smooth)(X), tp.hessian(smooth)(X).trace())
    torch.testing.assert_close(tp.bilaplacian(smooth)(X), tp.laplacian(tp.laplacian(smooth))(X))


def test_kinks_beside_curvature_are_not_warned_of():
    assert tp.laplacian(lambda x: (torch.relu(x) ** 3).sum())(X) != 0  # the deep Ritz method
    assert tp.laplacian(lambda x: torch.relu(x.tanh()).sum())(X) != 0
    assert tp.laplacian(lambda x: (2 * x).sum())(X) == 0
    assert tp.laplacian(lambda x: x.abs().sum())(X) == 0
    assert tp.divergence(torch.relu)(X) == 2  # first derivatives are of use


def test_an_error_of_the_user_is_seen_as_it_is():
    with pytest.raises(ZeroDivisionError):
        tp.laplacian(lambda x: x / (1 // 0))(X)


def test_a_write_into_an_argument_is_refused():
    with pytest.raises(tp.errors.ImpureError):
        tp.laplacian(lambda x: x.mul_(2).sum())(X.clone())


@pytest.mark.parametrize("name", MIXED)
def test_an_error_about_dtypes_names_the_argument_and_the_parameter(name):
    wanted = (
        rf"{name}: .*, line \d+ of test_errors.py, mixes dtypes .*: argument `x` is float64 and parameter `0.weight` of"
    )
    with pytest.raises(tp.errors.TransformError, match=wanted + " Sequential is float32. Cast one"):
        MIXED[name](lambda x: LAYERS(x))


def test_an_error_about_dtypes_names_paths_of_parameters():
    params = {"w": torch.ones(3, 3)}
    with pytest.raises(tp.errors.TransformError, match=r"argument `p` at `w` is float32 and argument `x` is float64"):
        tp.grad(lambda p, x: (x @ p["w"]).sum())(params, DOUBLE)
    with pytest.raises(
        tp.errors.TransformError, match=r"argument `x` is float64 and captured `params` at `w` is float32"
    ):
        tp.laplacian(lambda x: (x @ params["w"]).sum())(DOUBLE)
    with pytest.raises(
        tp.errors.TransformError, match=r"`Linear` mixes .* `input` is float64 and parameter `weight` of L"
    ):
        tp.vmap(LAYERS[0])(DOUBLE[None])
