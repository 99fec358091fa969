"""The cache of inductor's output code: found again, only by the same program, with the same results."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torchpure as tp
from torchpure.jit._trace import trace
from torchpure.jit.backends import _choose, _inductor, _inductor_cache

pytestmark = pytest.mark.usefixtures("folder")
A, B = torch.linspace(-1, 1, 12).reshape(3, 4), torch.linspace(0, 2, 12).reshape(4, 3)
OPTIONS = {"cpp.cxx": (None, "g++")}


@pytest.fixture
def inductor_runs(monkeypatch):
    """The programs that inductor compiles."""
    seen = []
    made = _inductor._run_inductor

    def counted(module, *args):
        seen.append(module)
        return made(module, *args)

    monkeypatch.setattr(_inductor, "_run_inductor", counted)
    return seen


def program(fn, *tensors):
    return trace(fn, lambda values: (tuple(values), {}), tensors).module


def compiled(fn, *tensors):
    return _inductor.compile_program(program(fn, *tensors), tensors, _choose.compile_program)


def results(a, b):
    """Return new memory, a view of new memory, an input, a view of an input, and one result twice."""
    c = torch.sin(a) @ b
    return c, (c * 2).t()[1:], a, b[1], c.sum(), c


def key(fn=results, tensors=(A, B), options=OPTIONS):
    return _inductor_cache.program_key(program(fn, *tensors), tensors, options)


@pytest.mark.compile
def test_a_program_is_written_once_and_computes_the_same(inductor_runs, folder):
    first, second = (compiled(results, A, B) for _ in range(2))
    assert len(inductor_runs) == 1 and len(list(folder.glob("*.py"))) == 1
    assert second.source == first.source and "cpp_fused" in first.source
    for one, two, wanted in zip(first(A, B), second(A, B), results(A, B), strict=True):
        torch.testing.assert_close(one, wanted)
        assert torch.equal(one, two) and one.stride() == two.stride() and not two.requires_grad
    assert second(A, B)[2] is A and second(A, B)[3].untyped_storage().data_ptr() == B.untyped_storage().data_ptr()


@pytest.mark.compile
def test_another_process_loads_what_one_has_written(folder):
    code = (
        "import sys, torch, torchpure as tp\n"
        "from torchpure.jit.backends import _inductor\n"
        "if sys.argv[1:] == ['nothing is written']: _inductor._run_inductor = None\n"
        "step = tp.jit(lambda w, x: (w - 1e-3 * tp.grad(lambda w: (x @ w).tanh().mean())(w), x.sum()), donate=0)\n"
        "w, x = torch.linspace(-1, 1, 600 * 600).reshape(600, 600), torch.linspace(-1, 1, 6000).reshape(10, 600)\n"
        "print(float(step(w, x)[0].double().sum()))"
    )
    command = [sys.executable, "-c", code]
    first, second = (
        subprocess.run([*command, *more], capture_output=True, text=True, check=True, env=os.environ).stdout
        for more in ([], ["nothing is written"])
    )
    assert first == second


def test_everything_that_a_program_is_made_of_is_in_its_key(monkeypatch):
    held = [key(), key(lambda a, b: a @ b), key(lambda a, b: a @ b * 2), key(lambda a, b: a @ b * 2.5)]
    held += [key(tensors=(A.double(), B.double())), key(tensors=(A[:2], B)), key(tensors=(A.t().contiguous().t(), B))]
    held += [key(options={**OPTIONS, "fx_graph_cache": False})]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    held += [key()]
    monkeypatch.undo()
    with torch._inductor.config.patch(epilogue_fusion=False):
        held += [key()]
    assert None not in held and len(set(held)) == len(held) and key() == held[0]


def test_programs_with_constants_loops_or_other_devices_have_no_key():
    constant = torch.arange(12.0).reshape(3, 4)
    assert key(lambda a, b: (a + constant) @ b) is None  # before it is made an input
    loop = tp.scan
    assert key(lambda a, b: loop(lambda c, _: (c @ b @ a, None), a, None, 3)[0]) is None
    meta = (A.to("meta"), B.to("meta"))
    assert _inductor_cache.program_key(program(results, *meta), meta, OPTIONS) is None


@pytest.mark.compile
def test_a_damaged_file_is_written_again(inductor_runs, folder):
    compiled(results, A, B)
    (file,) = folder.glob("*.py")
    file.write_text(file.read_text().replace("return (", "return (None, "))
    assert torch.equal(compiled(results, A, B)(A, B)[0], compiled(results, A, B)(A, B)[0])
    assert len(inductor_runs) == 2 and "return (None, " not in Path(*folder.glob("*.py")).read_text()
