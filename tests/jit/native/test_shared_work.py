"""Kernels that several threads share: the same bits, however the iterations are divided."""

import ctypes
from itertools import pairwise

import pytest
import torch
from native_programs import PROGRAMS, native, rows

from torchpure.jit.native import _compile, on_one_thread
from torchpure.jit.native.codegen import _parallel
from torchpure.jit.native.optimize import _split_reductions

_SHARE = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
_PARALLEL = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, _SHARE, ctypes.c_void_p)


@pytest.fixture
def pieces(monkeypatch):
    """Share every kernel, in pieces of odd sizes that run from last to first. The list holds the sizes of the pieces."""
    sizes: list[int] = []

    def run(begin, end, grain, share, given):
        bounds = [begin, *sorted({begin + (end - begin) // 3, begin + (end - begin) // 2}), end]
        for low, high in reversed([*pairwise(bounds)]):
            if low < high:
                sizes.append(high - low)
                share(low, high, given)
        return 0

    kept = _PARALLEL(run)
    monkeypatch.setattr(_compile, "parallel_for_pointer", lambda: ctypes.cast(kept, ctypes.c_void_p).value)
    monkeypatch.setattr(_parallel, "MIN_SHARED_COST", 1)
    monkeypatch.setattr(_split_reductions, "MIN_SHARED_COST", 1)
    return sizes


def _several(names):
    """Return one function that runs several programs of the table, and its tensors."""
    parts = [PROGRAMS[name] for name in names]

    def fn(*tensors):
        rest, found = iter(tensors), []
        for part, *own in parts:
            out = part(*[next(rest) for _ in own])
            found.extend(out if isinstance(out, tuple) else (out,))
        return tuple(found)

    return fn, [tensor for _, *own in parts for tensor in own]


def _same_bits(one, two):
    return torch.equal(one.nan_to_num(7), two.nan_to_num(7)) and torch.equal(one.isnan(), two.isnan())


@pytest.mark.compile
def test_a_program_computes_the_same_bits_on_any_number_of_threads(pieces):
    fn, tensors = _several(PROGRAMS)
    program = native(fn, *tensors)
    with on_one_thread():
        alone = program(*tensors)
    assert not pieces
    shared = program(*tensors)
    assert len(pieces) > 100 and all(map(_same_bits, alone, shared))
    for found, wanted in zip(shared, fn(*tensors), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-13, equal_nan=True, check_stride=False)


def _long(x, y, n):
    centred = x - x.mean()
    return (
        centred,
        (centred * centred).sum(),
        x.amax(),
        y.sum((0, 2)),
        y.mean(),
        (y > 9).any(),
        n.sum(),
        y.prod(1).min(),
    )


@pytest.mark.compile
def test_long_reductions_are_split_into_parts(pieces):
    tensors = rows(10_007), rows(3, 5, 300), torch.arange(1_000)
    program = native(_long, *tensors)
    with on_one_thread():
        alone = program(*tensors)
    shared = program(*tensors)
    assert 32 // 2 in pieces  # of 32 parts, one piece takes the second half
    assert all(map(torch.equal, alone, shared))
    for found, wanted in zip(shared, _long(*tensors), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.compile
def test_an_index_out_of_range_is_seen_by_every_thread(pieces):
    program = native(lambda x, n: x[n] * 2, rows(50), torch.arange(40))
    assert torch.equal(program(rows(50), torch.arange(40))[0], rows(50)[:40] * 2)
    for place in (0, 39):
        with pytest.raises(IndexError, match="an index is out of range"):
            program(rows(50), torch.arange(40).index_fill(0, torch.tensor(place), 50))


@pytest.mark.compile
@pytest.mark.parametrize("threads", [1, 3])
def test_a_large_program_runs_on_the_threads_of_torch(threads):
    x, w = rows(300, 700, dtype=torch.float32), rows(700, 200, seed=1, dtype=torch.float32)

    def fn(x, w):
        return torch.tanh(x @ w).sum(0), x.exp().sum(), (x * x).mean(1)

    program, before = native(fn, x, w), torch.get_num_threads()
    assert "op_share(parallel_" in program.source
    torch.set_num_threads(threads)
    try:
        found = program(x, w)
    finally:
        torch.set_num_threads(before)
    for one, two in zip(found, fn(x, w), strict=True):
        torch.testing.assert_close(one, two, rtol=2e-5, atol=1e-4)
