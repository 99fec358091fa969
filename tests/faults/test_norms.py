"""Norms far out, near zero and at zero: values and derivatives that were wrong once."""

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

import torchpure as tp
from torchpure.transforms.engine import members_apart

pytestmark = pytest.mark.faults
D = torch.float64
HERE, THERE = torch.tensor([3.0, 4.0, 12.0], dtype=D), torch.tensor([1.0, 2.0, -2.0], dtype=D)
LENGTHS = {  # functions of x and c with f(s x, s c) = s f(x, c)
    "vector_norm": lambda x, c: torch.linalg.vector_norm(x),
    "norm": lambda x, c: x.norm(),
    "norm of order 3": lambda x, c: x.norm(p=3),
    "linalg.norm": lambda x, c: torch.linalg.norm(x),
    "matrix_norm": lambda x, c: torch.linalg.matrix_norm(x[None]),
    "pairwise_distance": lambda x, c: functional.pairwise_distance(x, c, eps=0.0),
    "cdist": lambda x, c: torch.cdist(x[None], c[None]).sum(),
    "pdist": lambda x, c: torch.pdist(torch.stack([x, c])).sum(),
    "dist": lambda x, c: torch.dist(x, c),
    "hypot": lambda x, c: torch.hypot(x, c).sum(),
    "std": lambda x, c: x.std(),
    "norm_except_dim": lambda x, c: torch.norm_except_dim(x[None], 2, 0).sum(),
    "abs of complex": lambda x, c: torch.complex(x, c).abs().sum(),
}
DIRECTIONS = {  # with f(s x, s c) = f(x, c)
    "normalize": lambda x, c: functional.normalize(x, dim=0, eps=0.0) @ torch.sign(c),
    "normalize of order 3": lambda x, c: functional.normalize(x, p=3, dim=0, eps=0.0) @ torch.sign(c),
    "weight norm": lambda x, c: torch._weight_norm(x[None], torch.sign(c)[:1, None], 0)[0] @ torch.sign(c),
    "cosine_similarity": lambda x, c: functional.cosine_similarity(x, c, dim=0, eps=0.0),
}
SCALES = {"far out": (D, 2.0**650), "near zero": (D, 2.0**-650), "far out in float32": (torch.float32, 2.0**75),
          "near zero in float32": (torch.float32, 2.0**-75)}  # fmt: skip


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", [*LENGTHS, *DIRECTIONS])
def test_norms_beyond_the_range_of_squares(name, scale):
    """A power of two changes no digit. In double precision a derivative may leave the range: it is scaled back."""
    dtype, by = SCALES[scale]
    f, degree = (LENGTHS[name], 1) if name in LENGTHS else (DIRECTIONS[name], 0)
    x, c = (leaf.to(dtype) for leaf in (HERE, THERE))
    along = lambda s: f(x * by * (1 + s * c), c * by) / by**degree  # noqa: E731 s -> a number of size one
    near = lambda s: f(x * (1 + s * c), c)  # noqa: E731
    zero = torch.zeros((), dtype=dtype)
    ways = [tp.grad, tp.jacfwd, lambda g: lambda s: tp.vmap(tp.grad(g))(s[None])[0],
            lambda g: lambda s: tp.make_graph(tp.grad(g))(s)(s), tp.hessian, lambda g: tp.grad(tp.grad(g))]  # fmt: skip
    assert_close(tp.value_and_grad(along)(zero)[0], near(zero))
    for way in ways:
        assert_close(way(along)(zero), way(near)(zero))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", [*LENGTHS, *DIRECTIONS])
def test_transforms_agree_on_values_beyond_the_range_of_squares(name, scale):
    """cdist and pdist keep the value of torch under vmap alone."""
    dtype, by = SCALES[scale]
    f = (LENGTHS | DIRECTIONS)[name]
    x, c = HERE.to(dtype) * by, THERE.to(dtype) * by
    run = lambda x: f(x, c)  # noqa: E731
    wanted = tp.value_and_grad(run)(x)[0]
    values = [tp.jvp(run, (x,), (x,))[0], tp.vjp(run, x)[0], tp.vmap(tp.value_and_grad(run))(x[None])[0][0],
              tp.linearize(run, x)[0], tp.jit(tp.value_and_grad(run))(x)[0]]  # fmt: skip
    mapped = (
        [] if name in {"cdist", "pdist"} else [tp.vmap(run)(x[None])[0], tp.vmap(tp.vmap(run))(x[None, None])[0, 0]]
    )
    for value in (*values, *mapped):
        assert_close(value / by, wanted / by)


def test_far_members_of_a_vmap_leave_the_others_alone():
    x = torch.stack([HERE, HERE * 2.0**650, HERE * 0, HERE * 2.0**-650])
    wanted = torch.tensor([13.0, 13 * 2.0**650, 0.0, 13 * 2.0**-650], dtype=D)
    assert_close(tp.vmap(torch.linalg.vector_norm)(x) / wanted.clamp(min=1e-300), wanted / wanted.clamp(min=1e-300))
    assert torch.equal(tp.vmap(torch.linalg.vector_norm)(x[:1]), torch.linalg.vector_norm(x[:1], dim=1))


KINKS = {
    "hypot": lambda x: torch.hypot(x[0], x[1]),
    "masked.std": lambda x: torch.masked.std(x, 0, mask=torch.tensor([True, False, True])),
    "masked.norm": lambda x: torch.masked.norm(x, 2, 0, mask=torch.tensor([True, False, True])),
}


@pytest.mark.parametrize("name", KINKS)
def test_the_derivative_at_a_kink_is_zero(name):
    f, x = KINKS[name], torch.zeros(3, dtype=D)
    for way in (tp.grad(f), tp.jacfwd(f), tp.hessian(f), tp.make_graph(tp.grad(f))(x)):
        assert not way(x).any()


NUCLEAR = [
    lambda x: torch.linalg.matrix_norm(x, "nuc"),
    lambda x: torch.linalg.norm(x, "nuc"),
    lambda x: x.norm(p="nuc"),
    lambda x: torch.linalg.matrix_norm(x[None].movedim(0, 2), "nuc", dim=(0, 1), keepdim=True).reshape(()),
]


@pytest.mark.parametrize("f", NUCLEAR)
def test_second_derivatives_of_the_nuclear_norm_at_equal_singular_values(f):
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=D)
    wanted = torch.einsum("ij,kl->ijkl", turn, turn) / 2  # of the identity: only a rotation turns the polar factor
    x = torch.eye(2, dtype=D)
    for second in (tp.hessian(f), tp.jacrev(tp.grad(f)), tp.jacfwd(tp.jacfwd(f)), tp.make_graph(tp.hessian(f))(x),
                   lambda x: tp.vmap(tp.hessian(f))(x[None])[0]):  # fmt: skip
        assert_close(second(x), wanted)
        assert not second(0 * x).any()


def test_second_derivatives_of_the_nuclear_norm_of_a_tall_matrix():
    tall = torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 1.0]], dtype=D)
    gram = lambda x: torch.linalg.eigvalsh(x.T @ x).sqrt().sum()  # noqa: E731
    for x, reference in ((tall, gram), (tall.T, lambda x: gram(x.T))):
        assert_close(tp.hessian(NUCLEAR[0])(x), tp.hessian(reference)(x))


LEFT = torch.linalg.qr(torch.arange(16.0, dtype=D).sin().reshape(4, 4))[0]
RIGHT = torch.linalg.qr(torch.arange(16.0, dtype=D).cos().reshape(4, 4) + torch.eye(4, dtype=D))[0]
PHASES = torch.polar(torch.ones(4, dtype=D), torch.arange(4.0, dtype=D))


def _turned(sizes):
    return LEFT @ torch.diag(torch.tensor(sizes, dtype=D)) @ RIGHT


TIES = {
    "diagonal": torch.diag(torch.tensor([3.0, 2.0, 2.0, 1.0], dtype=D)),
    "square": _turned([3.0, 2.0, 2.0, 1.0]),
    "tall": (LEFT @ torch.diag(torch.tensor([3.0, 2.0, 2.0, 1.0], dtype=D)))[:, :3] @ RIGHT[:3, :3],
    "tall, tied": LEFT[:, :3] @ torch.diag(torch.tensor([3.0, 2.0, 2.0], dtype=D)) @ RIGHT[:3, :3].svd()[0],
    "wide": (_turned([3.0, 2.0, 2.0, 1.0]).mT)[:3].contiguous(),
    "complex": _turned([3.0, 2.0, 2.0, 1.0]) * PHASES,
}
SPECTRAL = {
    "the spectral norm": lambda x: torch.linalg.matrix_norm(x, 2),
    "its square": lambda x: torch.linalg.norm(x, 2) ** 2,
    "over other dimensions": lambda x: torch.linalg.norm(x.mT[None], 2, dim=(2, 1), keepdim=True).sum(),
    "the largest singular value": lambda x: torch.linalg.svdvals(x)[0],
    "the sum": lambda x: torch.linalg.svdvals(x).sum(),
    "of svd": lambda x: torch.linalg.svd(x, full_matrices=False)[1].sum() + torch.svd(x)[1][0] + x.svd().S.sum(),
}
SMALLEST = {
    "the smallest singular value": lambda x: torch.linalg.matrix_norm(x, -2),
    "the condition": torch.linalg.cond,
    "its reciprocal": lambda x: torch.linalg.cond(x, -2),
}


def _by_differences(f, x):
    """Differentiate a gradient along each direction, by six points."""
    steps = torch.eye(x.numel(), dtype=D).reshape(-1, *x.shape) * 2e-3
    weights = [(1, 45 / 60), (2, -9 / 60), (3, 1 / 60)]
    rows = [sum(w * (tp.grad(f)(x + k * e) - tp.grad(f)(x - k * e)) for k, w in weights) / 2e-3 for e in steps]
    return torch.stack(rows, -1).reshape(*x.shape, *x.shape)


def _parts_of(f, x):
    """Return f as a function of real numbers, and those: the real parts, and the imaginary ones of complex numbers."""
    if not x.is_complex():
        return f, x
    return lambda parts: f(torch.complex(parts[0], parts[1])), torch.stack([x.real, x.imag])


@pytest.mark.parametrize("kind", TIES)
@pytest.mark.parametrize("name", [*SPECTRAL, *SMALLEST])
def test_second_derivatives_of_singular_values_where_others_are_equal(name, kind):
    if name in SMALLEST and kind == "tall, tied":
        pytest.skip("the smallest one is a tie")
    f, x = _parts_of((SPECTRAL | SMALLEST)[name], TIES[kind])
    wanted = _by_differences(f, x)
    ways = [tp.hessian, lambda f: tp.jacrev(tp.grad(f)), lambda f: lambda x: tp.vmap(tp.hessian(f))(x[None])[0],
            lambda f: lambda x: tp.make_graph(tp.hessian(f))(x)(x), lambda f: tp.jit(tp.hessian(f))]  # fmt: skip
    for second in ways:
        assert_close(second(f)(x), wanted, rtol=1e-6, atol=1e-6)
    if "norm" in name or name in SMALLEST:
        for second in (lambda f: tp.jacfwd(tp.jacfwd(f)), lambda f: tp.jacrev(tp.jacfwd(f))):
            assert_close(second(f)(x), wanted, rtol=1e-6, atol=1e-6)


APART = SPECTRAL | SMALLEST | {"the nuclear norm": NUCLEAR[0]}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", APART)
def test_where_no_singular_values_are_almost_equal_torch_runs(name, dtype):
    for x in (_turned([4.0, 3.0, 2.0, 1.0]), _turned([4.0, 3.0, 2.0, 1.0])[:, :3]):
        for nested in (lambda of, f: of.hessian(f), lambda of, f: of.jacrev(of.grad(f))):
            ours, torchs = (nested(of, APART[name])(x.to(dtype)) for of in (tp, torch.func))
            assert_close(ours, torchs, rtol=0, atol=0)


@pytest.mark.parametrize("gap", [1e-4, 1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize("name", APART)
def test_second_derivatives_of_singular_values_where_others_are_almost_equal(name, gap):
    """The sizes beside the gap count alike or not at all, so that the result is near to that at the tie."""
    x, tie = _turned([3.0, 2.0 + gap, 2.0, 1.0]), _turned([3.0, 2.0, 2.0, 1.0])
    for second in (tp.hessian, lambda f: tp.jacrev(tp.grad(f))):
        assert_close(second(APART[name])(x), second(APART[name])(tie), rtol=0, atol=10 * gap + 1e-10)


@pytest.mark.parametrize("name", APART)
def test_a_tie_of_another_member_changes_no_bit_of_a_training(name):
    one, two, tie = _turned([4.0, 3.0, 2.0, 1.0]), _turned([5.0, 3.0, 2.0, 1.0]), TIES["diagonal"]
    with members_apart():
        found, wanted = (tp.vmap(tp.hessian(APART[name]))(torch.stack([one, other])) for other in (tie, two))
    assert_close(found[0], wanted[0], rtol=0, atol=0)
    assert_close(wanted[0], tp.hessian(APART[name])(one))


def test_second_derivatives_of_the_spectral_norm_where_others_are_zero():
    x = 3 * torch.outer(torch.eye(4, dtype=D)[0], torch.eye(3, dtype=D)[1])
    for f in (SPECTRAL["the spectral norm"], SPECTRAL["its square"], SPECTRAL["the largest singular value"]):
        assert_close(tp.hessian(f)(x), _by_differences(f, x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("order", [2, -2])
def test_the_second_derivative_of_a_spectral_norm_at_a_tie_is_that_of_a_kink(order):
    """No derivative exists: each tied value counts alike, and turns of the vectors alone are followed."""
    f = lambda x: torch.linalg.matrix_norm(x, order)  # noqa: E731
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=D)
    x = torch.eye(2, dtype=D)
    assert_close(tp.jacfwd(f)(x), x / 2)
    assert_close(tp.grad(f)(x), x / 2)
    for second in (tp.hessian(f), tp.jacrev(tp.grad(f)), tp.jacfwd(tp.jacfwd(f)), tp.jit(tp.hessian(f))):
        assert_close(second(x), torch.einsum("ij,kl->ijkl", turn, turn) / 4)
        assert not second(0 * x).any()


def test_a_nonlinear_function_of_equal_singular_values_has_no_silent_second_derivative():
    """The limit at the tie is not known to the rule: not finite, as in torch and JAX, and no wrong number."""
    f = lambda x: (torch.linalg.svdvals(x) ** 4).sum()  # noqa: E731
    x = torch.eye(2, dtype=D)
    for second in (tp.hessian(f), tp.jacrev(tp.grad(f)), tp.jacrev(tp.jacfwd(f)), tp.jacfwd(tp.jacfwd(f))):
        assert not second(x).isfinite().all()
    root = lambda x: torch.linalg.svdvals(x).sqrt().sum()  # noqa: E731
    for second in (tp.hessian, lambda f: tp.jacfwd(tp.jacfwd(f))):
        assert not second(root)(TIES["square"]).isfinite().all()  # equal but for rounding
    apart = torch.tensor([[2.0, 1.0], [0.5, -1.0]], dtype=D)
    assert_close(tp.hessian(f)(apart), tp.hessian(lambda x: ((x.mT @ x) ** 2).sum())(apart))


@pytest.mark.parametrize("order", ["fro", "nuc", 2, 1])
def test_matrix_norms_over_other_dimensions_under_vmap(order):
    x = torch.arange(24.0, dtype=D).sin().reshape(2, 2, 3, 2)
    norm = lambda x: torch.linalg.matrix_norm(x, order, dim=(0, 1), keepdim=True)  # noqa: E731
    assert_close(tp.vmap(norm)(x), torch.stack([norm(row) for row in x]))


@pytest.mark.parametrize("scale", [1e-7, 5e-9, 1e-12])
def test_cosine_similarity_below_eps_divides_by_a_constant(scale):
    x, y = scale * HERE / HERE.norm(), THERE / THERE.norm()
    f = lambda x: functional.cosine_similarity(x, y, dim=0)  # noqa: E731
    wanted = (y - x * (x @ y) / (x @ x)) / scale if scale > 1e-8 else y / 1e-8
    for way in (tp.grad, tp.jacfwd, tp.jacrev, lambda f: lambda x: tp.vmap(tp.grad(f))(x[None])[0]):
        assert_close(way(f)(x), wanted)


MEMBERS = {
    "vector_norm": lambda x: torch.linalg.vector_norm(x),
    "norm of order 3": lambda x: x.norm(p=3),
    "std": lambda x: x.std(),
    "cosine_similarity": lambda x: functional.cosine_similarity(x, THERE, dim=0),
    "hypot": lambda x: torch.hypot(x, x.flip(0)).sum(),
    "atan2": lambda x: torch.atan2(x, x * 2).sum(),
    "prod": lambda x: x.prod(),
    "xlogy": lambda x: torch.xlogy(x, x.abs()).sum(),
}


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("count", [3, 40])
def test_a_member_at_a_border_changes_no_other(name, count):
    """Torch's kernels run where all members are inside of their range, and formulas run else."""
    x = torch.arange(3.0 * count, dtype=D).sin().reshape(count, 3) + 2
    for way in (tp.grad, tp.jacfwd, lambda f: tp.grad(lambda x: tp.grad(f)(x).sum())):
        inside = tp.vmap(way(MEMBERS[name]))(x)
        assert_close(inside, torch.stack([way(MEMBERS[name])(row) for row in x]))
        for border in (0.0, 1e-300, 1e200):
            mixed = tp.vmap(way(MEMBERS[name]))(torch.cat([x, torch.full((1, 3), border, dtype=D)]))
            assert_close(mixed[:-1], inside)
