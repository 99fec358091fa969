"""Donated arguments: results take over their memory, and using them afterwards is an error."""

import ctypes
import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure.errors import ImpureError, TransformError
from torchpure.jit import backends
from torchpure.testing import assert_trees_close

D = torch.float64
LARGE = 1 << 18  # elements; from this size on, programs write into donated memory


def _x(size=6, seed=0):
    return tp.random.normal(tp.random.key(seed), (size,), dtype=D)


def move(x, y):
    return x * 2 + y, y.sum()


SIZES = [6, pytest.param(LARGE, marks=pytest.mark.compile)]


@pytest.mark.parametrize("size", SIZES)
def test_a_donated_tensor_cannot_be_used(size):
    f = tp.jit(move, donate=0)
    for _ in range(2):
        x, y = _x(size), _x(size, 1)
        wanted, memory = move(x, y), x.data_ptr()
        out = f(x, y)
        assert_trees_close(out, wanted, rtol=1e-13)
        assert size == 6 or out[0].data_ptr() == memory
        uses = (lambda x, _: x + 1, lambda x, _: x.shape, lambda x, y: torch.stack([y, x]), f, lambda x, y: f(y, x))
        for use in uses:
            with pytest.raises(
                ImpureError, match=r"was donated to `move` \(test_donation.py:\d+\): its memory belongs to"
            ):
                use(x, y)
        assert repr(x) == f"<a tensor that was donated to {tp.transforms.describe_function(move)}>"
        assert torch.equal(y, _x(size, 1))


@pytest.mark.parametrize("size", SIZES)
def test_memory_shared_with_other_tensors_is_not_overwritten(size):
    f = tp.jit(lambda x: x * 2, donate=0)
    x = _x(size)
    view, part = x.view(-1), x[1:]
    out = f(x)
    assert torch.equal(out, 2 * _x(size)) and torch.equal(view, _x(size)) and torch.equal(part, _x(size)[1:])
    base = _x(size)
    f(base[:])
    assert torch.equal(base, _x(size))
    array = _x(size).numpy()
    shared = torch.from_numpy(array)
    other = shared.detach()
    f(shared)
    assert torch.equal(other, _x(size))


@pytest.mark.compile
def test_a_step_with_a_large_loop_writes_into_donated_memory(monkeypatch):
    """The native backend is disabled: it would take this loop, and allocate new results."""
    monkeypatch.setattr(backends, "compile_native", lambda module, tensors, donated=None: "the test says so")

    def accumulated(params, batches):
        gradient = tp.grad(lambda p, batch: (torch.linalg.vector_norm(p["w"] @ batch) - p["b"].sum()) ** 2)

        def add(total, batch):
            return tp.tree.map(torch.add, total, gradient(params, batch)), None

        total, _ = tp.scan(add, tp.tree.map(torch.zeros_like, params), batches)
        return tp.tree.map(lambda p, g: p - 1e-3 * g, params, total)

    step = tp.jit(accumulated, donate=0)
    params, batches = (
        {"w": _x(LARGE).reshape(512, 512).clone(), "b": _x(LARGE, 1)},
        _x(2 * 512 * 8, 2).reshape(2, 512, 8),
    )
    for _ in range(2):
        wanted, memory = accumulated(params, batches), {name: leaf.data_ptr() for name, leaf in params.items()}
        params = step(params, batches)
        assert_trees_close(params, wanted, rtol=1e-10, atol=1e-12)
        assert {name: leaf.data_ptr() for name, leaf in params.items()} == memory


@pytest.mark.compile
def test_a_donated_tensor_cannot_be_used_after_an_error():
    """The program has written to its memory before it failed: a second try with it would give other numbers."""
    f = tp.jit(lambda x, i: ((x * 2).sin(), (x * 2).sin()[i]), donate=0)
    x = torch.ones(LARGE, dtype=D)
    with pytest.raises(IndexError):
        f(x, torch.tensor(LARGE))
    with pytest.raises(ImpureError, match="was donated"):
        f(x, torch.tensor(0))
    out, _ = f(torch.ones(LARGE, dtype=D), torch.tensor(0))
    assert torch.allclose(out, torch.sin(torch.full((LARGE,), 2.0, dtype=D)))


@pytest.mark.compile
def test_an_array_of_numpy_is_not_overwritten():
    f, array = tp.jit(lambda x: x * 2, donate=0), _x(LARGE).numpy().copy()
    kept = array.copy()
    assert torch.equal(f(torch.from_numpy(array)), torch.from_numpy(kept) * 2)
    assert (array == kept).all()


@pytest.mark.compile
def test_results_take_memory_of_their_own_shape():
    """Every pair of weights has one size in two shapes, and each new weight reads its old one alone."""
    step = tp.jit(lambda p, g: [(w - 0.1 * g.sum(), v * 2) for w, v in p], donate=0)
    params = [
        tuple(_x(LARGE, seed).reshape(shape).clone() for seed, shape in enumerate(((512, -1), (-1, 256)))) for _ in "12"
    ]
    wanted = [(w - 0.1 * 3, v * 2) for w, v in params]
    memory = {leaf.data_ptr() for leaf in tp.tree.leaves(params)}
    found = step([(w.clone(), v.clone()) for w, v in params], torch.ones(3, dtype=D))
    assert_trees_close(found, wanted, rtol=1e-13)
    assert [leaf.shape for leaf in tp.tree.leaves(found)] == [leaf.shape for leaf in tp.tree.leaves(params)]
    again = step(params, torch.ones(3, dtype=D))
    assert {leaf.data_ptr() for leaf in tp.tree.leaves(again)} == memory


@pytest.mark.compile
def test_results_may_read_inputs_that_other_results_overwrite():
    """The memory of x and y may be overwritten in any order, if nothing reads it afterwards."""

    def swap(x, y, z):
        return {"y": y * 2, "x": x + y.flip(0), "sum": x.sum() + y.sum(), "view": z.view(-1), "z": z, "v": z + x}

    f = tp.jit(swap, donate=(0, "y", 2))
    args = [_x(LARGE, seed) for seed in range(3)]
    wanted = swap(*args)
    out = f(*(arg.clone() for arg in args))
    assert_trees_close(out, wanted, rtol=1e-12, atol=1e-13)
    assert len({leaf.data_ptr() for name, leaf in out.items() if name != "view"}) == 5


@pytest.mark.parametrize("size", SIZES)
def test_a_donated_argument_that_is_returned_becomes_a_new_tensor(size):
    f = tp.jit(lambda p, q: ({"p": p, "same": p, "q": q + 1}, q[1:]), donate=(0,))
    p, q = _x(size), _x(size, 1)
    out, part = f(p, q)
    assert torch.equal(out["p"], _x(size)) and torch.equal(out["same"], _x(size)) and torch.equal(part, q[1:])
    with pytest.raises(ImpureError):
        p.sum()


def test_parameters_of_a_module_under_no_grad():
    net = nn.Linear(3, 2)
    f = tp.jit(lambda p: {name: leaf * 2 for name, leaf in p.items()}, donate=0)
    with torch.no_grad():
        out = f(dict(net.named_parameters()))
    assert out["weight"].shape == (2, 3)
    with pytest.raises(ImpureError, match="donated"):
        net(torch.ones(1, 3))


def test_nothing_is_donated_where_the_function_itself_runs():
    f = tp.jit(lambda x: x * 2, donate=0)
    x = _x().requires_grad_()
    assert f(x).requires_grad and torch.equal(x.detach(), _x())
    y = _x()
    tp.vmap(f)(y), tp.grad(lambda y: f(y).sum())(y)
    assert torch.equal(y, _x())


def test_in_inference_mode():
    f = tp.jit(lambda x: x * 2, donate=0)
    with torch.inference_mode():
        x = _x()
        assert torch.equal(f(x), _x() * 2)
        with pytest.raises(ImpureError):
            x + 1


MISUSES = {
    "no argument": (lambda: tp.jit(move, donate=2), r"jit: donate=2 must hold positions or names of arguments: `move` .* has no argument 2 \(it has: x, y\)"),
    "no name": (lambda: tp.jit(move, donate=("x", "z")), "has no argument 'z'"),
    "negative": (lambda: tp.jit(move, donate=-1), "has no argument -1"),
    "a bool": (lambda: tp.jit(move, donate=True), "has no argument True"),
    "static too": (lambda: tp.jit(move, donate=0, static="x"), "argument 0 is in static and in donate: a static argument has no memory"),
    "twice": (lambda: tp.jit(move, donate=(0, 1))(*[_x()] * 2), r"`move` .* is given a donated tensor twice: donate a clone"),
    "and not": (lambda: tp.jit(move, donate=0)(*[_x()] * 2), "is given a donated tensor twice"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISUSES)
def test_misuse(name):
    call, message = MISUSES[name]
    with pytest.raises(TransformError, match=message):
        call()


def test_a_tensor_given_twice_later_is_refused_too():
    f = tp.jit(move, donate=(0, 1))
    f(_x(), _x(6, 1))
    x = _x()
    with pytest.raises(TransformError, match="is given a donated tensor twice"):
        f(x, x)
    assert torch.equal(x, _x())


def _peak(run):
    """Return by how many MiB the resident memory rises while `run` runs."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


@pytest.mark.compile
def test_a_donated_adam_step_needs_no_memory_of_its_own():
    optimizer = tp.optim.adam(1e-3)
    params = tuple(_x(500_000, seed).float() for seed in range(6))
    grads, state = params[::-1], optimizer.init(params)
    grads = tuple(grad * 0.5 for grad in grads)
    wanted = optimizer.step(grads, state, params)
    step = tp.jit(lambda g, s, p: optimizer.step(g, s, p), donate=(1, 2))
    params = tuple(leaf.clone() for leaf in params)
    params, state = step(grads, state, params)
    assert_trees_close((params, state), wanted, rtol=1e-5, atol=1e-6)

    def run():
        nonlocal params, state
        for _ in range(3):
            params, state = step(grads, state, params)

    whole = 6 * 3 * 500_000 * 4 / 2**20  # parameters and state
    assert _peak(run) < 0.05 * whole


def _allocated(run):
    """Return by how many MiB the memory of tensors rises while `run` runs."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(sizes, initial=0)) / 2**20


@pytest.mark.compile
def test_a_donated_train_step_takes_what_one_in_place_does():
    net = nn.Sequential(nn.Linear(256, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 4))
    x, y = torch.ones(64, 256), torch.ones(64, 4)
    fn, optimizer = tp.functional(net), tp.optim.adam(1e-3)
    params = tp.tree.map(torch.clone, fn.params)
    state = optimizer.init(params)

    def loss(params):
        return ((fn(params, x) - y) ** 2).mean()

    step = tp.jit(lambda params, state: optimizer.step(tp.grad(loss)(params), state, params), donate=(0, 1))

    def ours():
        nonlocal params, state
        params, state = step(params, state)

    other = torch.optim.Adam(net.parameters(), 1e-3, fused=True)

    def theirs():
        ((net(x) - y) ** 2).mean().backward()
        other.step()
        other.zero_grad(set_to_none=True)

    for _ in range(2):
        ours(), theirs()
    held = 3 * sum(leaf.nbytes for leaf in params.values()) / 2**20
    assert held + _allocated(ours) < 1.05 * (held + _allocated(theirs))
