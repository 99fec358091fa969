"""What torch gets silently wrong, row by row: torch's own call shows it, and ours is right or refuses.

A row that torch has repaired names the version that did: torch must be wrong before it, and right since. When
`torch_is` fails, torch has repaired one more, or broken one again.
"""

import warnings

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import TransformError

D = torch.float64
TORCH = tuple(map(int, torch.__version__.split(".")[:2]))
X = torch.tensor([0.3, 0.7, -1.1], dtype=D)
V = torch.tensor([1.0, -2.0, 0.5], dtype=D)


def torch_is(right, since=None):
    """Assert that torch is right in the versions since the one that repaired it, and wrong in those before."""
    repaired = since is not None and since <= TORCH
    assert right == repaired, f"torch {torch.__version__} is {'right' if right else 'wrong'}"


class Tenfold(torch.autograd.Function):
    """A sine whose backward pass is ten times the derivative."""

    @staticmethod
    def forward(x):
        return torch.sin(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, cotangent):
        return 10 * cotangent * torch.cos(ctx.saved_tensors[0])


def tenfold():
    f = tp.custom_vjp(torch.sin)
    f.defvjp(lambda x: (torch.sin(x), x), lambda x, cotangent: (10 * cotangent * torch.cos(x),))
    return f


def test_a_custom_backward_is_honoured_by_jit():
    """torch.compile(torch.func.grad(f)) ignores it, whoever has written it."""
    wanted = 10 * torch.cos(X)
    for f in (Tenfold.apply, tenfold()):
        assert_close(tp.jit(tp.grad(lambda x, f=f: f(x).sum()))(X), wanted)
        assert_close(tp.jit(lambda x, f=f: tp.vjp(f, x)[1](torch.ones_like(x))[0])(X), wanted)
    f = tp.custom_jvp(torch.sin)
    f.defjvp(lambda primals, tangents: (torch.sin(primals[0]), 10 * torch.cos(primals[0]) * tangents[0]))
    assert_close(tp.jit(lambda x: tp.jvp(f, (x,), (V,))[1])(X), wanted * V)


@pytest.mark.compile
def test_torch_compile_of_a_gradient_ignores_a_custom_backward_and_ours_refuses():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler makes an instance of the function, and torch warns of that
        theirs = torch.compile(torch.func.grad(lambda x: Tenfold.apply(x).sum()), fullgraph=True, backend="aot_eager")
        torch_is(torch.allclose(theirs(X), 10 * torch.cos(X)), since=(2, 15))
    f = tenfold()
    assert_close(tp.grad(lambda x: f(x).sum())(X), 10 * torch.cos(X))
    with pytest.raises(Exception, match="Observed exception|torch.compile ignores rules"):
        torch.compile(tp.grad(lambda x: f(x).sum()), fullgraph=True, backend="aot_eager")(X)
    assert_close(tp.make_graph(tp.grad(lambda x: f(x).sum()))(X)(X), 10 * torch.cos(X))  # our tracer keeps it


def test_autograd_inside_a_gradient_is_zero_in_torch_and_right_here():
    def through(x):
        return torch.autograd.grad((x**3).sum(), x)[0].sum()

    torch_is(torch.allclose(torch.func.grad(through)(X), 6 * X))  # it is zero
    assert_close(tp.grad(through)(X), 6 * X)
    with pytest.raises(
        TransformError, match="calls torch.autograd.grad or backward, which do not see through transforms"
    ):
        tp.vmap(lambda x: torch.autograd.grad((x**3).sum(), x)[0])(X)
    assert_close(tp.grad(lambda x: tp.grad(lambda y: (y**3).sum())(x).sum())(X), 6 * X)


def test_a_call_of_batch_norm_changes_the_buffers_given_and_ours_returns_new_ones():
    module = nn.BatchNorm1d(3, dtype=D)
    given = {**dict(module.named_parameters()), **{n: b.clone() for n, b in module.named_buffers()}}
    functional_call(module, given, (torch.stack([X, V]),))
    assert given["num_batches_tracked"] == 1  # was 0
    net = tp.functional(module)
    before = {name: leaf.clone() for name, leaf in net.state.items()}
    _, state = net.apply(net.params, net.state, torch.stack([X, V]))
    assert state["num_batches_tracked"] == 1
    assert all(torch.equal(net.state[name], leaf) for name, leaf in before.items())
    with pytest.raises(TransformError, match="updates the running statistics of a batch norm that members share"):
        tp.vmap(lambda x: functional_call(module, {}, (x[None].expand(2, 3),)))(torch.stack([X, V]))


def test_sums_over_members_are_sums_under_vmap_and_jvp():
    """torch's functional collectives return the local value under vmap, and a tangent of zero."""
    assert_close(tp.vmap(lambda x: tp.psum(x, "i"), axis_name="i")(X), X.sum().expand(3))
    pushed = tp.jvp(tp.vmap(lambda x: tp.psum(x**2, "i"), axis_name="i"), (X,), (V,))[1]
    assert_close(pushed, (2 * X * V).sum().expand(3))


def layer_norm(x):
    return torch.nn.functional.layer_norm(x, (3,), weight=V).prod()


def group_norm(x):
    return torch.nn.functional.group_norm(torch.stack([x, x**2])[None], 2).prod()


def batch_norm(x):
    return torch.nn.functional.batch_norm(torch.stack([x, x**2, torch.sin(x)]), None, None, V, training=True).prod()


def instance_norm(x):
    return torch.nn.functional.instance_norm(torch.stack([x, x**2])[None]).prod()


def matrix(x):
    return torch.outer(x, torch.sin(x)) + torch.diag(2 + x**2)


def solve(x):
    return torch.linalg.solve(matrix(x), V) @ x


def logdet(x):
    return torch.logdet(matrix(x))


def determinant(x):
    return matrix(x).det()


def slogdet(x):
    return torch.linalg.slogdet(matrix(x)).logabsdet


def eigenvectors(x):
    s = matrix(x)
    return (torch.linalg.eigh(s + s.T)[1] ** 2)[0] @ V


LAYERS = nn.Sequential(
    nn.Linear(3, 3), nn.LayerNorm(3), nn.Tanh(), nn.BatchNorm1d(3, track_running_stats=False)
).double()
NET = tp.functional(LAYERS)


def of_modules(x):
    return (NET(NET.params, torch.stack([x, x**2, torch.sin(x)])) ** 2).prod()


SECOND = [layer_norm, batch_norm, instance_norm, solve, logdet, determinant, slogdet, eigenvectors, group_norm, of_modules]  # fmt: skip
RIGHT_IN_TORCH = {eigenvectors, group_norm, of_modules}  # or not asked
SOLVERS = {solve, logdet, determinant, slogdet}


@pytest.mark.parametrize("f", SECOND, ids=lambda f: f.__name__)
def test_forward_derivatives_of_forward_derivatives(f):
    wanted = torch.autograd.functional.hessian(f, X)
    if f not in RIGHT_IN_TORCH:
        theirs = torch.func.jacfwd(torch.func.jacfwd(f))(X)
        torch_is(torch.allclose(theirs, wanted), since=(2, 15) if f in SOLVERS else None)
    for ours in (tp.jacfwd(tp.jacfwd(f)), tp.jacrev(tp.jacfwd(f)), tp.hessian(f), tp.jacrev(tp.jacrev(f))):
        assert_close(ours(X), wanted)
    assert_close(tp.vmap(tp.jacfwd(tp.jacfwd(f)))(torch.stack([V, X]))[1], wanted)
    assert_close(tp.jacfwd(tp.vmap(tp.jacfwd(f)))(X[None])[0, :, 0], wanted)


@pytest.mark.parametrize("f", [determinant, solve, logdet], ids=lambda f: f.__name__)
def test_second_derivatives_of_mapped_solvers(f):
    """torch's rule for mapping lu_solve takes the wrong members; their backward derivatives used it until 2.15."""
    both = torch.stack([V, X])
    wanted = torch.stack([torch.autograd.functional.hessian(f, x) for x in both])
    if f is not logdet:
        torch_is(torch.allclose(torch.func.vmap(torch.func.hessian(f))(both), wanted), since=(2, 15))
    assert_close(tp.vmap(tp.hessian(f))(both), wanted)
    assert_close(tp.vmap(tp.jacrev(tp.jacfwd(f)))(both), wanted)
    lu, pivots = torch.linalg.lu_factor(torch.stack([matrix(x) for x in both]))
    b = torch.arange(12.0, dtype=D).reshape(4, 3, 1)
    one = torch.linalg.lu_solve(lu[1], pivots[1], b[2])

    def mapped(lib):
        return lib.vmap(lambda *a: lib.vmap(lambda c: torch.linalg.lu_solve(*a, c))(b))(lu, pivots)[1, 2]

    torch_is(torch.allclose(mapped(torch.func), one))
    assert_close(mapped(tp), one)


def test_a_number_that_is_the_same_for_all_at_the_last_dimension():
    """Before 2.14 torch gives it a size from memory that nobody wrote: any, or one that is too large for an int."""
    if TORCH >= (2, 14):
        torch_is(torch.func.vmap(lambda x: torch.zeros(()), out_dims=-1)(X).shape == (3,), since=(2, 14))
    assert tp.vmap(lambda x: torch.zeros(()), out_dims=-1)(X).shape == (3,)


def _scattered(b, src=V[:2], write=torch.as_strided_scatter):
    return (write(b, src, (2,), (1,), 1) * X).sum()


def _scattered_by_method(b):
    return (b[1:].as_strided_scatter(V[:1], (1,), (1,), 2) * X[1:]).sum()


def test_the_gradient_of_as_strided_scatter_goes_to_what_is_not_written():
    wanted = torch.tensor([0.3, 0.0, 0.0], dtype=D)
    torch_is(torch.allclose(torch.func.grad(_scattered)(V), wanted))
    for outer in (tp.grad, tp.jacrev, tp.jacfwd):
        assert_close(outer(_scattered)(V), wanted)
        assert_close(tp.vmap(outer(_scattered))(V[None])[0], wanted)
        assert_close(outer(_scattered, argnums=1)(V, V[:2]), X[1:])
    assert_close(tp.grad(_scattered_by_method)(V), torch.tensor([0.0, 0.7, 0.0], dtype=D))
    with pytest.raises(TransformError, match="as_strided_scatter has a wrong derivative .* make the input contiguous"):
        tp.grad(lambda b: _scattered(torch.stack([b, b], 1)[:, 0]))(V)


HANDS_ON = {  # operations whose result has, in torch, the very tensor as its tangent that its argument has
    "frac": torch.frac,
    "frac, method": lambda x: x.frac(),
    "fmod": lambda x: torch.fmod(x, 5.0),
    "fmod, method": lambda x: x.fmod(5.0),
    "remainder": lambda x: torch.remainder(x, 5.0),
    "remainder, method": lambda x: x.remainder(5.0),
    "percent": lambda x: x % 5.0,
    "alias_copy": torch.alias_copy,
    "as_strided_copy": lambda x: torch.as_strided_copy(x, (3,), (1,)),
    "expand_copy": lambda x: torch.expand_copy(x, (3,)),
    "unbind_copy": lambda x: torch.unbind_copy(x[None])[0],
    "unfold_copy": lambda x: torch.unfold_copy(x[None], 1, 3, 1).reshape(3),
    "view_copy": lambda x: torch.view_copy(x, (3,)),
}


@pytest.mark.parametrize("name", HANDS_ON)
def test_a_result_that_is_changed_in_place_leaves_the_tangent_of_its_argument(name):
    f = HANDS_ON[name]

    def tripled(x):
        y = 1 * x
        return f(y).mul_(3) + y

    slopes, direction = 1 + 3 * torch.ones(3, dtype=D), V.clone()
    torch_is(torch.allclose(torch.func.jvp(tripled, (X,), (V.clone(),))[1], slopes * V))
    assert_close(tp.jvp(tripled, (X,), (direction,))[1], slopes * V)
    assert_close(tp.linearize(tripled, X)[1](direction), slopes * V)
    assert_close(tp.jacfwd(tripled)(X), torch.diag(slopes))
    assert_close(tp.vmap(lambda x: tp.jvp(tripled, (x,), (V,))[1])(X[None])[0], slopes * V)
    assert_close(tp.jit(lambda x, v: tp.jvp(tripled, (x,), (v,))[1])(X, direction), slopes * V)
    assert torch.equal(direction, V)


def test_running_statistics_survive_forward_derivatives():
    net = tp.functional(nn.BatchNorm1d(3, dtype=D))
    batch = torch.stack([X, X**2, torch.sin(X)])
    _, wanted = net.apply(net.params, net.state, batch)

    def f(x):
        y, state = net.apply(net.params, net.state, torch.stack([x, x**2, torch.sin(x)]))
        return (y**3).sum() + state["running_var"].sum() * 0, state

    (_, state), _ = tp.jvp(lambda x: tp.jvp(f, (x,), (V,))[0], (X,), (V,))
    for name, leaf in wanted.items():
        assert_close(state[name], leaf)
    loss = lambda x: f(x)[0]  # noqa: E731
    assert_close(tp.jacfwd(tp.jacfwd(loss))(X), tp.jacrev(tp.jacrev(loss))(X))
    assert_close(tp.vmap(tp.jacfwd(tp.jacfwd(loss)))(X[None])[0], tp.jacrev(tp.jacrev(loss))(X))


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.InstanceNorm1d])
def test_tangents_of_running_statistics_decay(kind):
    net = tp.functional(kind(3, affine=False, track_running_stats=True, dtype=D))
    batch = torch.stack([X, X**2, torch.sin(X), X.exp()]).T.reshape(1, 3, 4) * torch.tensor([[[1.0]], [[2.0]]], dtype=D)
    moved = {name: leaf for name, leaf in net.state.items() if leaf.is_floating_point()}
    slopes = {name: torch.full_like(leaf, 2.0) for name, leaf in moved.items()}

    def renewed(moved):
        state = net.apply(net.params, {**net.state, **moved}, batch, train=True)[1]
        return {name: state[name] for name in moved}

    def theirs(mean, var):
        norm = nn.functional.batch_norm if kind is nn.BatchNorm1d else nn.functional.instance_norm
        mean, var = mean.clone(), var.clone()
        norm(batch, mean, var, None, None, True, 0.1)
        return mean

    old = tuple(moved.values())
    moved_so = torch.func.jvp(theirs, old, tuple(slopes.values()))[1]
    torch_is(torch.allclose(moved_so, torch.full((3,), 1.8, dtype=D)))  # it is 2
    value, tangents = tp.jvp(renewed, (moved,), (slopes,))
    for name, leaf in tangents.items():
        assert_close(leaf, torch.full((3,), 1.8, dtype=D))
        assert_close(value[name], renewed(moved)[name])
    mapped = tp.vmap(lambda s: tp.jvp(renewed, (moved,), (s,))[1])(tp.tree.map(lambda leaf: leaf[None], slopes))
    assert_close(mapped["running_var"][0], torch.full((3,), 1.8, dtype=D))


def test_operations_are_replaced_in_the_threads_of_devices():
    both = torch.stack([V, X])
    wanted = torch.stack([torch.autograd.functional.hessian(determinant, x) for x in both])
    assert_close(tp.vmap(tp.hessian(determinant), devices=["cpu", "cpu"])(both), wanted)
    column = tp.vmap(lambda x: torch.column_stack([x, x]), devices=["cpu", "cpu"])(both)
    assert_close(column, torch.stack([both, both], -1))


def test_the_second_derivative_of_a_weight_norm():
    """torch's kernel has a wrong derivative of its derivative; the formula in operations has a right one."""

    def formula(x):
        return ((x * (x[:1] ** 2 / torch.linalg.vector_norm(x))) ** 3).sum()

    def kernel(x):
        return (torch._weight_norm(x[None], x[None, :1] ** 2, 0) ** 3).sum()

    wanted = torch.autograd.functional.hessian(formula, X)
    theirs = torch.func.grad(lambda x: torch.func.grad(kernel)(x) @ V)(X)
    torch_is(torch.allclose(theirs, wanted @ V))
    for ours in (tp.jacrev(tp.jacrev(kernel)), tp.hessian(kernel), tp.jacfwd(tp.jacfwd(kernel))):
        assert_close(ours(X), wanted)


def test_the_gradient_of_cholesky_inverse_at_a_matrix_that_is_not_triangular():
    """torch's kernel reads one triangle, and its derivative takes the matrix for triangular."""

    def triangle(a):
        return torch.linalg.inv(a.tril() @ a.tril().T)[0].prod()

    def kernel(a):
        return torch.cholesky_inverse(a)[0].prod()

    a = matrix(X)
    wanted = torch.func.grad(triangle)(a)
    torch_is(torch.allclose(torch.func.grad(kernel)(a), wanted))
    for ours in (tp.grad(kernel), tp.jacrev(kernel), tp.jacfwd(kernel)):
        assert_close(ours(a), wanted)
