"""Programs that people compile: each equals eager, and compiles natively."""

import pytest
import torch
from cases_programs import PROGRAMS
from daily import without

import torchpure as tp
from torchpure.jit import backends
from torchpure.jit.backends import _choose

pytestmark = pytest.mark.compile


@pytest.fixture
def reasons(monkeypatch):
    """List the reasons why other backends compile, as `lower(...).backend` names them."""
    found: list[str] = []
    compile_without_native = backends.compile_without_native

    def noted(module, tensors, reason):
        found.append(reason)
        return compile_without_native(module, tensors, reason)

    for place in (backends, _choose):
        monkeypatch.setattr(place, "compile_without_native", noted)
    return found


LARGE = [
    "Swin",
    "BERT",
    "GPT-2 in float32",
    "GRU, both directions",
    "ConvNeXt",
    "MobileNet",
    "ViT",
    "LSTM",
]  # others resemble them


@pytest.mark.parametrize("name", without(LARGE, PROGRAMS))
def test_a_program_equals_eager_and_is_native(name, reasons):
    program = PROGRAMS[name]()
    expected = program.fn(*program.args)
    found = tp.jit(program.fn, donate=program.donate)(*program.args)
    _assert_close(found, expected, program.tolerance)
    assert [program.not_native in reason for reason in reasons] == [True] * bool(program.not_native)


def _assert_close(found, expected, tolerance):
    """Compare trees. Where the terms of a gradient cancel, its error is relative to the terms, not to their sum."""
    leaves = tp.tree.leaves(expected)
    sizes = [leaf.abs().max().item() if leaf.is_floating_point() else 0.0 for leaf in leaves]
    for one, two, size in zip(tp.tree.leaves(found), leaves, sizes, strict=True):
        least = 1e-4 * max(sizes) * two.is_floating_point()
        torch.testing.assert_close(one, two, rtol=0, atol=tolerance * max(size, least), check_stride=False)
