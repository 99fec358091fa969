"""Collectives over a named axis equal reductions over a dimension; chunks and devices change nothing."""

import pytest
import torch
from stacks import XS, D
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import TransformError
from torchpure.testing import assert_trees_close_to_rounding

W = torch.tensor([[1.0, -0.5], [0.3, 2.0], [0.7, -1.1]], dtype=D)
STEPS = torch.tensor([1.0, -0.5, 0.7], dtype=D)


def cubed(x):
    return x * tp.psum(x**2, "i")


def summed(x):
    return tp.psum(x**2, "i")


by_jvp, sum_by_jvp = tp.custom_jvp(cubed), tp.custom_jvp(summed)
by_jvp.defjvp(lambda p, t: (by_jvp(p[0]), t[0] * tp.psum(p[0] ** 2, "i") + p[0] * tp.psum(2 * p[0] * t[0], "i")))
sum_by_jvp.defjvp(lambda p, t: (sum_by_jvp(p[0]), tp.psum(2 * p[0] * t[0], "i")))
by_vjp, sum_by_vjp = tp.custom_vjp(cubed), tp.custom_vjp(lambda x: tp.psum(x, "i").sin())
by_vjp.defvjp(lambda x: (cubed(x), x), lambda x, ct: (ct * tp.psum(x**2, "i") + 2 * x * tp.psum(ct * x, "i"),))
sum_by_vjp.defvjp(lambda x: (tp.psum(x, "i").sin(), tp.psum(x, "i").cos()), lambda cos, ct: (tp.psum(ct * cos, "i"),))


def carried(**options):
    return lambda x: tp.scan(lambda c, s: (torch.sin(c * tp.psum(c * s, "i")), None), x, STEPS, **options)[0]


def carried_by_all(xs):
    for s in STEPS:
        xs = torch.sin(xs * (xs * s).sum(0))
    return xs


def chosen_in_a_loop(x):
    def body(c, s):
        return tp.cond(c[1] * s > 0, lambda c: torch.tanh(c * tp.pmean(c**2, "i")), lambda c: c.cos() * s, c), None

    return tp.scan(body, x, STEPS)[0]


def chosen_in_a_loop_by_all(xs):
    for s in STEPS:
        xs = torch.where(xs[:, 1:] * s > 0, torch.tanh(xs * (xs**2).mean(0)), xs.cos() * s)
    return xs


def until(x):
    return tp.while_loop(lambda c: c.sum() < 6, lambda c: c + 1 + 0.1 * tp.psum(c.sin(), "i"), x, max_steps=9)


def until_for_all(xs):
    while (active := xs.sum(1, keepdim=True) < 6).any():
        xs = torch.where(active, xs + 1 + 0.1 * xs.sin().sum(0), xs)
    return xs


def either(xs):
    return torch.where(xs[:, 1:] > 0, xs * (xs**2).sum(0), -xs.sin().sum(0))


def all_of(xs):
    return (xs**2).sum(0).expand_as(xs)


CHOICES = {  # members choose different branches, which use collectives
    "cond": (lambda x: tp.cond(x[1] > 0, cubed, lambda x: -tp.psum(x.sin(), "i"), x), either),
    "cond, captured": (lambda x: tp.cond(x[1] > 0, lambda: cubed(x), lambda: -tp.psum(x.sin(), "i")), either),
    "one branch": (
        lambda x: tp.cond(x[1] > 0, cubed, torch.sin, x),
        lambda xs: torch.where(xs[:, 1:] > 0, xs * (xs**2).sum(0), xs.sin()),
    ),
    "switch": (
        lambda x: tp.switch(
            tp.axis_index("i"),
            [
                lambda x: tp.pmax(x, "i") * x,
                lambda x: tp.all_gather(x, "i").prod(0),
                lambda x: x**2 * tp.axis_index("i"),
            ],
            x,
        ),
        lambda xs: torch.stack([xs.amax(0) * xs[0], xs.prod(0), xs[2] ** 2 * 2]),
    ),
    "cond in a loop": (chosen_in_a_loop, chosen_in_a_loop_by_all),
    "loops that end apart": (until, until_for_all),
    "remat in cond": (
        lambda x: tp.cond(x[1] > 0, tp.remat(cubed), tp.remat(lambda x: -tp.psum(x.sin(), "i")), x),
        either,
    ),
}
RERUN = {  # rules re-run these functions, possibly after the vmap is closed
    "remat": (
        tp.remat(lambda x: cubed(x) * tp.axis_index("i")),
        lambda xs: xs * (xs**2).sum(0) * torch.arange(3)[:, None],
    ),
    "remat of a sum": (tp.remat(summed), all_of),
    "remat of a gather": (tp.remat(lambda x: tp.all_gather(x, "i").prod(0)), lambda xs: xs.prod(0).expand_as(xs)),
    "remat, captured": (lambda x: tp.remat(lambda y: y * tp.psum(x**2, "i"))(x), lambda xs: xs * (xs**2).sum(0)),
    "scan": (carried(), carried_by_all),
    "scan, remat": (carried(remat=1), carried_by_all),
    "remat of a scan": (tp.remat(carried()), carried_by_all),
    "remat of a choice": (tp.remat(chosen_in_a_loop), chosen_in_a_loop_by_all),
    "custom_jvp": (by_jvp, lambda xs: xs * (xs**2).sum(0)),
    "custom_jvp of a sum": (sum_by_jvp, all_of),
    "custom_vjp": (by_vjp, lambda xs: xs * (xs**2).sum(0)),
    "custom_vjp of a sum": (sum_by_vjp, lambda xs: xs.sum(0).sin().expand_as(xs)),
}
COLLECTIVES = {  # for one member, over the axis "i"; for all members, over dimension 0
    "psum": (lambda x: x * tp.psum(x**2, "i"), lambda xs: xs * (xs**2).sum(0)),
    "pmean": (lambda x: torch.sin(x - tp.pmean(x, "i")), lambda xs: torch.sin(xs - xs.mean(0))),
    "pmax": (lambda x: torch.exp(x - tp.pmax(x, "i")), lambda xs: torch.exp(xs - xs.amax(0))),
    "pmin": (lambda x: x * tp.pmin(x, "i"), lambda xs: xs * xs.amin(0)),
    "all_gather": (lambda x: tp.all_gather(x**2, "i").prod(0) * x, lambda xs: (xs**2).prod(0) * xs),
    "axis_index": (lambda x: x**2 * tp.axis_index("i"), lambda xs: xs**2 * torch.arange(len(xs))[:, None]),
    "softmax": (lambda x: x.exp() / tp.psum(x.exp(), "i"), lambda xs: torch.softmax(xs, 0)),
    "norm": (
        lambda x: (x - tp.pmean(x, "i")) / (tp.pmean((x - tp.pmean(x, "i")) ** 2, "i") + 1e-3).sqrt(),
        lambda xs: (xs - xs.mean(0)) / (xs.var(0, unbiased=False) + 1e-3).sqrt(),
    ),
    "constant": (lambda x: x * tp.psum(torch.ones((), dtype=D), "i"), lambda xs: xs * len(xs)),
    "tree": (lambda x: tp.psum({"a": [x], "b": x**2}, "i")["a"][0] * x, lambda xs: xs.sum(0) * xs),
    **CHOICES,
    **RERUN,
}


def over(f, **options):
    return tp.vmap(f, axis_name="i", **options)


STACKS = {
    "vmap": (lambda f: over(f)(XS), lambda g: g(XS)),
    "vmap, last": (lambda f: over(f, in_dims=1, out_dims=1)(XS.T).T, lambda g: g(XS)),
    "grad vmap": (
        lambda f: tp.grad(lambda xs: (over(f)(xs) * W).sum())(XS),
        lambda g: tp.grad(lambda xs: (g(xs) * W).sum())(XS),
    ),
    # the gradient of a member is that of the sum over all members: the transpose of psum is psum
    "vmap grad": (
        lambda f: over(tp.grad(lambda x, w: (f(x) * w).sum()))(XS, W),
        lambda g: tp.grad(lambda xs: (g(xs) * W).sum())(XS),
    ),
    "jvp vmap": (lambda f: tp.jvp(over(f), (XS,), (W,))[1], lambda g: tp.jvp(g, (XS,), (W,))[1]),
    "vmap jvp": (lambda f: over(lambda x, t: tp.jvp(f, (x,), (t,))[1])(XS, W), lambda g: tp.jvp(g, (XS,), (W,))[1]),
    "hessian vmap": (
        lambda f: tp.hessian(lambda xs: (over(f)(xs) * W).sum())(XS),
        lambda g: tp.hessian(lambda xs: (g(xs) * W).sum())(XS),
    ),
    "jvp vmap jvp": (
        lambda f: tp.jvp(over(lambda x, t: tp.jvp(f, (x,), (t,))[1]), (XS, W), (W, XS))[1],
        lambda g: tp.jvp(lambda xs, t: tp.jvp(g, (xs,), (t,))[1], (XS, W), (W, XS))[1],
    ),
    "inner": (lambda f: tp.vmap(over(f))(torch.stack([XS, W])), lambda g: torch.stack([g(XS), g(W)])),
    "outer": (
        lambda f: over(tp.vmap(f, in_dims=1, out_dims=1))(torch.stack([XS, W], -1)),
        lambda g: torch.stack([g(XS), g(W)], -1),
    ),
    "graph of grad vmap": (
        lambda f: tp.make_graph(tp.grad(lambda xs: (over(f)(xs) * W).sum()))(XS)(XS),
        lambda g: tp.grad(lambda xs: (g(xs) * W).sum())(XS),
    ),
    "graph of vmap grad": (
        lambda f: tp.make_graph(over(tp.grad(lambda x, w: (f(x) * w).sum())))(XS, W)(XS, W),
        lambda g: tp.grad(lambda xs: (g(xs) * W).sum())(XS),
    ),
}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("name", COLLECTIVES)
def test_collectives_equal_reductions_over_the_batch(name, stack):
    f, g = COLLECTIVES[name]
    ours, theirs = STACKS[stack]
    assert_close(ours(f), theirs(g), rtol=1e-12, atol=1e-13)


def test_two_axes():
    def f(x):
        return tp.psum(x * tp.psum(x, "j"), "i") + tp.axis_index("i") * 10 + tp.axis_index("j")

    ours = tp.vmap(tp.vmap(f, axis_name="i"), axis_name="j")(W)
    rows, columns = torch.arange(3.0, dtype=D)[:, None], torch.arange(2.0, dtype=D)
    assert_close(ours, (W * W.sum(0)).sum(1, keepdim=True) + 10 * columns + rows)
    both = tp.vmap(tp.vmap(lambda x: tp.psum(tp.psum(x, "i"), "j"), axis_name="i"), axis_name="j")(W)
    assert_close(both, W.sum().expand(3, 2))


def test_a_collective_in_a_branch_includes_members_that_do_not_choose_it():
    x = torch.tensor([-2.0, 0.5, -0.25, 0.75], dtype=D)
    wanted = torch.tensor([-4.875, 4.875, -4.875, 4.875], dtype=D)
    for g in (summed, lambda x: tp.pmean(x**2, "i") * 4):
        f = over(lambda x, g=g: tp.cond(x > 0, g, lambda x: -g(x), x))
        assert torch.equal(f(x), wanted)
        assert torch.equal(tp.make_graph(f)(x)(x), wanted)


def test_a_branch_without_collectives_has_finite_derivatives_beside_one_with():
    x = torch.tensor([0.0, 4.0, -1.0], dtype=D)
    f = over(lambda x: tp.cond(x > 0, torch.sqrt, lambda x: tp.psum(x, "i"), x))
    g = tp.grad(lambda x: f(x).sum())
    assert_close(f(x), torch.tensor([3.0, 2.0, 3.0], dtype=D))
    assert_close(g(x), torch.tensor([2.0, 2.25, 2.0], dtype=D))
    assert_close(tp.make_graph(g)(x)(x), g(x))


def test_members_of_one_axis_choose_a_branch_with_a_collective_over_another():
    signs = torch.tensor([1.0, -1.0, 0.5], dtype=D)

    def f(x):
        return tp.vmap(lambda s: tp.cond(s > 0, lambda: s * tp.psum(x * s, "i"), lambda: x.cos() * s))(signs).sum(0)

    def g(xs):
        return 1.25 * xs.sum(0) - xs.cos()

    for stack in STACKS:
        ours, theirs = STACKS[stack]
        assert_close(ours(f), theirs(g), rtol=1e-12, atol=1e-13)


SHARED = {  # functions of x, which is mapped, and of c, which all members share
    "plain": lambda x, c: x * tp.psum(c**2, "i") + tp.psum(c, "i"),
    "remat": tp.remat(lambda x, c: x * tp.psum(c**2, "i") + tp.psum(c, "i")),
    "scan": lambda x, c: tp.scan(
        lambda sums, _: (sums + (x * tp.psum(c**2, "i") + tp.psum(c, "i")) / 2, None),
        torch.zeros_like(c),
        None,
        2,
        remat=1,
    )[0],
    "custom_vjp": tp.custom_vjp(lambda x, c: x * tp.psum(c**2, "i") + tp.psum(c, "i")),
}
SHARED["custom_vjp"].defvjp(
    lambda x, c: (SHARED["plain"](x, c), (x, c)),
    lambda residuals, ct: (
        ct * tp.psum(residuals[1] ** 2, "i"),
        2 * residuals[1] * tp.psum(ct * residuals[0], "i") + tp.psum(ct, "i"),
    ),
)


@pytest.mark.parametrize("name", SHARED)
def test_the_gradient_of_a_shared_argument_sums_over_members(name):
    c = torch.tensor([0.3, -1.2], dtype=D)

    def loss(c):
        return (tp.vmap(SHARED[name], in_dims=(0, None), axis_name="i")(XS, c) * W).sum()

    def reference(c):
        return ((XS * 3 * c**2 + 3 * c) * W).sum()

    assert_close(tp.grad(loss)(c), tp.grad(reference)(c))
    assert_close(tp.jacfwd(loss)(c), tp.grad(reference)(c))
    assert_close(tp.hessian(loss)(c), tp.hessian(reference)(c))
    assert_close(tp.make_graph(tp.hessian(loss))(c)(c), tp.hessian(reference)(c))


TUPLES = {
    "psum": (lambda x: tp.psum(x, ("i", "j")), lambda w: w.sum().expand_as(w)),
    "pmean": (lambda x: tp.pmean(x, ("i", "j")), lambda w: w.mean().expand_as(w)),
    "pmax": (lambda x: tp.pmax(x**2, ("j", "i")), lambda w: (w**2).amax().expand_as(w)),
    "pmin": (lambda x: tp.pmin(x, ("i", "j")), lambda w: w.amin().expand_as(w)),
    "all_gather": (lambda x: tp.all_gather(x, ("i", "j")), lambda w: w.flatten().expand(3, 2, 6)),
    "all_gather, the other way": (lambda x: tp.all_gather(x, ("j", "i")), lambda w: w.T.flatten().expand(3, 2, 6)),
    "axis_index": (lambda x: x * tp.axis_index(("i", "j")), lambda w: w * torch.arange(6).reshape(3, 2)),
    "none": (lambda x: tp.psum(x, ()) + tp.axis_index(()), lambda w: w),
    "one": (lambda x: tp.psum(x, ("i",)), lambda w: w.sum(0).expand_as(w)),
    "numbers": (
        lambda x: x * tp.psum(1, ("i", "j")) + tp.psum(2.5, "i") + tp.pmean(3, "i") + tp.pmax(4, "j") + tp.pmin(5, "j"),
        lambda w: w * 6 + 2.5 * 3 + 3 + 4 + 5,
    ),
    "gathered number": (lambda x: tp.all_gather(3, "i") * x, lambda w: 3 * w[..., None].expand(3, 2, 3)),
}


@pytest.mark.parametrize("name", TUPLES)
def test_collectives_over_several_axes(name):
    f, g = TUPLES[name]
    both = tp.vmap(tp.vmap(f, axis_name="j"), axis_name="i")
    assert_close(both(W), g(W))
    assert_close(tp.make_graph(both)(W)(W), g(W))
    assert_close(tp.grad(lambda w: (both(w) ** 2).sum())(W), tp.grad(lambda w: (g(w) ** 2).sum())(W))


def test_the_size_of_an_axis_is_a_number():
    sizes = []
    over(lambda x: sizes.append(tp.psum(1, "i")) or x)(XS)
    assert sizes == [3]


def test_batch_norm_over_members_is_torch_s_batch_norm():
    layer = torch.nn.BatchNorm1d(2, dtype=D)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.5, -0.5]))
    weight = layer.weight.detach()

    def member(x, weight):
        mean = tp.pmean(x, "batch")
        variance = tp.pmean((x - mean) ** 2, "batch")
        return (x - mean) / torch.sqrt(variance + layer.eps) * weight

    def loss(weight, xs):
        return (tp.vmap(member, in_dims=(0, None), axis_name="batch")(xs, weight) ** 3).sum()

    xs = XS.clone().requires_grad_()
    theirs = torch.autograd.grad((layer(xs) ** 3).sum(), (layer.weight, xs))
    for ours, wanted in zip(tp.grad(loss, (0, 1))(weight, XS), theirs, strict=True):
        assert_close(ours, wanted)


CHUNKINGS = [{"chunk_size": 1}, {"chunk_size": 2}, {"chunk_size": 99}, {"devices": ["cpu"]}, {"devices": ["cpu"] * 2}, {"devices": ["cpu"] * 5, "chunk_size": 1}]  # fmt: skip


@pytest.mark.parametrize("options", CHUNKINGS, ids=str)
def test_law_chunks_and_devices_change_nothing(options):
    def f(p, x):
        return {"y": torch.sin(x * p["w"]), "z": (x.sum(), p["w"])}

    dims = {"y": -1, "z": (0, None)}
    p = {"w": W[0], "name": "w"}
    ours = tp.vmap(f, in_dims=(None, 1), out_dims=dims, **options)(p, XS.T)
    wanted = tp.vmap(f, in_dims=(None, 1), out_dims=dims)(p, XS.T)
    assert_trees_close_to_rounding(ours, wanted)
    if "devices" not in options:
        assert_close(tp.grad(lambda xs: tp.vmap(torch.sin, **options)(xs).sum())(XS), torch.cos(XS))
    xs = XS.clone().requires_grad_()
    assert_close(torch.autograd.grad(tp.vmap(torch.sin, **options)(xs).sum(), xs)[0], torch.cos(XS))


class Doubling(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        return out * 2 if func is torch.sin else out


SETTINGS = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "no autocast": lambda: torch.autocast("cpu", enabled=False),
    "device": lambda: torch.device("meta"),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "mode of functions": Doubling,
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("devices", [["cpu"], ["cpu"] * 3])
def test_devices_work_under_the_settings_of_the_calling_thread(name, devices):
    weight = torch.randn(3, 3, requires_grad=True)
    xs = torch.randn(5, 3)

    def f(x):
        return weight @ x, torch.sin(x), torch.zeros(2)

    with SETTINGS[name]():
        ours, wanted = tp.vmap(f, devices=devices)(xs), tp.vmap(f)(xs)
        after = torch.zeros(2)
    for one, two in zip(ours[:2], wanted[:2], strict=True):
        assert_close(one, two)
        assert (one.requires_grad, one.is_inference()) == (two.requires_grad, two.is_inference())
    assert after.device.type == ("meta" if name == "device" else "cpu")
    assert tp.tree.describe(ours[2]) == tp.tree.describe(wanted[2])


def test_an_outer_device_mode_applies_in_device_threads():
    with torch.device("meta"):
        device_types = []
        tp.vmap(lambda x: (device_types.append(torch.zeros(2).device.type), x)[1], devices=["cpu"] * 2)(XS)
    assert device_types == ["meta"] * 2
    assert torch.zeros(2).device.type == "cpu"


@pytest.mark.parametrize(
    "fn", [torch.sin, torch.sum, tp.grad(lambda x: x.sum()), lambda x: {"a": x, "b": (x[0], None)}]
)
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_no_members_on_devices(fn, chunk_size):
    ours = tp.vmap(fn, devices=["cpu"] * 2, chunk_size=chunk_size)(XS[:0])
    wanted = tp.vmap(fn)(XS[:0])
    tp.tree.check_same(ours, wanted)


psum_in_its_rule = tp.custom_vmap(torch.sin)
psum_in_its_rule.def_vmap(lambda size, batched, x: (tp.psum(x, "i"), True))
psum_in_backward = tp.custom_vjp(torch.sin)
psum_in_backward.defvjp(lambda x: (x.sin(), x), lambda x, ct: (tp.psum(ct * x.cos(), "i"),))
ERRORS = {
    "devices inside, no members": (
        lambda: tp.vmap(lambda x: tp.vmap(torch.sin, devices=["cpu"])(x[:0]))(XS),
        "devices are for the outermost transform",
    ),
    "no axis": (lambda: tp.psum(XS, "i"), r"psum: there is no axis 'i' here \(axes: none\): name it in vmap\(fn, axis_name='i'\)"),
    "another axis": (lambda: tp.vmap(lambda x: tp.pmax(x, "j"), axis_name="i")(XS), r"there is no axis 'j' here \(axes: 'i'\)"),
    "taken": (lambda: tp.vmap(tp.vmap(torch.sin, axis_name="i"), axis_name="i")(XS), "axis_name 'i' is taken by a vmap around this one"),
    "no tensor": (lambda: over(lambda x: tp.pmean("a", "i"))(XS), "pmean: wanted tensors or numbers, got str 'a'"),
    "no name": (lambda: over(lambda x: tp.psum(x, 3))(XS), "psum: wanted the name of an axis or a tuple of names, got int 3"),
    "twice": (lambda: over(lambda x: tp.pmax(x, ("i", "i")))(XS), r"pmax: an axis is named twice in \('i', 'i'\): name each one once"),
    "one of two": (lambda: over(lambda x: tp.psum(x, ("i", "j")))(XS), r"there is no axis 'j' here \(axes: 'i'\)"),
    "rule of all": (lambda: over(psum_in_its_rule)(XS), "psum: the rule of a custom_vmap has all members of axis 'i' at once: use"),
    "backward alone": (
        lambda: over(tp.grad(lambda x: tp.cond(x[0] > 0.5, psum_in_backward, torch.sin, x).sum()))(XS),
        "psum: this collective over axis 'i' runs only in the derivative of a branch, and members chose different branches",
    ),
    "chunks": (lambda: over(torch.sin, chunk_size=2), "collectives over axis 'i' cannot span chunks or devices: leave out chunk_size"),
    "devices inside": (lambda: tp.vmap(tp.vmap(torch.sin, devices=["cpu"]))(XS), "devices are for the outermost transform"),
    "no devices": (lambda: tp.vmap(torch.sin, devices=[]), "devices must be a list of at least one device"),
    "chunk of 0": (lambda: tp.vmap(torch.sin, chunk_size=0), "chunk_size must be an int of at least 1, or None, got int 0"),
    "chunk of jacrev": (lambda: tp.jacrev(torch.sin, chunk_size=-1), "jacrev: chunk_size must be an int of at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, message = ERRORS[name]
    with pytest.raises(TransformError, match=message):
        call()
    assert_close(over(lambda x: tp.psum(x, "i"))(XS)[0], XS.sum(0))  # the axis is closed after an error
