"""The laws in the docstrings of operators, in every stack of transforms, and closed forms."""

import pytest
import stacks
import torch

import torchpure as tp

D = torch.float64
X = torch.tensor([0.3, -0.7, 0.45], dtype=D)
U = torch.tensor([0.3, 0.7], dtype=D)
T = torch.tensor(0.6, dtype=D)


def close(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


def scalar(x):
    return torch.sin(x[0]) * x[1] ** 3 + torch.exp(x.sum() * x[0])


def field(x):
    return torch.stack([torch.sin(x[1]) * x[0] ** 2, torch.exp(x[0] * x[2]), x.prod()])


def wave(x, t):
    return torch.sin(3 * x - t) * torch.exp(-t * x**2)


# stacks of transforms: an operator against a closed form
PLANE = lambda x: torch.sin(x[0]) * x[1] ** 3  # noqa: E731
CLOSED = {
    "laplacian": (tp.laplacian(PLANE), lambda x: torch.sin(x[0]) * (6 * x[1] - x[1] ** 3)),
    "divergence": (
        tp.divergence(lambda x: torch.stack([PLANE(x), x.prod()])),
        lambda x: torch.cos(x[0]) * x[1] ** 3 + x[0],
    ),
    "curl": (tp.curl(lambda x: torch.stack([PLANE(x), x.prod()])), lambda x: x[1] - 3 * torch.sin(x[0]) * x[1] ** 2),
    "partial": (tp.partial(PLANE, "xyy", coordinates="xy"), lambda x: 6 * torch.cos(x[0]) * x[1]),
    "directional": (
        tp.directional(PLANE, torch.tensor([0.0, 2.0], dtype=D), order=2),
        lambda x: 24 * torch.sin(x[0]) * x[1],
    ),
}


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("stack", stacks.STACKS)
def test_an_operator_is_its_closed_form_in_every_stack(name, stack):
    operator, closed = CLOSED[name]
    if stack in {"jacrev jacrev"} and name == "divergence":
        closed = lambda x, closed=closed: closed(x) + 0 * x.sum()  # noqa: E731
    close(stacks.STACKS[stack](operator), stacks.STACKS[stack](closed))


def test_law_laplacian_is_the_trace_of_the_hessian():
    close(tp.laplacian(scalar)(X), tp.hessian(scalar)(X).diagonal().sum())


def test_law_bilaplacian_is_laplacian_of_laplacian():
    close(tp.bilaplacian(scalar)(X), tp.laplacian(tp.laplacian(scalar))(X))
    parts = tp.bilaplacian(scalar, with_value=True)(X)
    close(tuple(parts), (scalar(X), tp.laplacian(scalar)(X), tp.bilaplacian(scalar)(X)))


def test_law_hessian_diagonal_is_the_diagonal_of_the_hessian():
    close(tp.hessian_diagonal(scalar)(X), tp.hessian(scalar)(X).diagonal())
    parts = tp.hessian_diagonal(scalar, with_value=True)(X)
    close(tuple(parts), (scalar(X), tp.grad(scalar)(X), tp.hessian(scalar)(X).diagonal()))


def test_law_jacobian_diagonal_is_the_diagonal_of_jacfwd():
    close(tp.jacobian_diagonal(field)(X), tp.jacfwd(field)(X).diagonal())


def test_law_divergence_of_a_gradient_is_the_laplacian():
    close(tp.divergence(tp.grad(scalar))(X), tp.laplacian(scalar)(X))


def test_law_curl_of_a_gradient_is_zero():
    close(tp.curl(tp.grad(scalar))(X), torch.zeros(3, dtype=D))


def test_law_divergence_of_a_curl_is_zero():
    close(tp.divergence(tp.curl(field))(X), torch.zeros((), dtype=D))


def test_law_the_trace_of_strain_is_the_divergence():
    close(tp.strain(field)(X).trace(), tp.divergence(field)(X))
    close(tp.strain(field)(X), (tp.jacfwd(field)(X) + tp.jacfwd(field)(X).mT) / 2)


def test_law_advection_is_the_jacobian_times_the_velocity():
    v = X.exp()
    close(tp.advection(field, v)(X), tp.jacfwd(field)(X) @ v)
    close(tp.advection(field, lambda x: x.exp())(X), tp.jacfwd(field)(X) @ v)
    close(tp.advection(field)(X), tp.jacfwd(field)(X) @ field(X))


def test_law_partials_are_each_partial():
    words = ("", "t", "x", "xt", "xx", "xxt", "xxxx")
    every = tp.partials(wave, words)(T, U[0])
    for word, one in zip(words, every, strict=True):
        close(one, tp.partial(wave, word)(T, U[0]) if word else wave(T, U[0]))


def test_law_partial_does_not_depend_on_the_order_of_the_names():
    close(tp.partial(wave, "xt")(T, U[0]), tp.partial(wave, "tx")(T, U[0]))
    close(tp.partial(wave, "xtx")(T, U[0]), tp.partial(wave, (0, 0, 1))(T, U[0]))
    close(tp.partial(wave, "xxt")(T, U[0]), tp.grad(tp.grad(tp.grad(wave)), argnums=1)(T, U[0]))


def test_law_directional_of_order_one_is_jvp():
    v = X.exp()
    close(tp.directional(field, v)(X), tp.jvp(field, (X,), (v,))[1])


def test_law_the_first_term_of_jet_is_jvp():
    v = X.exp()
    close(tp.jet(field, (X,), ([v],)), (field(X), [tp.jvp(field, (X,), (v,))[1]]))


def test_weights_of_a_laplacian():
    vector, matrix = X.exp(), torch.outer(X, X.cos())
    hessian = tp.hessian(scalar)(X)
    close(tp.laplacian(scalar, weights=vector)(X), (hessian.diagonal() * vector).sum())
    close(tp.laplacian(scalar, weights=matrix)(X), (hessian * matrix).sum())


def test_values_and_points_may_be_trees():
    def u(point, scale):
        x, y = point["x"], point["y"]
        return {"a": (x**2).sum() * y.prod() * scale, "b": [x * y[0], 3, None]}, {"seen": x}

    point = {"x": X, "y": U, "n": 3}
    (parts, aux) = tp.laplacian(u, has_aux=True, with_value=True)(point, T)
    close(parts.laplacian["a"], 6 * U.prod() * T)
    close(parts.laplacian["b"][0], torch.zeros(3, dtype=D))
    close(parts.gradient["a"]["y"], (X**2).sum() * U.flip(0) * T)
    assert parts.laplacian["b"][1] is None and parts.value["b"][1] == 3 and parts.gradient["a"]["n"] is None
    close(aux["seen"], X)
    both = tp.laplacian(lambda x, y: x.prod() * (y**2).sum(), argnums=(0, 1))(X, U)
    close(both, 4 * X.prod())


def test_complex_values_have_laplacians():
    close(tp.laplacian(lambda x: torch.exp(1j * (2 * x[0] + x[1])))(U), -5 * torch.exp(1j * (2 * U[0] + U[1])))


def test_with_value_of_first_order_operators():
    close(tp.divergence(field, with_value=True)(X), (field(X), tp.divergence(field)(X)))
    close(tp.curl(field, with_value=True)(X), (field(X), tp.curl(field)(X)))
    close(tp.strain(field, with_value=True)(X), (field(X), tp.strain(field)(X)))
    close(tp.advection(field, X, with_value=True)(X), (field(X), tp.jacfwd(field)(X) @ X))
    close(tp.jacobian_diagonal(field, with_value=True)(X), (field(X), tp.jacfwd(field)(X).diagonal()))
    close(tp.partials(wave, ("x",), with_value=True)(T, T), (wave(T, T), (tp.grad(wave)(T, T),)))
    close(tp.partial(wave, "x", with_value=True)(T, T), (wave(T, T), tp.grad(wave)(T, T)))


def test_partials_may_stand_beside_parameters():
    def u(params, x, t):
        return params["a"] * torch.sin(x) * t**2

    params = {"a": T}
    got = tp.partials(u, ("t", "xx"))(params, U[0], U[1])
    close(got, (2 * T * torch.sin(U[0]) * U[1], -T * torch.sin(U[0]) * U[1] ** 2))
    vector = lambda z: torch.sin(z[0]) * z[1] ** 2  # noqa: E731
    close(tp.partials(vector, ("t", "xx"), coordinates="xt")(U), tuple(one / T for one in got))


def test_many_points_by_vmap_and_in_loops():
    many = torch.stack([X, X.flip(0), X.exp()])
    wanted = torch.stack([tp.hessian(scalar)(x).diagonal().sum() for x in many])
    close(tp.vmap(tp.laplacian(scalar))(many), wanted)
    close(tp.scan(lambda c, x: (c, tp.laplacian(scalar)(x)), None, many)[1], wanted)
    close(tp.remat(tp.vmap(tp.laplacian(scalar)))(many), wanted)


@pytest.mark.compile
def test_operators_compile():
    many = torch.stack([X, X.flip(0), X.exp()])

    def loss(scale):
        u = lambda x: scalar(scale * torch.tanh(x))  # noqa: E731
        rows = tp.vmap(tp.laplacian(u))(many), tp.vmap(tp.partial(u, "xy", coordinates="xyz"))(many)
        return sum((row**2).sum() for row in rows)

    close(tp.jit(tp.grad(loss))(T), tp.grad(loss)(T))
