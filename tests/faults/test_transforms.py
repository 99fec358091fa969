"""Results of transforms that were wrong or refused once."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import torchpure as tp
from torchpure.errors import StructureError, TransformError

pytestmark = pytest.mark.faults
D = torch.float64


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_autocast_under_vmap():
    weight, bias, rows = draw(6, 6), draw(6, seed=1), draw(3, 6, seed=2)
    functions = [
        lambda x: functional.linear(x, weight, bias), lambda x: functional.linear(x, weight), lambda x: weight @ x,
        lambda x: torch.addmv(bias, weight, x), lambda x: torch.einsum("ij,j->i", weight, x),
    ]  # fmt: skip
    with torch.autocast("cpu", torch.bfloat16):
        for f in functions:
            assert_close(tp.vmap(f)(rows), torch.stack([f(row) for row in rows]))


def test_autocast_in_norms():
    def loss(weight, scale, x):
        with torch.autocast("cpu", torch.float16):
            return functional.layer_norm(functional.linear(x, weight), (4,), scale, scale).float().pow(3).sum()

    weight, scale, rows = draw(4, 4), torch.ones(4), draw(3, 4, seed=1)
    slopes = tp.vmap(tp.grad(lambda w, s, x: loss(w, s, x[None])), in_dims=(None, None, 0))(weight, scale, rows)
    wanted = tp.grad(loss)(weight, scale, rows)
    assert slopes.shape == (3, 4, 4)
    for found in (slopes.sum(0), tp.jacrev(loss)(weight, scale, rows)):
        assert_close(found, wanted, rtol=0, atol=0.02 * float(wanted.abs().max()))  # rounded to float16


def test_aux_that_is_no_tree():
    with pytest.raises(TransformError, match="SimpleNamespace, which is no tree, and `hidden` of"):
        tp.grad(lambda x: ((x * x).sum(), SimpleNamespace(hidden=3 * x)), has_aux=True)(torch.ones(2))


def test_checkpointed_submodule():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return checkpoint(self.second, self.first(x).tanh(), use_reentrant=False).sin()

    net, x = tp.functional(Checkpointed()), draw(4, 2)
    module = net.to_module(net.params)
    module.requires_grad_(True)(x).sum().backward()
    wanted = {name: leaf.grad for name, leaf in module.named_parameters()}
    assert_close(tp.grad(lambda p: net(p, x).sum())(net.params), wanted)
    head, body = tp.partition(net.params, "first.*")
    found = tp.grad(lambda head: net(tp.merge(head, body), x).sum())(head)
    assert_close(found["first.weight"], wanted["first.weight"])


def test_debug_print_in_a_branch(capsys):
    def f(x):
        return tp.cond(x > 0.5, lambda x: (tp.debug.print("took {}", x), 2 * x)[1], lambda x: x, x)

    tp.vmap(f)(torch.tensor([0.25, 0.75, 0.5]))
    assert capsys.readouterr().out == "took 0.75\n"


def test_ensemble_of_different_modules():
    class Negative(nn.Linear):
        def forward(self, x):
            return -super().forward(x)

    with pytest.raises(
        StructureError, match="^ensemble: member 1 differs from member 0: the module is a .*Negative, wanted"
    ):
        tp.ensemble([nn.Linear(2, 2), Negative(2, 2)])


@pytest.mark.compile
def test_linearize_pushed_in_a_scan():
    weight, x, v = draw(4, 4), draw(4, seed=1), draw(4, seed=2)
    slope = tp.grad(lambda x: torch.tanh(weight @ x).square().sum())

    def power(x, v):
        _, push = tp.linearize(slope, x)
        return tp.scan(lambda v, _: (push(v), v), v, length=3)

    hessian = tp.jacrev(slope)(x)
    wanted = [v, hessian @ v, hessian @ hessian @ v]
    for run in (power, tp.jit(power)):
        last, seen = run(x, v)
        assert_close((last, seen), (hessian @ wanted[-1], torch.stack(wanted)), rtol=1e-4, atol=1e-4)


def test_many_reachable_objects():
    class Force(nn.Module):
        def forward(self, x):
            return torch.autograd.grad((x**3).sum(), x)[0].sum()

    force, records = Force(), [{"number": n} for n in range(2500)]
    assert_close(tp.grad(lambda x: force(x) if records else x.sum())(torch.ones(2)), torch.full((2,), 6.0))


def test_registered_containers():
    @dataclasses.dataclass
    class Pair:
        a: torch.Tensor
        b: torch.Tensor

    torch.utils._pytree.register_dataclass(Pair)
    found = tp.grad(lambda p: (2 * p.a + p.a * p.b).sum())(Pair(torch.ones(2), torch.full((2,), 3.0)))
    assert type(found) is Pair
    assert_close((found.a, found.b), (torch.full((2,), 5.0), torch.ones(2)))


def test_remat_with_keyed_dropout():
    net = tp.functional(nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1)))
    x, key = draw(2, 3), tp.random.key(1)
    loss = lambda params: net.apply(params, {}, x, key=key)[0].sum()  # noqa: E731
    assert_close(tp.grad(tp.remat(loss))(net.params), tp.grad(loss)(net.params))


def new(*shape, dtype=D):
    return torch.empty(*shape, dtype=dtype)


WITH_OUT = {
    "sin": lambda x: torch.sin(x, out=torch.empty_like(x)),
    "sort": lambda x: torch.sort(x, out=(new(0), new(0, dtype=torch.int64)))[0],
    "prod": lambda x: torch.prod(x, -1, out=new(0)),
    "inv": lambda x: torch.linalg.inv(torch.diag(x), out=new(3, 3)),
}
EACH = {
    "grad": lambda f: tp.grad(lambda x: f(x).sum()),
    "jvp": lambda f: lambda x: tp.jvp(f, (x,), (x,)),
    "vmap": lambda f: lambda x: tp.vmap(f)(torch.stack([x, x])),
    "hessian": lambda f: tp.hessian(lambda x: f(x).sum()),
    "program": lambda f: tp.make_graph(tp.grad(lambda x: f(x).sum())),
}


@pytest.mark.parametrize("name", WITH_OUT)
def test_out_inside_a_transform(name):
    for transform in EACH.values():
        message = rf"^\w+: `<lambda>` .*, line \d+ of .*, gives `(?:linalg_)?{name}` an out=, .*: use what it returns"
        with pytest.raises(TransformError, match=message):
            transform(WITH_OUT[name])(torch.tensor([1.0, 2.0, 4.0], dtype=D))


def test_out_of_normalize_which_spectral_norms_of_modules_use():
    x = torch.tensor([1.0, 2.0, 4.0], dtype=D)
    for transform in (EACH["grad"], EACH["hessian"], EACH["vmap"]):
        written = transform(lambda x: functional.normalize(x, dim=-1, out=torch.empty_like(x)))(x)
        assert_close(written, transform(lambda x: x / x.norm())(x))


def test_out_that_no_transform_follows():
    constant, x = draw(3).double(), torch.ones(3, dtype=D)
    f = lambda x: (torch.sin(constant, out=new(3)) * torch.exp(x, out=None)).sum()  # noqa: E731
    assert_close(tp.grad(f)(x), constant.sin() * x.exp())


BITS = {
    "float32": lambda x: x.view(torch.float32).sum().double(),
    "int64": lambda x: x.view(torch.int64).view(D).sum(),
    "complex64": lambda x: x.view(torch.complex64).abs().sum().double(),
}


@pytest.mark.parametrize("name", BITS)
def test_reinterpreted_bits(name):
    x = torch.ones(4, dtype=D)
    for law in EACH.keys() - {"vmap"}:
        with pytest.raises(TransformError, match=rf"^view\(torch.{name}\), line .*, reads the bits .* To convert"):
            EACH[law](BITS[name])(x)
    assert tp.vmap(BITS[name])(x[None])[0] == BITS[name](x)


def test_views_of_a_dtype_that_have_derivatives():
    x = draw(4).double()
    complexes = lambda x: x.view(torch.complex128).view(D).view(D).pow(2).sum()  # noqa: E731
    assert_close(tp.grad(complexes)(x), 2 * x)
    assert_close(tp.hessian(complexes)(x), 2 * torch.eye(4, dtype=D))
    assert_close(tp.jvp(complexes, (x,), (x,))[1], 2 * (x @ x))


def chosen(x, k):
    return ((functional.one_hot(k, 3) * x) ** 2).sum()


@pytest.mark.parametrize("law", ["grad", "jvp", "hessian", "jacrev"])
def test_one_hot(law):
    x, classes = torch.tensor([1.0, 2.0, 3.0], dtype=D), torch.tensor([0, 2])
    jvp = lambda f: lambda x, k: tp.jvp(lambda x: f(x, k), (x,), (x,))[1]  # noqa: E731
    run = jvp(chosen) if law == "jvp" else getattr(tp, law)(chosen)
    wanted = torch.stack([run(x, k) for k in classes])
    mapped = tp.vmap(run, in_dims=(None, 0))
    assert_close(mapped(x, classes), wanted)
    assert_close(tp.make_graph(mapped)(x, classes)(x, classes), wanted)
    assert_close(tp.make_graph(run)(x, classes[0])(x, classes[1]), wanted[1])


def test_one_hot_of_wrong_classes():
    x, classes = torch.ones(3, dtype=D), torch.tensor([[0], [5]])
    mapped = tp.vmap(chosen, in_dims=(None, 0))
    with pytest.raises(RuntimeError, match="index 5 is out of bounds"):
        tp.make_graph(mapped)(x, classes % 3)(x, classes)
    wrong = (
        r"^one_hot, line \d+ of test_transforms.py, is given the class {}: wanted classes from 0 to 2, for num_c.*=3"
    )
    for run in (mapped, tp.vmap(tp.grad(chosen), (None, 0)), tp.grad(chosen), tp.vmap(mapped, (None, 0))):
        given = classes[None] if run is not mapped else classes
        for value, sign in ((5, 1), (-5, -1)):
            with pytest.raises(TransformError, match=wrong.format(value)):
                run(x, sign * given)
    with pytest.raises(TransformError, match="is given the class -5: wanted classes of at least 0"):
        tp.grad(lambda x: (x.sum() * functional.one_hot(-classes)).sum())(x)
    with pytest.raises(TransformError, match=r"^one_hot, line \d+ of .*, without num_classes .*: give it num_classes="):
        tp.vmap(functional.one_hot)(classes)


def test_a_nested_tensor_of_variables():
    x = torch.ones(2, 3)
    jagged = lambda make: lambda x: make([x, 2 * x], layout=torch.jagged).values().sum()  # noqa: E731
    assert_close(tp.grad(jagged(torch.nested.as_nested_tensor))(x), 3 * x)
    with pytest.raises(TransformError, match=r"^torch.nested.nested_tensor, line .* lost. Use torch.nested.as_nested"):
        tp.grad(jagged(torch.nested.nested_tensor))(x)


def no_members(x):
    return {"sine": x.sin(), "square": (x**2).sum(), "scan": tp.scan(lambda c, a: (c + a, c * a), x.sum(), x)[1]}


@pytest.mark.parametrize("transform", [tp.vmap, lambda f: tp.jit(tp.vmap(f))], ids=["vmap", "jit"])
def test_vmap_of_no_members(transform):
    x = torch.ones(0, 3, dtype=D)
    shapes = tp.tree.map(lambda leaf: leaf.shape, transform(no_members)(x))
    assert shapes == {"sine": (0, 3), "square": (0,), "scan": (0, 3)}
    square = lambda x: (x**2).sum()  # noqa: E731
    for derivative, shape in ((tp.grad, (0, 3)), (tp.hessian, (0, 3, 3))):
        found = transform(derivative(square))(x)
        assert found.shape == shape
        assert found.dtype == D


@pytest.mark.parametrize("inner", ["vjp", "grad", "jvp", "jacrev"])
def test_a_transform_inside_of_a_backward_rule(inner):
    cube = lambda x: (x**3).sum()  # noqa: E731
    slopes = {
        "vjp": lambda x, g: tp.vjp(cube, x)[1](g)[0],
        "grad": lambda x, g: tp.grad(cube)(x) * g,
        "jvp": lambda x, g: torch.stack([tp.jvp(cube, (x,), (e,))[1] for e in torch.eye(3, dtype=D)]) * g,
        "jacrev": lambda x, g: tp.jacrev(cube)(x) * g,
    }
    ruled = tp.custom_vjp(cube)
    ruled.defvjp(lambda x: (cube(x), x), lambda x, g: (slopes[inner](x, g),))
    x = torch.tensor([1.0, 2.0, 3.0], dtype=D)
    assert_close(tp.jvp(ruled, (x,), (x,))[1], 3 * (x**3).sum())
    for second in (tp.hessian(ruled), tp.jacfwd(tp.jacfwd(ruled)), tp.jacrev(tp.grad(ruled)),
                   lambda x: tp.vmap(tp.hessian(ruled))(x[None])[0], tp.make_graph(tp.hessian(ruled))(x)):  # fmt: skip
        assert_close(second(x), torch.diag(6 * x))


@pytest.mark.parametrize("loss", [functional.cross_entropy, functional.nll_loss])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_weights_of_classes_are_differentiated_forwards(loss, reduction):
    x, target = draw(4, 3).double(), torch.tensor([0, 2, 2, 1])
    weights = torch.tensor([0.5, 1.0, 2.0], dtype=D)
    picked = (x.log_softmax(1) if loss is functional.cross_entropy else x).gather(1, target[:, None])[:, 0]

    def wanted(w):
        total = -(w[target] * picked).sum()
        return total / w[target].sum() if reduction == "mean" else total

    f = lambda w: loss(x, target, weight=w, reduction=reduction)  # noqa: E731
    for transform in (tp.grad, tp.jacfwd, tp.hessian, lambda f: tp.jacfwd(tp.jacfwd(f))):
        assert_close(transform(f)(weights), transform(wanted)(weights))
    assert_close(tp.jvp(f, (weights,), (weights,))[1], tp.jvp(wanted, (weights,), (weights,))[1])
