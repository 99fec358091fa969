"""Functions that mutate arguments or captured tensors, or store traced ones: errors under every transform, and by `pure`."""

import copy
from collections import deque
from functools import cached_property

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import ImpureError, TransformError

D = torch.float64
X = torch.tensor([0.3, 0.7], dtype=D)
box = {"total": torch.zeros(2, dtype=D)}
kept = []


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2, dtype=D).requires_grad_(False)
        self.register_buffer("count", torch.zeros((), dtype=D))

    def forward(self, x):
        self.count.add_(1)
        return self.linear(x)


class Holder:
    def __init__(self):
        self.mean = torch.zeros(2, dtype=D)
        self.seen = None

    def update(self, x):
        self.mean.mul_(0.9)
        return (x * self.mean).sum()

    def keep(self, x):
        self.seen = x * 2
        return x.sum()


class Shared:
    mean = torch.zeros(2, dtype=D)
    seen = None

    @property
    def total(self):
        return box["total"]

    @cached_property
    def again(self):
        return box["total"].view(2)

    @staticmethod
    def add(x):
        return box["total"].add_(x)


MODULE, HOLDER, SHARED, LINEAR, RECENT = (
    Counter(),
    Holder(),
    Shared(),
    nn.Linear(2, 2, dtype=D).requires_grad_(False),
    deque(maxlen=3),
)


def in_a_dict(x):
    box["total"][0] = 1.0
    return (x * box["total"]).sum()


def through_a_helper(x):
    return in_a_dict(x) * 2


def of_a_module(x):
    return MODULE(x).sum()


def of_a_view(x):
    part = box["total"][1:]
    part.zero_()
    return x.sum()


def of_a_class(x):
    Shared.mean.add_(1)
    return x.sum()


def by_a_property(x):
    SHARED.total.add_(1)
    return x.sum()


def by_a_cached_property(x):
    SHARED.again.add_(1)
    return x.sum()


def by_a_static_method(x):
    SHARED.add(1)
    return x.sum()


def the_argument(x):
    x.mul_(2)
    return x.sum()


def the_argument_s_view(x):
    x[:1] = 0
    return x.sum()


def by_an_option(x):
    return nn.functional.relu(x, inplace=True).sum()


def lets_out(x):
    kept.append(x * 2)
    return x.sum()


def lets_out_by_name(x):
    global kept_name
    kept_name = x * 3
    return x.sum()


def lets_out_into_a_deque(x):
    RECENT.append(x * 2)
    return x.sum()


def lets_out_into_a_class(x):
    Shared.seen = x * 2
    return x.sum()


def lets_out_into_a_layer(x):
    LINEAR.seen = x * 2
    return LINEAR(x).sum()


def lets_out_into_itself(x):
    lets_out_into_itself.seen = x * 2
    return x.sum()


def temporaries(x):
    y = x * 2
    y.add_(1)
    y[0] = x[1]
    y += x
    z = torch.zeros_like(x)
    z[0] = x[0]
    return (nn.functional.relu(y, inplace=True) * z.flip(0)).sum()


kept_name = None
MUTATIONS = [in_a_dict, through_a_helper, of_a_module, of_a_view, HOLDER.update, of_a_class, by_a_property, by_a_cached_property, by_a_static_method, the_argument, the_argument_s_view, by_an_option]  # fmt: skip
LEAKS = [lets_out, lets_out_by_name, HOLDER.keep, lets_out_into_a_deque, lets_out_into_a_class, lets_out_into_a_layer, lets_out_into_itself]  # fmt: skip
TRANSFORMS = {
    "grad": lambda f: tp.grad(f)(X.clone()),
    "value_and_grad": lambda f: tp.value_and_grad(f)(X.clone()),
    "jvp": lambda f: tp.jvp(f, (X.clone(),), (X,)),
    "vjp": lambda f: tp.vjp(f, X.clone()),
    "linearize": lambda f: tp.linearize(f, X.clone()),
    "jacfwd": lambda f: tp.jacfwd(f)(X.clone()),
    "jacrev": lambda f: tp.jacrev(f)(X.clone()),
    "hessian": lambda f: tp.hessian(f)(X.clone()),
    "vmap": lambda f: tp.vmap(f)(torch.stack([X, X])),
    "vmap grad": lambda f: tp.vmap(tp.grad(f))(torch.stack([X, X])),
    "grad grad": lambda f: tp.grad(lambda x: tp.grad(f)(x).sum())(X.clone()),
    "grad vmap": lambda f: tp.grad(lambda x: tp.vmap(f)(x).sum())(torch.stack([X, X])),
}


@pytest.fixture(autouse=True)
def as_before():
    yield
    global kept_name
    box["total"], kept_name, HOLDER.mean, HOLDER.seen = torch.zeros(2, dtype=D), None, torch.zeros(2, dtype=D), None
    kept.clear()
    RECENT.clear()
    Shared.seen = LINEAR.seen = lets_out_into_itself.seen = None
    Shared.mean = torch.zeros(2, dtype=D)
    vars(SHARED).pop("again", None)  # a view that was made under a transform belongs to it
    MODULE.count.zero_()


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("fn", MUTATIONS, ids=lambda fn: fn.__name__)
def test_a_mutation_is_an_error(fn, transform):
    with pytest.raises(ImpureError, match=rf": `[\w.]*{fn.__name__}` .* changes"):
        TRANSFORMS[transform](fn)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("fn", LEAKS, ids=lambda fn: fn.__name__)
def test_a_leak_is_an_error(fn, transform):
    with pytest.raises(
        ImpureError, match=rf": `[\w.]*{fn.__name__}` .* lets a traced tensor out, .*: it has no meaning"
    ):
        TRANSFORMS[transform](fn)


def _with_rules(kind):
    def call(f):
        made = kind(f)
        if kind is tp.custom_vmap:
            made.def_vmap(lambda size, batched, x: (f(x), True))
        elif kind is tp.custom_jvp:
            made.defjvp(lambda primals, tangents: (f(*primals), tangents[0].sum()))
        else:
            made.defvjp(lambda x: (f(x), None), lambda _, c: (c,))
        return made(X.clone())

    return call


PLAINLY = {
    "remat": lambda f: tp.remat(f)(X.clone()),
    "remat, dots": lambda f: tp.remat(f, "dots")(X.clone()),
    "associative_scan": lambda f: tp.associative_scan(lambda a, b: (len(a) == 2 and f(a), a + b)[1], X.repeat(2)),
    "scan": lambda f: tp.scan(lambda c, x: (c + f(x[None].expand(2).clone()) * 0, None), X[0], X),
    "custom_jvp": _with_rules(tp.custom_jvp),
    "custom_vjp": _with_rules(tp.custom_vjp),
    "custom_vmap": _with_rules(tp.custom_vmap),
    "eval_shape": lambda f: tp.eval_shape(f, X.clone()),
    "make_graph": lambda f: tp.make_graph(f)(X.clone()),
}
OF_ARGUMENTS = [the_argument, the_argument_s_view, by_an_option]


@pytest.mark.parametrize("transform", PLAINLY)
@pytest.mark.parametrize("fn", MUTATIONS, ids=lambda fn: fn.__name__)
def test_a_mutation_is_an_error_outside_of_derivatives(fn, transform):
    if fn in OF_ARGUMENTS and transform == "scan":
        return  # there it gets a temporary
    name = r"<lambda>" if "scan" in transform else fn.__name__
    with pytest.raises(ImpureError, match=rf"^{transform.split(',')[0]}: `[\w.<>]*{name}` .* changes"):
        PLAINLY[transform](fn)


@pytest.mark.parametrize("transform", ["eval_shape", "make_graph"])
@pytest.mark.parametrize("fn", LEAKS, ids=lambda fn: fn.__name__)
def test_a_fake_tensor_that_is_stored_is_an_error(fn, transform):
    with pytest.raises(ImpureError, match=rf"^{transform}: `[\w.]*{fn.__name__}` .* lets a traced tensor out"):
        PLAINLY[transform](fn)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_temporaries_may_be_mutated(transform):
    def same(x):
        y = 2 * x + 1
        y = torch.stack([x[1] + x[0], y[1] + x[1]])
        return torch.relu(y[1]) * x[0]

    if transform in {"vjp", "linearize"}:
        return
    ours, wanted = TRANSFORMS[transform](temporaries), TRANSFORMS[transform](same)
    for one, two in zip(tp.tree.leaves(ours), tp.tree.leaves(wanted), strict=True):
        assert_close(one, two)
    tp.pure(temporaries)(X)


def test_detached_values_may_be_stored():
    losses = []

    def f(x):
        loss = (x**2).sum()
        losses.append(loss.detach())
        losses.append(float(loss.detach()))
        return loss

    assert_close(tp.grad(f)(X), 2 * X)
    assert_close(losses[0], (X**2).sum())


NORMALISING = {
    "grad": lambda f: tp.grad(f)(ROWS),
    "grad of grad": lambda f: tp.grad(lambda x: tp.grad(f)(x).sum())(ROWS),
    "jvp": lambda f: tp.jvp(f, (ROWS,), (ROWS,)),
    "vjp": lambda f: tp.vjp(f, ROWS),
    "linearize": lambda f: tp.linearize(f, ROWS),
    "jacrev": lambda f: tp.jacrev(f)(ROWS),
    "hessian": lambda f: tp.hessian(f)(ROWS),
    "jit": lambda f: tp.jit(f)(ROWS),
    "pure": lambda f: tp.pure(f)(ROWS),
}
ROWS = torch.tensor([[0.5, -1.0], [1.5, 2.0], [0.1, 0.2]], dtype=D)


@pytest.mark.parametrize("norm", ["batch_norm", "instance_norm"])
@pytest.mark.parametrize("transform", NORMALISING)
def test_an_in_place_update_of_running_statistics_is_an_error(transform, norm):
    """torch's kernels update them without a new version."""
    mean, var = torch.zeros(2, dtype=D), torch.ones(2, dtype=D)

    def normed(x, learns=True):
        if norm == "instance_norm":
            return (nn.functional.instance_norm(x.T[None], mean, var, None, None, learns) ** 3).sum()
        return (nn.functional.batch_norm(x, mean, var, None, None, learns) ** 3).sum()

    with pytest.raises(ImpureError, match="normed` .*(changes|would change)"):
        NORMALISING[transform](normed)
    NORMALISING[transform](lambda x: normed(x, False))


NAMES = {
    "in_a_dict": (in_a_dict, r"line \d+ of test_purity.py, `aten.(copy|fill)_` would change a float64 tensor of shape \(\), `box.total`: clone it"),
    "of_a_module": (of_a_module, r"`aten.add_` would change a float64 tensor of shape \(\), `MODULE.count`"),
    "of_a_view": (of_a_view, r"`aten.zero_` would change .* `box.total`"),
    "the_argument": (the_argument, r"line \d+ of test_purity.py, `aten.mul_` would change argument 0, a float64 tensor of shape \(2,\)"),
    "by_an_option": (by_an_option, "`aten.relu_` would change argument 0"),
    "draws": (lambda x: x + torch.rand(2), "`aten.rand` draws from the global generator: draw from a key, with tp.random"),
    "data": (lambda x: x.data.add_(1), "`aten.add_` would change argument 0"),
    "numpy": (lambda x: torch.from_numpy(x.numpy()).add_(1), r"`aten.add_` would change a float64 tensor of shape \(2,\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_pure_names_the_line_and_the_tensor(name):
    fn, message = NAMES[name]
    before, x = copy.deepcopy(box), X.clone()
    with pytest.raises(ImpureError, match=message):
        tp.pure(fn)(x)
    assert torch.equal(x, X) and torch.equal(before["total"], box["total"])  # refused before it happens


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_law_pure_is_the_function(transform):
    def f(x):
        return torch.sin(x).prod()

    for ours in (TRANSFORMS[transform](tp.pure(f)), tp.pure(TRANSFORMS[transform])(f)):
        wanted = TRANSFORMS[transform](f)
        for one, two in zip(tp.tree.leaves(ours), tp.tree.leaves(wanted), strict=True):
            if isinstance(two, torch.Tensor):
                assert_close(one, two)


def test_errors_of_a_transform_name_the_argument_or_the_capture():
    def f(p, x):
        with torch.no_grad():
            p["w"]["a"].zero_()
        return x.sum()

    with pytest.raises(ImpureError, match=r"grad: `.*f` \(test_purity.py:\d+\) changes argument 0 at `w.a` in place"):
        tp.grad(f, argnums=1)({"w": {"a": X.clone()}}, X)
    with pytest.raises(
        ImpureError, match=r"vmap: `of_a_module` .* changes what it captures, .* `MODULE.count` in place"
    ):
        tp.vmap(of_a_module)(X[None])
    with pytest.raises(ImpureError, match="grad: .*`the_argument` .*, line [0-9]+ of test_purity.py, changes in place"):
        tp.grad(the_argument)(X.clone())


def test_inference_tensors_and_long_lists_are_accepted():
    with torch.inference_mode():
        constant = torch.ones(2, dtype=D)
    numbers = list(range(1_000_000))
    assert_close(tp.grad(lambda x: (x * constant).sum() + numbers[0])(X), torch.ones(2, dtype=D))


def test_a_temporary_that_is_mutated_too_late_is_an_error_that_says_what_to_do():
    def f(x):
        y = x * 2
        z = torch.sin(y)
        y.add_(1)
        return z.sum()

    for gradient in (tp.grad(f), tp.jacrev(f), tp.hessian(f)):
        with pytest.raises(TransformError, match="changes a temporary in place after it was used .*: change a clone"):
            gradient(X)
    assert_close(tp.jacfwd(f)(X), 2 * torch.cos(2 * X))


def test_a_tensor_made_from_a_number_may_be_mutated():
    assert tp.pure(lambda x: torch.tensor(1.0).add_(1) + x)(torch.ones(())) == 3
