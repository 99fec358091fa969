"""A compiler that fails: another backend runs the program, and a warning says so."""

import pytest
import torch

import torchpure as tp
from torchpure.jit.backends import _inductor
from torchpure.jit.native import _compile

X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)


def _fails(*args, **kwargs):
    raise KeyError("a view that does not exist\nand more")


@pytest.mark.compile
def test_a_fault_of_the_native_generator_ends_in_another_backend(monkeypatch):
    monkeypatch.setattr(_compile, "generate_cpp", _fails)
    with pytest.warns(
        UserWarning, match="the native generator failed with KeyError: 'a view that .*the program is right"
    ):
        found = tp.jit(lambda x: x.sin() + 1)(X)
    assert torch.allclose(found, X.sin() + 1)


@pytest.mark.compile
def test_cpp_that_does_not_compile_ends_in_another_backend(monkeypatch):
    made = _compile.generate_cpp
    monkeypatch.setattr(_compile, "generate_cpp", lambda *args: made(*args)._replace(source="int run( {"))
    f = tp.jit(lambda x: x.cos() + 1)
    with pytest.warns(UserWarning, match="jit: the C.. compiler failed with CompilerError"):
        assert torch.allclose(f(X), X.cos() + 1)
    with pytest.warns(UserWarning):
        assert f.lower(X).backend.startswith("inductor (not native: the C++ compiler failed")


@pytest.mark.compile
def test_a_fault_of_inductor_ends_in_the_operations_of_torch(monkeypatch):
    def fn(x):
        return (x.to(torch.bfloat16) + 1).sum(0)

    monkeypatch.setattr(_inductor, "compile_program", _fails)
    f = tp.jit(fn)
    with pytest.warns(UserWarning, match="jit: inductor failed with KeyError") as seen:
        assert torch.equal(f(X), fn(X))
    assert torch.equal(f(X), fn(X)) and len(seen) == 1
    with pytest.warns(UserWarning):
        backend = f.lower(X).backend
    assert backend.startswith("interpreted (not native: tensors of torch.bfloat16; inductor failed with KeyError: ")


@pytest.mark.compile
def test_other_parts_of_a_loop_stay_compiled_where_one_part_fails(monkeypatch):
    monkeypatch.setattr(_inductor, "compile_program", _fails)

    def fn(x):
        return tp.scan(lambda c, row: ((c + row).to(torch.bfloat16).cos().to(row.dtype), c.sin() * row), x[0], x)

    with pytest.warns(UserWarning, match="inductor failed"):
        found = tp.jit(fn)(X)
    for one, two in zip(tp.tree.leaves(found), tp.tree.leaves(fn(X)), strict=True):
        assert torch.allclose(one, two)
