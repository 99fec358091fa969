"""Norms far out, near zero and at zero: values and derivatives that were wrong once."""

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

import torchpure as tp

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
