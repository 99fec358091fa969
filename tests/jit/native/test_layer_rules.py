"""Decompositions of layers, against torch's."""

import inspect
import subprocess
import sys

import pytest
import torch

from torchpure._torch import core_aten_decompositions, get_decompositions, make_fx
from torchpure.jit.native.frontend._decompose import _MORE_OPERATIONS
from torchpure.jit.native.frontend._layer_rules import layer_rules

aten = torch.ops.aten
TORCHS = {**core_aten_decompositions(), **get_decompositions(_MORE_OPERATIONS)}
OURS = layer_rules(TORCHS)
X = torch.linspace(-2, 2, 120).reshape(2, 4, 3, 5)
ROW, PLANE = torch.linspace(0.5, 1, 4), torch.linspace(0.5, 1, 15).reshape(3, 5)
SCORES, CLASSES = torch.linspace(-1, 0, 12).reshape(3, 4), torch.tensor([1, -100, 3])
CASES = {
    aten._softmax.default: [(X, 1, False), (X[..., 0], -1, False)],
    aten._log_softmax.default: [(X, 0, False), (X.transpose(1, 2), -1, False)],
    aten._softmax_backward_data.default: [(X, X.exp(), 1, torch.float32)],
    aten._log_softmax_backward_data.default: [(X, X, 1, torch.float32)],
    aten.native_layer_norm.default: [(X, [3, 5], PLANE, PLANE, 1e-5), (X, [5], None, None, 1e-5), (X, [3, 5], PLANE, None, 1e-5)],
    aten.native_group_norm.default: [
        (X, ROW, ROW, 2, 4, 15, 2, 1e-5), (X, None, None, 2, 4, 15, 2, 1e-5), (X, ROW, None, 2, 4, 15, 2, 1e-5),
    ],
    aten.nll_loss_forward.default: [
        *[(SCORES, CLASSES, weight, reduction, -100) for weight in (None, ROW) for reduction in (0, 1, 2)],
        (SCORES[0], CLASSES[0], None, 1, -100),
    ],
    aten.tanh_backward.default: [(X, X)],
    aten.sigmoid_backward.default: [(X, X)],
    aten.threshold_backward.default: [(X, X, 0.5)],
    aten.gelu.default: [(X,), (X, {"approximate": "tanh"})],
    aten.gelu_backward.default: [(X, X), (X, X, {"approximate": "tanh"})],
    aten.silu_backward.default: [(X, X)],
    aten.elu_backward.default: [(X, 1.0, 1.0, 1.0, False, X), (X, 1.0, 1.0, 1.0, True, X)],
    aten.leaky_relu_backward.default: [(X, X, 0.1, False)],
    aten.softplus_backward.default: [(X, X, 1.0, 20.0)],
    aten.hardtanh_backward.default: [(X, X, -1.0, 1.0)],
    aten.mse_loss.default: [(X, X + 1, reduction) for reduction in (0, 1, 2)],
    aten.mse_loss_backward.default: [(X, X, X + 1, 0), (X.sum(), X, X + 1, 1)],
}  # fmt: skip


VIEWS = {
    f"aten.{name}"
    for name in ("view.default", "squeeze.dims", "squeeze.dim", "unsqueeze.default", "as_strided.default")
}


def _operations(rule, args):
    """List what a rule records, and what it computes."""
    *args, options = (*args, {}) if not isinstance(args[-1], dict) else args
    program = make_fx(lambda x: tuple(_several(rule(x, *args[1:], **options))))(args[0])
    program.graph.eliminate_dead_code()
    steps = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    return {step for step in steps if step.startswith("aten.")} - VIEWS, program(args[0])


def _several(found):
    return list(found) if isinstance(found, tuple | list) else [found]


@pytest.mark.parametrize("op", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_law_each_rule_does_what_torchs_does(op, dtype):
    for args in CASES[op]:
        given = [a.to(dtype) if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args]
        given = [dtype if a is torch.float32 else a for a in given]
        (ours, found), (torchs, wanted) = _operations(OURS[op], given), _operations(TORCHS[op], given)
        assert all(map(torch.equal, found, wanted))
        assert ours == torchs


def test_every_rule_has_a_case():
    assert set(CASES) == set(OURS)
    assert all(len(inspect.signature(rule).parameters) == 3 for rule in OURS.values())  # x, args, options


@pytest.mark.compile
def test_a_classifier_is_compiled_without_sympy_and_torch_compile():
    code = """
import sys, torch, torchpure as tp
from torch import nn
net = tp.functional(nn.Sequential(
    nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(1), nn.Linear(36, 3)))
loss = lambda params, x, y: nn.functional.cross_entropy(net(params, x), y)
tp.jit(tp.value_and_grad(loss))(net.params, torch.ones(5, 1, 8, 8), torch.arange(5) % 3)
sys.exit(any(name in sys.modules for name in ("torch._dynamo", "torch._inductor", "sympy")))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0
