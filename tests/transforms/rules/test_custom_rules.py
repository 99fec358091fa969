"""custom_jvp, custom_vjp, custom_vmap and remat equal the plain function in every stack of transforms."""

import sys
from itertools import product
from types import ModuleType

import pytest
import torch
from daily import daily
from stacks import STACKS, D, U, V
from torch.multiprocessing.reductions import StorageWeakRef
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import torchpure as tp
from torchpure.errors import StructureError, TransformError

W = torch.tensor([[0.3, 0.2], [0.5, -0.4]], dtype=D)
used = []  # which rules have run


def plain(x):
    return (torch.sin(W @ x) * torch.tensor([1.5, -0.5], dtype=D)).sum()


def scale_of(tree):
    return tree["scale"][0]


@tp.custom_jvp
def forward(x, tree, name):
    return {"y": torch.sin(x) * scale_of(tree), "name": name, "count": torch.tensor(3)}


@forward.defjvp
def forward_rule(primals, tangents):
    used.append("jvp")
    (x, tree, name), (dx, dtree, _) = primals, tangents
    out = forward(x, tree, name)
    return out, {"y": torch.cos(x) * dx * scale_of(tree) + torch.sin(x) * scale_of(dtree), "name": None, "count": None}


@tp.custom_vjp
def backward(x, tree, name):
    return {"y": torch.sin(x) * scale_of(tree), "name": name, "count": torch.tensor(3)}


def backward_rule_forward(x, tree, name):
    return backward(x, tree, name), (torch.cos(x), torch.sin(x), scale_of(tree), name)


def backward_rule_backward(residuals, cotangent):
    used.append("vjp")
    cosine, sine, scale, name = residuals
    assert name == "name"
    return cotangent["y"] * cosine * scale, {"scale": [cotangent["y"] * sine, None]}, None


backward.defvjp(backward_rule_forward, backward_rule_backward)


@tp.custom_vmap
def batched(x, tree, name):
    return {"y": torch.sin(x) * scale_of(tree), "name": name, "count": torch.tensor(3)}


@batched.def_vmap
def batched_rule(size, in_batched, x, tree, name):
    used.append("vmap")
    scale = scale_of(tree)
    assert in_batched[2] == name and isinstance(in_batched[0], bool)  # a leaf that is not a tensor is unchanged
    x = x if in_batched[0] else x.expand(size, *x.shape)
    scale = scale if scale_of(in_batched[1]) else scale.expand(size, *scale.shape)
    value = {"y": torch.sin(x) * scale, "name": name, "count": torch.tensor(3)}
    return value, {"y": True, "name": None, "count": False}


def with_rule(rule):
    def f(x):
        out = rule(W @ x, {"scale": [torch.tensor([1.5, -0.5], dtype=D) * (x * 0 + 1), 7]}, "name")
        assert out["name"] == "name" and int(out["count"]) == 3 if not isinstance(x, torch.fx.Proxy) else True
        return out["y"].sum()

    return f


def recomputed(policy):
    def f(x):
        def body(x, *, scale):
            hidden = tp.remat_name(torch.sin(W @ x), "hidden")
            return (hidden * scale).sum()

        return tp.remat(body, policy)(x, scale=torch.tensor([1.5, -0.5], dtype=D) * (x * 0 + 1))

    return f


FUNCTIONS = {
    "custom_jvp": with_rule(forward),
    "custom_vjp": with_rule(backward),
    "custom_vmap": with_rule(batched),
    "remat": recomputed("nothing"),
    "remat, dots": recomputed("dots"),
    "remat, named": recomputed({"hidden"}),
}


@pytest.mark.parametrize(("name", "stack"), daily(product(FUNCTIONS, STACKS), every=2))
def test_law_every_composition_uses_the_rule(name, stack):
    f = FUNCTIONS[name]
    if name.startswith("custom_") and "graph" in stack:
        pytest.skip("the count would be read from a fake tensor")
    used.clear()
    assert_close(STACKS[stack](f), STACKS[stack](plain), rtol=1e-12, atol=1e-13)
    kind = name.removeprefix("custom_")
    wanted = {"jvp": stack not in {"value", "vmap", "vmap, last", "vmap, chunks", "vmap vmap"}, "vmap": "vmap" in stack}
    wanted["vjp"] = wanted["jvp"]
    if wanted.get(kind):
        assert kind in used


def doubled_jvp(x):
    f = tp.custom_jvp(torch.sin)
    f.defjvp(lambda p, t: (torch.sin(p[0]), 2 * torch.cos(p[0]) * t[0]))
    return f(x).sum()


def doubled_vjp(x):
    f = tp.custom_vjp(torch.sin)
    f.defvjp(lambda x: (torch.sin(x), x), lambda x, ct: (2 * torch.cos(x) * ct,))
    return f(x).sum()


def doubled_by_linearize(x):
    f = tp.custom_vjp(torch.sin)
    f.defvjp(lambda x: (torch.sin(x), x), lambda x, ct: (2 * tp.linearize(torch.sin, x)[1](ct),))
    return f(x).sum()


class _Doubled(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, cotangent):
        return 2 * tp.linearize(torch.sin, *ctx.saved_tensors)[1](cotangent)


def test_autograd_function_whose_backward_linearizes():
    for name in ("jacrev jacrev", "autograd twice"):
        assert_close(STACKS[name](lambda x: _Doubled.apply(x).sum()), torch.diag(-2 * torch.sin(U)))


@pytest.mark.parametrize("f", [doubled_jvp, doubled_vjp, doubled_by_linearize])
def test_a_rule_is_never_ignored(f):
    first, second = 2 * torch.cos(U), torch.diag(-2 * torch.sin(U))
    for name in ("grad", "jacfwd", "jacrev", "autograd"):
        assert_close(STACKS[name](f), first)
    assert_close(STACKS["linearize"](f), (first * V).sum())
    for name in ("hessian", "jacfwd jacfwd", "jacrev jacrev", "autograd twice"):
        assert_close(STACKS[name](f), second)
    assert_close(STACKS["vmap grad"](f), torch.stack([2 * torch.cos(x) for x in (U, V, U * V)]))


def test_torch_forward_over_forward_ignores_the_rule_and_ours_does_not():
    """torch 2.13 is silently wrong here: it disables forward derivatives inside `Function.jvp`."""

    class Sin(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return torch.sin(x)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_forward(*inputs)

        @staticmethod
        def jvp(ctx, tangent):
            return torch.cos(ctx.saved_tensors[0]) * tangent

    x, one = U[0], torch.ones((), dtype=D)

    def twice(f):
        return torch.func.jvp(lambda x: torch.func.jvp(f, (x,), (one,))[1], (x,), (one,))[1]

    assert twice(Sin.apply) == 0  # should be −sin x
    ours = tp.custom_jvp(torch.sin)
    ours.defjvp(lambda p, t: (torch.sin(p[0]), torch.cos(p[0]) * t[0]))
    assert_close(twice(ours), -torch.sin(x))


def test_clipping_of_cotangents_and_nondiff_arguments():
    clip = tp.custom_vjp(lambda low, x, high: x, nondiff_argnums=(0, 2))
    clip.defvjp(lambda low, x, high: (x, None), lambda low, high, _, ct: (ct.clamp(low, high),))
    assert torch.equal(tp.grad(lambda x: (5 * clip(-1, x, 1)).sum())(U), torch.ones(2, dtype=D))
    assert torch.equal(tp.vmap(tp.grad(lambda x: -5 * clip(-1, x, 1)))(U), -torch.ones(2, dtype=D))
    power = tp.custom_jvp(lambda x, n: x**n, nondiff_argnums=(1,))
    power.defjvp(lambda n, p, t: (p[0] ** n, n * p[0] ** (n - 1) * t[0]))
    assert_close(tp.hessian(lambda x: power(x, 3).sum())(U), torch.diag(6 * U))


def scaled(x, scale=2.0, power=1):
    return x**power * scale


NAMED = {
    "custom_jvp": lambda: made(
        tp.custom_jvp(scaled, nondiff_argnums=(1, 2)),
        lambda scale, power, p, t: (scaled(*p, scale, power), 7 * scale * power * t[0]),
    ),
    "custom_vjp": lambda: made(
        tp.custom_vjp(scaled, nondiff_argnums=(1, 2)),
        lambda x, scale, power: (scaled(x, scale, power), None),
        lambda scale, power, _, ct: (7 * scale * power * ct,),
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_arguments_by_name_and_defaults_have_a_position(name):
    f = NAMED[name]()
    assert f(U[0], power=2) == scaled(U[0], 2.0, 2)
    for call, wanted in (
        (lambda x: f(x), 14.0),
        (lambda x: f(x, 3.0), 21.0),
        (lambda x: f(x, power=2), 28.0),
        (lambda x: f(power=2, x=x, scale=1.0), 14.0),
    ):
        assert tp.grad(call)(U[0]) == wanted
        assert torch.equal(tp.vmap(tp.grad(call))(U), torch.full_like(U, wanted))


def test_arguments_by_name_reach_the_rule_for_batches():
    f = made(tp.custom_vmap(scaled), lambda n, batched, x, scale, power: (x * 0 + 5 * scale * power, True))
    assert torch.equal(tp.vmap(lambda x: f(x, power=3))(U), torch.full_like(U, 30.0))


def test_rules_may_give_python_numbers_for_tensors_of_no_dimension():
    f = make(tp.custom_vjp, lambda x: (x, None), lambda _, ct: (3.0,))
    assert tp.grad(f)(U[0]) == 3 and tp.grad(f)(U[0]).dtype == D
    assert torch.equal(tp.vmap(tp.grad(f))(U), torch.full_like(U, 3.0))
    g = made(tp.custom_jvp(lambda x: x), lambda p, t: (p[0], 3.0))
    assert tp.jvp(g, (U[0],), (U[1],))[1] == 3


def test_symbolic_zeros_are_none_for_arguments_that_are_not_differentiated():
    absent_tangents = []
    f = tp.custom_jvp(lambda x, y: x * y)

    def rule(primals, tangents):
        absent_tangents.append([tangent is None for tangent in tangents])
        (x, y), (dx, dy) = primals, tangents
        return x * y, (0 if dx is None else dx * y) + (0 if dy is None else x * dy)

    f.defjvp(rule, symbolic_zeros=True)
    x = U.clone().requires_grad_()
    assert_close(torch.autograd.grad(f(x, V).sum(), x)[0], V)
    assert absent_tangents and all(one == [False, True] for one in absent_tangents)


@torch.library.custom_op("torchpure_tests::counted_square", mutates_args=())
def counted_square(x: torch.Tensor) -> torch.Tensor:
    used.append("square")
    return x**2


counted_square.register_autograd(
    lambda ctx, grad: 2 * ctx.saved_tensors[0] * grad,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


def test_remat_recomputes_what_the_policy_does_not_save():
    def body(x):
        return tp.remat_name(torch.sin(counted_square(torch.cos(x))), "hidden").exp().sum()

    def runs(f):
        used.clear()
        assert_close(tp.grad(f)(U), tp.grad(lambda x: torch.sin(torch.cos(x) ** 2).exp().sum())(U))
        return len(used)

    assert runs(body) == 1 and runs(tp.remat(body)) == 2 and runs(tp.remat(body, {"hidden"})) == 2
    assert runs(tp.remat(body, lambda op: op is torch.ops.torchpure_tests.counted_square.default)) == 1


def test_remat_needs_less_memory():
    kept = []

    def pack(t):
        kept.append(t.numel())
        return t

    def deep(x):
        for _ in range(10):
            x = torch.sin(x)
        return x.sum()

    def total(f):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            tp.grad(f)(torch.ones(100, dtype=D))
        return sum(kept)

    assert total(tp.remat(deep)) <= 100 < total(deep)


def test_remat_needs_less_memory_under_vmap():
    live, counts = {}, []

    class CountingLiveStorages(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for leaf in tp.tree.leaves(out):
                if isinstance(leaf, torch.Tensor):
                    live[leaf.untyped_storage()._cdata] = StorageWeakRef(leaf.untyped_storage())
            counts.append(sum(not ref.expired() for ref in live.values()))
            return out

    def layer(x):
        return torch.sin(torch.cos(torch.sin(torch.cos(torch.sin(x)))))

    def deep(wrap):
        def loss(x):
            for _ in range(8):
                x = wrap(layer)(x)
            return x.sum()

        return loss

    def peak(f):
        live.clear(), counts.clear()
        with CountingLiveStorages():
            tp.vmap(tp.grad(f))(torch.ones(2, 3, dtype=D))
        return max(counts)

    assert 2 * peak(deep(tp.remat)) < peak(deep(lambda f: f))


def test_a_mapped_gradient_stays_differentiable_in_a_captured_tensor():
    w = torch.tensor(2.0, dtype=D, requires_grad=True)
    out = tp.vmap(tp.grad(lambda x: (w * x**2).sum()))(U[None])
    (slope,) = torch.autograd.grad(out.sum(), w)
    assert_close(slope, 2 * U.sum())


def test_remat_differentiates_captured_tensors():
    def loss(w):
        return tp.remat(lambda x: torch.sin(w * x).sum())(U)

    for gradient in (tp.grad(loss), lambda w: tp.vmap(tp.grad(loss))(w[None])[0], tp.jacfwd(loss)):
        assert_close(gradient(V), U * torch.cos(U * V))
    w = V.clone().requires_grad_()
    assert_close(torch.autograd.grad(loss(w), w)[0], U * torch.cos(U * V))


def make(kind, *rules):
    return made(kind(lambda x: x * 2), *rules)


def made(f, *rules):
    getattr(f, {tp.custom_jvp: "defjvp", tp.custom_vjp: "defvjp", tp.custom_vmap: "def_vmap"}[type(f)])(*rules)
    return f


def make_of(fn):
    return made(tp.custom_vmap(fn), lambda n, b, x: (fn(x), True))


def captures(kind, *rules):
    def outer(w):
        f = kind(lambda x: x * w)
        getattr(f, {tp.custom_jvp: "defjvp", tp.custom_vjp: "defvjp", tp.custom_vmap: "def_vmap"}[kind])(*rules)
        return f(U).sum()

    return tp.grad(outer)(U)


def through_a_module(w):
    """Capture a traced tensor through a module: only a run of the function shows it."""
    box = sys.modules["torchpure_hidden_box"] = ModuleType("torchpure_hidden_box")
    box.w = w
    f = tp.custom_jvp(lambda x: x * __import__("torchpure_hidden_box").w)
    f.defjvp(lambda p, t: (p[0], t[0]))
    return f(w * 1).sum()


@pytest.mark.parametrize(
    "transform", [tp.grad, tp.jacfwd, tp.hessian, lambda f: lambda x: tp.vmap(tp.grad(f))(x[None])]
)
def test_a_capture_that_the_search_misses_is_refused_when_used(transform):
    with pytest.raises(
        TransformError, match="uses a float64 tensor .* follows, and that could not be found from its closure"
    ):
        transform(through_a_module)(U)


def normalised(x):
    return torch.nn.functional.layer_norm(x, (2,), weight=V).prod(-1)


def through_jvp(x):
    f = tp.custom_jvp(normalised)
    f.defjvp(lambda p, t: tp.jvp(normalised, p, t))
    return f(x).sum()


def through_vjp(x):
    f = tp.custom_vjp(normalised)
    f.defvjp(lambda x: (normalised(x), x), lambda x, cotangent: tp.vjp(normalised, x)[1](cotangent))
    return f(x).sum()


def test_derivatives_outside_a_vmap_use_its_rule_and_inside_use_the_function():
    f = tp.custom_vmap(lambda x: torch.sin(x))
    f.def_vmap(lambda size, batched, x: (3 * torch.sin(x), True))  # breaks the law, so that the two derivatives differ
    around = [tp.jvp(tp.vmap(f), (U,), (torch.ones_like(U),))[1], tp.grad(lambda x: tp.vmap(f)(x).sum())(U)]
    inside = [tp.vmap(lambda x: tp.jvp(f, (x,), (torch.ones_like(x),))[1])(U), tp.vmap(tp.grad(f))(U)]
    for actual in around:
        assert_close(actual, 3 * torch.cos(U))
    for actual in inside:
        assert_close(actual, torch.cos(U))
    assert_close(tp.vmap(tp.value_and_grad(f))(U)[0], 3 * torch.sin(U))


def through_vmap(x):
    f = tp.custom_vmap(normalised)
    f.def_vmap(lambda size, batched, x: (normalised(x), True))
    return tp.vmap(f)(x).sum()


@pytest.mark.parametrize("f", [through_jvp, through_vjp, through_vmap, lambda x: tp.remat(normalised)(x).sum()])
def test_operations_are_replaced_inside_of_rules_too(f):
    """Each rule runs an operation whose forward derivative torch cannot differentiate again."""
    x = torch.stack([U, V * U])
    wanted = torch.autograd.functional.hessian(lambda x: normalised(x).sum(), x)
    for ours in (tp.jacfwd(tp.jacfwd(f)), tp.jacrev(tp.jacfwd(f)), tp.hessian(f)):
        assert_close(ours(x), wanted)


ERRORS = {
    "no function": (lambda: tp.custom_jvp(3), "custom_jvp: wanted a function, got int 3"),
    "no function for vjp": (lambda: tp.custom_vjp(None), "custom_vjp: wanted a function, got None"),
    "no jvp rule": (lambda: tp.custom_jvp(torch.sin)(U), "custom_jvp: `sin` has no rule yet: define it with defjvp"),
    "no vjp rule": (lambda: tp.custom_vjp(torch.sin)(U), "custom_vjp: `sin` has no rule yet: define it with defvjp"),
    "no vmap rule": (lambda: tp.custom_vmap(torch.sin)(U), "custom_vmap: `sin` has no rule yet: define it with def_vmap"),
    "jvp: no pair": (lambda: tp.jacfwd(make(tp.custom_jvp, lambda p, t: t[0]))(U), r"custom_jvp: the rule `<lambda>` .* must return \(value, tangent\), got a float64 tensor"),
    "jvp: shape": (lambda: tp.jacfwd(make(tp.custom_jvp, lambda p, t: (p[0], t[0][:1])))(U), r"gave a tangent at `\.` that is a float64 tensor of shape \(1,\), wanted a float64 tensor of shape \(2,\)"),
    "jvp: dtype": (lambda: tp.jacfwd(make(tp.custom_jvp, lambda p, t: (p[0], t[0].float())))(U), "that is a float32 tensor"),
    "vjp: no pair": (lambda: tp.jacrev(make(tp.custom_vjp, lambda x: x, lambda r, c: (c,)))(U), r"must return \(value, residuals\)"),
    "vjp: no tuple": (lambda: tp.jacrev(make(tp.custom_vjp, lambda x: (x, None), lambda r, c: c))(U), "must return a tuple of 1, a cotangent for each argument, got a float64 tensor"),
    "vjp: shape": (lambda: tp.jacrev(make(tp.custom_vjp, lambda x: (x, None), lambda r, c: (c[:1],)))(U), r"gave a cotangent for argument 0 that is a float64 tensor of shape \(1,\), wanted .*\(2,\)"),
    "vmap: no pair": (lambda: tp.vmap(make(tp.custom_vmap, lambda n, b, x: x))(U), r"must return \(value, out_batched\)"),
    "vmap: size": (lambda: tp.vmap(make(tp.custom_vmap, lambda n, b, x: (x[:1], True)))(U), "wanted 2 members at dimension 0"),
    "jvp captures": (lambda: captures(tp.custom_jvp, lambda p, t: (p[0], t[0])), r"captures a float64 tensor of shape \(2,\), `w`, which a transform follows: its rule would lose that derivative. Pass it as an argument"),
    "vjp captures": (lambda: captures(tp.custom_vjp, lambda x: (x, None), lambda r, c: (c,)), "custom_vjp: .* captures .* `w`"),
    "vmap captures": (lambda: captures(tp.custom_vmap, lambda n, b, x: (x, True)), "custom_vmap: .* captures .* `w`"),
    "static": (lambda: tp.grad(made(tp.custom_vjp(lambda x: x, nondiff_argnums=(5,)), lambda x: (x, None), lambda r, c: (7 * c,)))(U[0]), r"custom_vjp: nondiff_argnums=\(5,\) does not fit the 1 arguments of `<lambda>` .*: there is no argument 5"),
    "static of jvp": (lambda: made(tp.custom_jvp(lambda x: x, nondiff_argnums=(-2,)), lambda p, t: (p, t))(U), r"custom_jvp: nondiff_argnums=\(-2,\) does not fit the 1 arguments"),
    "static by name": (lambda: tp.custom_jvp(torch.sin, nondiff_argnums="x"), "custom_jvp: nondiff_argnums must be a tuple of ints, got str 'x'"),
    "vjp: number": (lambda: tp.grad(lambda x: make(tp.custom_vjp, lambda x: (x, None), lambda r, c: (1.0,))(x).sum())(U), r"gave a cotangent for argument 0 that is float 1.0, wanted a float64 tensor of shape \(2,\)"),
    "vjp: text": (lambda: tp.grad(lambda x: make(tp.custom_vjp, lambda x: (x, None), lambda r, c: ("c",))(x).sum())(U), "gave a cotangent for argument 0 that is str 'c', wanted"),
    "name alone": (lambda: made(tp.custom_jvp(lambda x, *, scale: x * scale), lambda p, t: (p, t))(U, scale=2.0), "custom_jvp: `<lambda>` .* takes 'scale' by name alone, and a rule takes its arguments by position: let"),
    "no signature": (lambda: make_of(torch.sin)(input=U), "custom_vmap: `sin` has no signature, so the positions of 'input' are unknown"),
    "policy": (lambda: tp.remat(torch.sin, "some"), "remat: wanted the policy 'nothing', 'dots', a set of names or a function, got str 'some'"),
    "name": (lambda: tp.remat_name(3, "x"), "remat_name: wanted a tensor, got int 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, message = ERRORS[name]
    with pytest.raises(TransformError, match=message):
        call()


OUTPUT_CHECKS = {
    "vjp": (lambda: tp.grad(lambda x: make(tp.custom_vjp, lambda x: ({"a": x}, None), lambda r, c: (c["a"],))(x)["a"])(U[0]), r"custom_vjp: the value that the rule `<lambda>` .* returns, against that of `<lambda>` .*: trees differ at `\.`: wanted a leaf, got dict of 1"),
    "vmap": (lambda: tp.vmap(make(tp.custom_vmap, lambda n, b, x: ((x, x), True)))(U), r"custom_vmap: the value .*: trees differ at `\.`: wanted a leaf, got tuple of 2"),
    "jvp": (lambda: tp.grad(lambda x: make(tp.custom_jvp, lambda p, t: ([p[0]], [t[0]]))(x))(U[0]), r"custom_jvp: the value that the rule .*: trees differ at `\.`: wanted a leaf, got list of 1"),
    "vjp: shape": (lambda: tp.jacrev(make(tp.custom_vjp, lambda x: (x[:1], None), lambda r, c: (c,)))(U), r"custom_vjp: the value .*: at `\.` wanted a float64 tensor of shape \(2,\), got a float64 tensor of shape \(1,\)"),
    "vmap: dtype": (lambda: tp.vmap(make(tp.custom_vmap, lambda n, b, x: (x.float(), True)))(U), r"custom_vmap: the value .* wanted a float64 tensor of shape \(\), got a float32"),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTPUT_CHECKS)
def test_a_rule_must_return_what_the_function_returns(name):
    call, message = OUTPUT_CHECKS[name]
    with pytest.raises((StructureError, TransformError), match=message):
        call()


NOT_LINEAR = {
    "square": lambda t: t**2,
    "affine": lambda t: t + 1,
    "clipped": lambda t: t.clamp(min=0),
    "absolute": abs,
}
AROUND = {
    "grad": lambda f: tp.grad(lambda x: f(x).sum())(U),
    "vmap of grad": lambda f: tp.vmap(tp.grad(f))(U),
    "jacrev": lambda f: tp.jacrev(f)(U),
    "hessian": lambda f: tp.hessian(lambda x: f(x).sum())(U),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", NOT_LINEAR)
def test_a_rule_that_is_not_linear_has_no_transpose(name, around):
    f = made(tp.custom_jvp(lambda x: 2 * x), lambda p, t: (2 * p[0], NOT_LINEAR[name](t[0])))
    with pytest.raises(
        TransformError, match=r"custom_jvp: the rule `<lambda>` .* is not linear in the tangents, at `\.`"
    ):
        AROUND[around](f)


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("coefficient", [1e300, float("inf"), float("nan"), 1e-300])
def test_a_rule_is_linear_for_every_coefficient(coefficient, around):
    f = made(tp.custom_jvp(lambda x: 2 * x), lambda p, t: (2 * p[0], coefficient * t[0] + (1e8 * t[0] - 1e8 * t[0])))
    assert_close(AROUND[around](f), AROUND[around](lambda x: coefficient * x), equal_nan=True)


def test_the_output_check_runs_the_function_once():
    calls = []
    f = made(tp.custom_vjp(lambda x: (calls.append(1), x)[1]), lambda x: (x, None), lambda _, ct: (3 * ct,))
    for _ in range(3):
        assert tp.grad(f)(U[0]) == 3
    assert len(calls) == 1


def test_a_function_that_only_its_rule_computes():
    def f(x):
        raise NotImplementedError

    f = made(tp.custom_vjp(f), lambda x: (x, None), lambda _, ct: (3 * ct,))
    assert tp.grad(f)(U[0]) == 3


def test_wrong_structures_of_rules_name_the_path():
    f = make(tp.custom_jvp, lambda p, t: (p[0], {"a": t[0]}))
    with pytest.raises(StructureError, match="custom_jvp: `<lambda>` .*: tangent: trees differ"):
        tp.jacfwd(f)(U)


class OfInput(torch.autograd.Function):
    """A sine with both of torch's rules."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return torch.sin(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output, *inputs)
        ctx.save_for_forward(output, *inputs)

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * torch.cos(ctx.saved_tensors[1])

    @staticmethod
    def jvp(ctx, tangent):
        return tangent * torch.cos(ctx.saved_tensors[1])


class OfAttribute(OfInput):
    """A sine whose rules read the input from an attribute of the context."""

    @staticmethod
    def setup_context(ctx, inputs, output):
        OfInput.setup_context(ctx, inputs, output)
        ctx.kept = inputs

    @staticmethod
    def jvp(ctx, tangent):
        return tangent * torch.cos(ctx.kept[0])


class Mapped(OfInput):
    """A sine with a vmap rule of its own."""

    generate_vmap_rule = False

    @staticmethod
    def vmap(info, in_dims, x):
        return Mapped.apply(x), in_dims[0]


class Unmapped(OfInput):
    """A sine without a vmap rule."""

    generate_vmap_rule = False


SECOND = {
    "jacfwd(jacfwd)": lambda f, x: tp.jacfwd(tp.jacfwd(f))(x),
    "jvp(jvp)": lambda f, x: tp.jvp(lambda x: tp.jvp(f, (x,), (ONE,))[1], (x,), (ONE,))[1],
    "grad(jvp)": lambda f, x: tp.grad(lambda x: tp.jvp(f, (x,), (ONE,))[1])(x),
    "jacrev(jacfwd)": lambda f, x: tp.jacrev(tp.jacfwd(f))(x),
    "hessian": lambda f, x: tp.hessian(f)(x),
    "vmap(jacfwd(jacfwd))": lambda f, x: tp.vmap(tp.jacfwd(tp.jacfwd(f)))(torch.stack([x, -x]))[0],
    "jacfwd(vmap(jacfwd))": lambda f, x: tp.jacfwd(tp.vmap(tp.jacfwd(f)))(x[None])[0, 0],
    "program": lambda f, x: tp.make_graph(tp.jacfwd(tp.jacfwd(f)))(x)(x),
    "scan": lambda f, x: tp.jacfwd(tp.jacfwd(lambda x: tp.scan(lambda c, _: (f(c), None), x, None, length=1)[0]))(x),
}
ONE = torch.tensor(1.0, dtype=D)


@pytest.mark.parametrize("function", [OfInput, OfAttribute, Mapped], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", SECOND)
def test_second_forward_derivatives_of_an_autograd_function(name, function):
    x = torch.tensor(0.7, dtype=D)
    assert_close(SECOND[name](function.apply, x), -torch.sin(x))


def test_third_forward_derivatives_of_an_autograd_function_and_torchs_second():
    x = torch.tensor(0.7, dtype=D)
    assert torch.func.jacfwd(torch.func.jacfwd(OfInput.apply))(x) == 0
    for function in (OfInput, OfAttribute, Mapped):
        assert_close(tp.jacfwd(tp.jacfwd(tp.jacfwd(function.apply)))(x), -torch.cos(x))


def test_an_autograd_function_that_cannot_be_mapped():
    assert_close(tp.grad(Unmapped.apply)(U[0]), torch.cos(U[0]))
    for call in (lambda: tp.hessian(Unmapped.apply)(U[0]), lambda: tp.vmap(Unmapped.apply)(U)):
        with pytest.raises(
            TransformError, match="uses a torch.autograd.Function .* setup_context and generate_vmap_rule"
        ):
            call()


class ReturnsTangent(torch.autograd.Function):
    """A function whose forward rule returns its input tangent unchanged."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent

    @staticmethod
    def jvp(ctx, tangent):
        return tangent


@tp.custom_jvp
def returns_tangent(x):
    return x.clone()


returns_tangent.defjvp(lambda primals, tangents: (primals[0].clone(), tangents[0]))


@tp.custom_jvp
def returns_tangent_twice(x):
    return x.clone(), x.clone()


returns_tangent_twice.defjvp(
    lambda primals, tangents: ((primals[0].clone(), primals[0].clone()), (tangents[0], tangents[0]))
)


def one_of_two(x):
    one, other = returns_tangent_twice(x)
    one.mul_(7)
    return other


@tp.custom_jvp
def slope_of_one(x):
    return torch.sin(x)


slope_of_one.defjvp(lambda primals, tangents: (torch.sin(primals[0]), torch.ones(2, dtype=D) * tangents[0][0].detach()))


def test_an_unbatched_tangent_becomes_batched():
    """The result is batched, and an in-place write changes it for each member."""
    f = lambda x: slope_of_one(x).mul_(x)  # noqa: E731
    x = torch.tensor([[0.3, -2.0], [0.5, 1.0]], dtype=D)
    ones = torch.ones(2, dtype=D)
    out_tangents = tp.vmap(lambda x: tp.jvp(f, (x,), (ones,))[1])(x)
    assert_close(out_tangents, x + torch.sin(x))


RULES = {"custom_jvp": returns_tangent, "a Function of the user's": ReturnsTangent.apply, "two results": one_of_two}


@pytest.mark.parametrize("name", RULES)
def test_an_in_place_write_to_the_result_does_not_change_the_input_tangent(name):
    f, x, v = RULES[name], torch.tensor([0.3, -2.0], dtype=D), torch.tensor([1.0, 0.5], dtype=D)

    def tripled(x):
        y = 1 * x
        return f(y).mul_(3) + y

    direction = v.clone()
    assert_close(tp.jvp(tripled, (x,), (direction,))[1], 4 * v)
    assert_close(tp.jacfwd(tripled)(x), 4 * torch.eye(2, dtype=D))
    assert_close(tp.vmap(lambda x: tp.jvp(tripled, (x,), (v,))[1])(x[None])[0], 4 * v)
    assert_close(tp.jit(lambda x, v: tp.jvp(tripled, (x,), (v,))[1])(x, direction), 4 * v)
    assert torch.equal(direction, v)
