"""Members that meet over a named axis, against the same over a dimension; chunks and devices."""

import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import TransformError

sys.path.insert(0, str(Path(__file__).parent))

from stacks import XS, D

W = torch.tensor([[1.0, -0.5], [0.3, 2.0], [0.7, -1.1]], dtype=D)
MEETINGS = {  # for a member, over the axis "i" -> for all members, over dimension 0
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
    # each member's gradient is that of the sum over all members: a sum's transpose is a sum
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
    "graph of vmap grad": (
        lambda f: tp.make_graph(over(tp.grad(lambda x, w: (f(x) * w).sum())))(XS, W)(XS, W),
        lambda g: tp.grad(lambda xs: (g(xs) * W).sum())(XS),
    ),
}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("name", MEETINGS)
def test_members_meet(name, stack):
    f, g = MEETINGS[name]
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


SPREADS = [{"chunk_size": 1}, {"chunk_size": 2}, {"chunk_size": 99}, {"devices": ["cpu"]}, {"devices": ["cpu"] * 2}, {"devices": ["cpu"] * 5, "chunk_size": 1}]  # fmt: skip


@pytest.mark.parametrize("options", SPREADS, ids=str)
def test_law_chunks_and_devices_change_nothing(options):
    def f(p, x):
        return {"y": torch.sin(x * p["w"]), "z": (x.sum(), p["w"])}

    dims = {"y": -1, "z": (0, None)}
    p = {"w": W[0], "name": "w"}
    ours = tp.vmap(f, in_dims=(None, 1), out_dims=dims, **options)(p, XS.T)
    wanted = tp.vmap(f, in_dims=(None, 1), out_dims=dims)(p, XS.T)
    for one, two in zip(tp.tree.leaves(ours), tp.tree.leaves(wanted), strict=True):
        assert torch.equal(one, two)
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


def test_a_device_around_is_the_one_of_new_tensors_in_threads_of_devices():
    with torch.device("meta"):
        seen = []
        tp.vmap(lambda x: (seen.append(torch.zeros(2).device.type), x)[1], devices=["cpu"] * 2)(XS)
    assert seen == ["meta"] * 2
    assert torch.zeros(2).device.type == "cpu"


@pytest.mark.parametrize(
    "fn", [torch.sin, torch.sum, tp.grad(lambda x: x.sum()), lambda x: {"a": x, "b": (x[0], None)}]
)
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_no_members_on_devices(fn, chunk_size):
    ours = tp.vmap(fn, devices=["cpu"] * 2, chunk_size=chunk_size)(XS[:0])
    wanted = tp.vmap(fn)(XS[:0])
    tp.tree.check_same(ours, wanted)


ERRORS = {
    "devices inside, no members": (
        lambda: tp.vmap(lambda x: tp.vmap(torch.sin, devices=["cpu"])(x[:0]))(XS),
        "devices are for the outermost transform",
    ),
    "no axis": (lambda: tp.psum(XS, "i"), r"psum: there is no axis 'i' here \(axes: none\): name it in vmap\(fn, axis_name='i'\)"),
    "another axis": (lambda: tp.vmap(lambda x: tp.pmax(x, "j"), axis_name="i")(XS), r"there is no axis 'j' here \(axes: 'i'\)"),
    "taken": (lambda: tp.vmap(tp.vmap(torch.sin, axis_name="i"), axis_name="i")(XS), "axis_name 'i' is taken by a vmap around this one"),
    "no tensor": (lambda: over(lambda x: tp.pmean(3.0, "i"))(XS), "pmean: wanted tensors, got float 3.0"),
    "chunks": (lambda: over(torch.sin, chunk_size=2), "the members of axis 'i' have to run at once to meet: leave out chunk_size"),
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
    assert_close(over(lambda x: tp.psum(x, "i"))(XS)[0], XS.sum(0))  # an axis that failed is closed again
