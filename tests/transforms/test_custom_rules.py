"""Functions with rules of their own, and recomputed ones: in every stack of transforms they are what they stand for."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import torchpure as tp
from torchpure.errors import StructureError, TransformError

sys.path.insert(0, str(Path(__file__).parent))

from stacks import STACKS, D, U, V

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


def backward_first(x, tree, name):
    return backward(x, tree, name), (torch.cos(x), torch.sin(x), scale_of(tree), name)


def backward_then(residuals, cotangent):
    used.append("vjp")
    cosine, sine, scale, name = residuals
    assert name == "name"
    return cotangent["y"] * cosine * scale, {"scale": [cotangent["y"] * sine, None]}, None


backward.defvjp(backward_first, backward_then)


@tp.custom_vmap
def batched(x, tree, name):
    return {"y": torch.sin(x) * scale_of(tree), "name": name, "count": torch.tensor(3)}


@batched.def_vmap
def batched_rule(size, in_batched, x, tree, name):
    used.append("vmap")
    scale = scale_of(tree)
    assert in_batched[2] == name and isinstance(in_batched[0], bool)  # what is no tensor is as it was
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


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_law_every_composition_uses_the_rule(name, stack):
    f = FUNCTIONS[name]
    if name.startswith("custom_") and "graph" in stack:
        pytest.skip("the count is read from a tensor without numbers")
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


@pytest.mark.parametrize("f", [doubled_jvp, doubled_vjp])
def test_a_rule_is_never_ignored(f):
    first, second = 2 * torch.cos(U), torch.diag(-2 * torch.sin(U))
    for name in ("grad", "jacfwd", "jacrev", "autograd"):
        assert_close(STACKS[name](f), first)
    assert_close(STACKS["linearize"](f), (first * V).sum())
    for name in ("hessian", "jacfwd jacfwd", "jacrev jacrev", "autograd twice"):
        assert_close(STACKS[name](f), second)
    assert_close(STACKS["vmap grad"](f), torch.stack([2 * torch.cos(x) for x in (U, V, U * V)]))


def test_torch_forward_over_forward_ignores_the_rule_and_ours_does_not():
    """A row of what torch 2.13 gets silently wrong: forward derivatives are off inside `Function.jvp`."""

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


def test_symbolic_zeros_tell_what_nobody_asks_for():
    seen = []
    f = tp.custom_jvp(lambda x, y: x * y)

    def rule(primals, tangents):
        seen.append([tangent is None for tangent in tangents])
        (x, y), (dx, dy) = primals, tangents
        return x * y, (0 if dx is None else dx * y) + (0 if dy is None else x * dy)

    f.defjvp(rule, symbolic_zeros=True)
    x = U.clone().requires_grad_()
    assert_close(torch.autograd.grad(f(x, V).sum(), x)[0], V)
    assert seen == [[False, True]]


@torch.library.custom_op("torchpure_tests::counted_square", mutates_args=())
def counted_square(x: torch.Tensor) -> torch.Tensor:
    used.append("square")
    return x**2


counted_square.register_autograd(
    lambda ctx, grad: 2 * ctx.saved_tensors[0] * grad,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


def test_remat_recomputes_what_the_policy_does_not_keep():
    def body(x):
        return tp.remat_name(torch.sin(counted_square(torch.cos(x))), "hidden").exp().sum()

    def runs(f):
        used.clear()
        assert_close(tp.grad(f)(U), tp.grad(lambda x: torch.sin(torch.cos(x) ** 2).exp().sum())(U))
        return len(used)

    assert runs(body) == 1 and runs(tp.remat(body)) == 2 and runs(tp.remat(body, {"hidden"})) == 2
    assert runs(tp.remat(body, lambda op: op is torch.ops.torchpure_tests.counted_square.default)) == 1


def test_remat_keeps_less_memory():
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


def test_remat_keeps_less_memory_among_members():
    live, most = {}, []

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for leaf in tp.tree.leaves(out):
                if isinstance(leaf, torch.Tensor):
                    live[leaf.untyped_storage()._cdata] = StorageWeakRef(leaf.untyped_storage())
            most.append(sum(not ref.expired() for ref in live.values()))
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
        live.clear(), most.clear()
        with Watching():
            tp.vmap(tp.grad(f))(torch.ones(2, 3, dtype=D))
        return max(most)

    assert 2 * peak(deep(tp.remat)) < peak(deep(lambda f: f))


def test_a_gradient_among_members_stays_attached_to_what_it_captures():
    w = torch.tensor(2.0, dtype=D, requires_grad=True)
    out = tp.vmap(tp.grad(lambda x: (w * x**2).sum()))(U[None])
    (slope,) = torch.autograd.grad(out.sum(), w)
    assert_close(slope, 2 * U.sum())


def test_remat_follows_what_it_captures():
    def loss(w):
        return tp.remat(lambda x: torch.sin(w * x).sum())(U)

    for gradient in (tp.grad(loss), lambda w: tp.vmap(tp.grad(loss))(w[None])[0], tp.jacfwd(loss)):
        assert_close(gradient(V), U * torch.cos(U * V))
    w = V.clone().requires_grad_()
    assert_close(torch.autograd.grad(loss(w), w)[0], U * torch.cos(U * V))


def make(kind, *rules):
    f = kind(lambda x: x * 2)
    (getattr(f, {tp.custom_jvp: "defjvp", tp.custom_vjp: "defvjp", tp.custom_vmap: "def_vmap"}[kind]))(*rules)
    return f


def captures(kind, *rules):
    def outer(w):
        f = kind(lambda x: x * w)
        getattr(f, {tp.custom_jvp: "defjvp", tp.custom_vjp: "defvjp", tp.custom_vmap: "def_vmap"}[kind])(*rules)
        return f(U).sum()

    return tp.grad(outer)(U)


def through_a_module(w):
    """Reach a traced tensor by a call alone: only the running function shows it."""
    box = sys.modules["torchpure_hidden_box"] = ModuleType("torchpure_hidden_box")
    box.w = w
    f = tp.custom_jvp(lambda x: x * __import__("torchpure_hidden_box").w)
    f.defjvp(lambda p, t: (p[0], t[0]))
    return f(w * 1).sum()


@pytest.mark.parametrize(
    "transform", [tp.grad, tp.jacfwd, tp.hessian, lambda f: lambda x: tp.vmap(tp.grad(f))(x[None])]
)
def test_a_capture_that_the_search_does_not_see_is_refused_when_it_is_used(transform):
    with pytest.raises(
        TransformError, match="uses a float64 tensor .* follows, by a way that is not seen from outside"
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
    "policy": (lambda: tp.remat(torch.sin, "some"), "remat: wanted the policy 'nothing', 'dots', a set of names or a function, got str 'some'"),
    "name": (lambda: tp.remat_name(3, "x"), "remat_name: wanted a tensor, got int 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, message = ERRORS[name]
    with pytest.raises(TransformError, match=message):
        call()


def test_wrong_structures_of_rules_name_the_path():
    f = make(tp.custom_jvp, lambda p, t: (p[0], {"a": t[0]}))
    with pytest.raises(StructureError, match="custom_jvp: `<lambda>` .*: tangent: trees differ"):
        tp.jacfwd(f)(U)
