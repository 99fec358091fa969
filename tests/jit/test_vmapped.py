"""jit(vmap(fn)): members run in chunks, and each equals its solo run."""

import re
import threading
import time

import pytest
import torch
from daily import proof
from torch import nn

import torchpure as tp
from torchpure.errors import CheckError
from torchpure.jit import _vmapped, _vmapped_chunks
from torchpure.jit._trace import trace
from torchpure.jit.passes._peak_memory import peak_memory
from torchpure.testing import assert_trees_close

D = torch.float64
X = torch.linspace(0, 6, 20, dtype=D)[:, None]


def network(width=5):
    torch.manual_seed(0)
    return tp.functional(nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1)).to(D))


def train_of(net, steps=20):
    def train(key, learning_rate):
        params, _ = net.init(key)
        opt = tp.optim.adam(learning_rate)
        gradient = tp.value_and_grad(lambda p: nn.functional.mse_loss(net(p, X), torch.sin(X)))

        def body(carry, _):
            value, grads = gradient(carry[0])
            return opt.step(grads, carry[1], carry[0]), value

        (params, _), losses = tp.scan(body, (params, opt.init(params)), None, length=steps)
        return params, losses

    return train


@pytest.mark.parametrize("count", [3, proof(21), 150])
def test_each_member_equals_its_solo_run(count):
    train = train_of(network())
    keys, learning_rates = tp.random.split(tp.random.key(1), count), torch.logspace(-3, -1.5, count, dtype=D)
    program = tp.jit(tp.vmap(train))
    for _ in range(2):  # the first call measures, the second uses the schedule
        params, losses = program(keys, learning_rates)
        for i in {0, count // 2, count - 1}:
            alone, curve = train(keys[i], learning_rates[i])
            assert_trees_close({n: leaf[i] for n, leaf in params.items()}, alone, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(losses[i], curve, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("width", _vmapped.CHUNK_WIDTHS)
def test_every_width_of_chunks_gives_the_same(width, monkeypatch):
    monkeypatch.setattr(_vmapped, "CHUNK_WIDTHS", (width,))
    fn = lambda x, y, k: {"a": torch.tanh(x @ y).sum() * k, "b": (x * 2, k)}  # noqa: E731
    mapped = tp.vmap(fn, in_dims=(0, 1, None), out_dims={"a": 0, "b": (1, None)})
    x, y, k = torch.randn(70, 3, 4, dtype=D), torch.randn(4, 70, dtype=D), torch.tensor(2.0, dtype=D)
    assert_trees_close(tp.jit(mapped)(x, y, k), mapped(x, y, k), rtol=1e-12, atol=1e-12)


def test_threads_share_the_chunks():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        x = torch.randn(300, 6, dtype=D)
        program = tp.jit(tp.vmap(lambda x: torch.sin(x).cumsum(0)))
        for _ in range(2):
            torch.testing.assert_close(program(x), torch.sin(x).cumsum(1))
    finally:
        torch.set_num_threads(before)


def test_the_nan_of_one_member_never_touches_another():
    train = train_of(network())
    keys, learning_rates = tp.random.split(tp.random.key(1), 80), torch.full((80,), 1e-2, dtype=D)
    program = tp.jit(tp.vmap(train))
    program(keys, learning_rates)  # the first call measures, with a program for each width
    clean = program(keys, learning_rates)[1]
    learning_rates[[3, 70]] = float("nan")
    spoiled = program(keys, learning_rates)[1]
    others = [i for i in range(80) if i not in {3, 70}]
    assert spoiled[[3, 70], -1].isnan().all()
    assert torch.equal(spoiled[others], clean[others])


def test_errors_are_those_of_vmap():
    with pytest.raises(tp.errors.TransformError, match="vmap: .* mapped dimensions differ in size"):
        tp.jit(tp.vmap(lambda a, b: a + b))(torch.ones(20), torch.ones(21))
    with pytest.raises(tp.errors.TransformError, match="cannot be mapped over dimension 0"):
        tp.jit(tp.vmap(lambda a, b: a + b))(torch.ones(20), 2.0)


def test_under_transforms_it_is_the_mapped_function():
    x = torch.randn(20, 3, dtype=D)
    program = tp.jit(tp.vmap(lambda x: torch.sin(x).sum()))
    torch.testing.assert_close(tp.grad(lambda x: program(x).sum())(x), torch.cos(x))
    leaf = x.clone().requires_grad_()
    program(leaf).sum().backward()
    torch.testing.assert_close(leaf.grad, torch.cos(x))


def test_a_member_without_a_factorization_is_nan_alone():
    def steps(a):
        return tp.scan(lambda c, _: (torch.linalg.cholesky(c), None), a, None, length=2)[0]

    spoiled = torch.eye(2, dtype=torch.float64).repeat(200, 1, 1)
    wanted = spoiled.clone()
    spoiled[150, 0, 1] = spoiled[150, 1, 0] = 2
    wanted[150] = float("nan")
    torch.testing.assert_close(tp.jit(tp.vmap(steps))(spoiled), wanted, equal_nan=True)


def test_an_error_of_linear_algebra_names_the_member():
    def steps(a):  # the rules of failing members leave this norm to torch
        return tp.scan(lambda c, _: (c / torch.linalg.norm(c, "nuc"), None), a, None, length=2)[0]

    spoiled = torch.eye(2, dtype=torch.float64).repeat(200, 1, 1)
    spoiled[150, 0, 1] = float("nan")
    with pytest.raises(torch.linalg.LinAlgError) as caught:
        tp.jit(tp.vmap(steps))(spoiled)
    text = str(caught.value)
    alone = re.search(r"\(member (\d+) of vmap\)", text)
    if alone:
        assert int(alone[1]) == 150
    else:
        element, first, last = map(
            int, re.search(r"Batch element (\d+).*members (\d+) to (\d+) of vmap", text).groups()
        )
        assert first + element == 150 <= last


class Recorded:
    """Uncompiled programs that need so many bytes per member, and record how many members each call has."""

    def __init__(self, fn, needed):
        self._fn, self._needed, self.sizes = fn, needed, []

    def peak_memory(self, args, kwargs):
        return self._needed(args[0])

    def __call__(self, args, kwargs):
        self.sizes.append(args[0].shape[0])
        return self._fn(*args, **kwargs)


CHUNKS = {  # limit in bytes, for 50 members of 100 bytes -> sizes of the chunks
    5000: [50],
    4999: [25, 25],
    1700: [17, 17, 17],
    1000: [10] * 5,
    199: [],
}


@pytest.mark.parametrize("limit", CHUNKS)
def test_members_of_other_programs_run_in_chunks_that_fit_in_memory(limit, monkeypatch):
    monkeypatch.setattr(_vmapped_chunks, "CHUNK_MEMORY", limit)
    mapped = tp.vmap(lambda x: (torch.sin(x), x.sum()))
    whole, one = Recorded(mapped, lambda x: 100 * len(x)), Recorded(mapped.mapping.fn, lambda x: 100)
    members, x = _vmapped.ChunkedVmap(mapped.mapping, whole, one), torch.randn(50, 3, dtype=D)
    for _ in range(2):
        assert_trees_close(members((x,), {}), mapped(x))
        assert whole.sizes == CHUNKS[limit]
        assert len(one.sizes) == (0 if whole.sizes else 50)
        whole.sizes.clear(), one.sizes.clear()


def test_a_program_of_complex_numbers_runs_in_chunks(monkeypatch):
    schedules, run_in_chunks = [], _vmapped.run_in_chunks
    monkeypatch.setattr(_vmapped_chunks, "CHUNK_MEMORY", 1 << 16)
    monkeypatch.setattr(_vmapped, "run_in_chunks", lambda *call: schedules.append(call[-1]) or run_in_chunks(*call))
    mapped = tp.vmap(lambda x: torch.fft.ifft(torch.fft.fft(x) * 2).real)
    x = torch.randn(100, 64, dtype=D)
    assert_trees_close(tp.jit(mapped)(x), mapped(x), rtol=1e-12, atol=1e-13)
    assert len(schedules) == 1 and 1 < schedules[0].width < 100 and not schedules[0].parallel


SHARES = [{"devices": ["cpu"] * count, "chunk_size": width} for count in (1, 2, 5) for width in (None, 4, 16)]


@pytest.mark.parametrize("options", [{"chunk_size": 1}, {"chunk_size": 4}, {"chunk_size": 99}, *SHARES], ids=str)
def test_law_chunks_and_groups_of_cores_change_nothing(options):
    fn = lambda x: torch.sin(x).softmax(0) * x.sum()  # noqa: E731
    program, x = tp.jit(tp.vmap(fn, **options)), torch.randn(37, 6, dtype=D)
    for count in (37, 1, 2, 37):
        assert_trees_close(program(x[:count]), tp.vmap(fn)(x[:count]), rtol=1e-14, atol=1e-14)


def test_the_bits_do_not_depend_on_the_groups_of_cores():
    train = train_of(network())
    keys, learning_rates = tp.random.split(tp.random.key(1), 70), torch.logspace(-3, -1.5, 70, dtype=D)
    one = tp.jit(tp.vmap(train, chunk_size=16))(keys, learning_rates)
    two = tp.jit(tp.vmap(train, chunk_size=16, devices=["cpu", "cpu"]))(keys, learning_rates)
    assert all(map(torch.equal, tp.tree.leaves(one), tp.tree.leaves(two)))


def test_groups_of_cores_share_one_program(monkeypatch):
    traced, threads, run = [], set(), _vmapped_chunks.MappedCall.run
    monkeypatch.setattr(
        _vmapped_chunks.MappedCall, "run", lambda *a: threads.add(threading.get_ident()) or time.sleep(0.02) or run(*a)
    )
    program = tp.jit(tp.vmap(lambda x: traced.append(1) or x.sin(), devices=["cpu"] * 3, chunk_size=8))
    for _ in range(2):
        program(torch.randn(70, 3))
    assert len(traced) == 1 and len(threads) >= 3


@pytest.mark.parametrize("options", [{"chunk_size": 4}, {"devices": ["cpu"] * 3}], ids=str)
def test_errors_in_chunks_and_on_devices_name_the_member(options):
    def root(x):
        tp.check(x > 0, "negative")
        return x.sqrt()

    x = torch.ones(20)
    x[13] = -1
    with pytest.raises(CheckError, match="negative: member 13 of vmap"):
        tp.jit(tp.vmap(root, **options))(x)


@pytest.mark.parametrize("options", [{"chunk_size": 4}, {"devices": ["cpu"] * 3}], ids=str)
def test_chunks_and_devices_can_be_differentiated(options):
    x = torch.randn(7, dtype=D, requires_grad=True)
    tp.jit(tp.vmap(torch.sin, **options))(x).sum().backward()
    torch.testing.assert_close(x.grad, x.detach().cos())


@pytest.mark.parametrize("limit", [199, 1000, 4999])
def test_a_fixed_width_is_smaller_where_memory_ends(limit, monkeypatch):
    monkeypatch.setattr(_vmapped_chunks, "CHUNK_MEMORY", limit)
    monkeypatch.setattr(_vmapped, "CHUNK_MEMORY", limit)
    mapped = tp.vmap(lambda x: x.sin(), chunk_size=20)
    whole, one = Recorded(mapped, lambda x: 100 * len(x)), Recorded(mapped.mapping.fn, lambda x: 100)
    _vmapped.ChunkedVmap(mapped.mapping, whole, one)((torch.randn(60, 3, dtype=D),), {})
    assert whole.sizes == {199: [], 1000: [10] * 6, 4999: [20] * 3}[limit]
    assert len(one.sizes) == (60 if limit == 199 else 0)


def _loop(x):
    return tp.scan(lambda c, _: (torch.sin(c.cos().exp()), c.sum()), x, None, length=3)


PEAKS = {  # function of 100 numbers of 8 bytes, peak of allocated bytes
    "one after another": (lambda x: x.sin().cos().exp(), 1600),
    "all to the end": (lambda x: (x.sin(), x.cos(), x.exp()), 2400),
    "views": (lambda x: x.sin().reshape(10, 10).T[2:], 800),
    "a sum": (lambda x: (x.sin() * x.cos()).sum(), 2400),
    "a loop": (_loop, 800 + 3 * 8 + 1600),  # its results, and two temporaries in an iteration
    "nothing": (lambda x: x, 0),
}


@pytest.mark.parametrize("name", PEAKS)
def test_peak_counts_what_is_alive_at_once(name):
    f, wanted = PEAKS[name]
    module = trace(f, lambda values: (tuple(values), {}), (torch.ones(100, dtype=D),)).module
    assert peak_memory(module) == wanted
