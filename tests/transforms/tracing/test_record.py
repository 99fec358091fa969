"""Operations that are recorded in one step, against torch's tracer."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from torchpure._torch import make_fx
from torchpure.transforms.tracing import trace

A, B = torch.arange(12.0).reshape(3, 4), torch.arange(4.0)
CONSTANT = torch.arange(3.0)[:, None]
IMAGE, KERNEL = torch.ones(2, 3, 6, 5), torch.ones(4, 3, 3, 3)
FUNCTIONS = {
    "elementwise": lambda a, b: torch.sin(a) * b - 2 / (1 + a**2),
    "several orders of dimensions": lambda a, b: a.t().exp() + torch.stack([b, b, b], 1) + b[:, None],
    "order of the first argument": lambda a, b: (a.t() + a.t().contiguous(), a.t().contiguous() + a.t()),
    "several dtypes": lambda a, b: (a.long() + b, a.double() * b, a > b, torch.where(a > b, a, 1), a.int() / 2),
    "numbers of dimension 0": lambda a, b: (a.sum() * b.long(), a.long() * b.sum(), a.sum().double() + a),
    "products": lambda a, b: (a @ a.t(), torch.addmm(b, a, torch.outer(b, b)), (a[None] @ torch.outer(b, b)[None])),
    "reductions": lambda a, b: (a.sum(), a.t().mean(0), a.amax(1, keepdim=True), a.long().sum(0), a.max(1), a.argmin()),
    "views": lambda a, b: (a[1:, ::2], a.t().unsqueeze(1), a.view(2, 6).select(1, -1), b.expand(2, 4), a.diagonal()),
    "joins": lambda a, b: (torch.cat([a, a[:1]]), torch.stack([a.t(), a.t()]), torch.cat([b, b.double()])),
    "copies": lambda a, b: (a.t().clone(), a.t().contiguous(), torch.zeros_like(a.t()), a[:, 1:].t().double(), a.half()),
    "new tensors": lambda a, b: (torch.zeros(2, 3), torch.arange(1, 9, 2), torch.arange(0.0, 1.0, 0.3), torch.eye(2, 3), torch.arange(4) + b, torch.full((2,), 3), a.new_ones(5), torch.eye(2)),
    "constants": lambda a, b: a * CONSTANT + (CONSTANT + a).sum(),
    "writes": lambda a, b: (a.clone().add_(b).mul_(2).clamp_(min=0), b.clone().copy_(a[0])),
    "layers": lambda a, b: (F.layer_norm(a, (4,), b), F.softmax(a, 1), F.log_softmax(a.t(), 0), F.gelu(a)),
    "images": lambda a, b: (F.conv2d(IMAGE + b.sum(), KERNEL), F.max_pool2d(IMAGE + b.sum(), 2), F.pad(a, (1, 2))),
    "indices": lambda a, b: (a.gather(1, a.long().clamp(0, 3)), F.embedding(b.long(), a.t()), a.index_select(1, b.long())),
    "embedding": lambda a, b: torch.func.grad(lambda w: F.embedding(b.long()[:, None], w).sin().sum())(a.t()),
    "gradient": lambda a, b: torch.func.grad(lambda x: (torch.tanh(x @ a.t()) ** 2).mean())(b),
    "gradient of members": lambda a, b: torch.func.vmap(torch.func.grad(lambda x: torch.sigmoid(x * 0.5).prod()))(a),
}  # fmt: skip


def _by_torch(function):
    return make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(A, B)


def described(program):
    program.graph.eliminate_dead_code()
    return [
        (
            str(node.target).replace("_.", "."),
            [(one.shape, one.stride(), one.dtype, one.storage_offset()) for one in tensors_of(node)],
        )
        for node in program.graph.nodes
        if node.op == "call_function"
    ]


def tensors_of(node):
    found = node.meta["val"]
    return [one for one in (found if isinstance(found, list | tuple) else [found]) if isinstance(one, torch.Tensor)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_law_the_program_is_the_one_that_torchs_modes_record(name):
    ours, torchs = trace(FUNCTIONS[name], [A, B]), _by_torch(FUNCTIONS[name])
    assert described(ours) == described(torchs)
    results = zip(flat(ours(A, B)), flat(FUNCTIONS[name](A, B)), strict=True)
    assert all(torch.equal(one, two) and one.dtype == two.dtype for one, two in results)


def flat(values):
    return [one for value in values for one in flat(value)] if isinstance(values, list | tuple) else [values]


def test_the_shape_of_a_traced_tensor_is_changed_by_a_new_tensor():
    program = trace(lambda x: (x.unsqueeze(0).squeeze_(0).t_() + 1).unsqueeze_(0), [A])
    names = [name for name, _ in described(program)]
    assert names == ["aten.unsqueeze.default", "aten.squeeze.dim", "aten.t.default", "aten.add.Tensor",
                     "aten.unsqueeze.default"]  # fmt: skip
    assert torch.equal(program(A), (A.t() + 1)[None])


def test_writes_to_memory_that_has_views_stay():
    def function(x):
        own, viewed = x + 1, x * 2
        view = viewed[0]
        own.add_(1)
        viewed.add_(own)
        return own, view, own[0].mul_(3)

    program = trace(function, [A])
    names = [str(node.target).split(".")[1] for node in program.graph.nodes if node.op == "call_function"]
    assert names == ["add", "mul", "select", "add", "add_", "select", "mul_"]
    assert all(map(torch.equal, program(A), function(A)))


def test_wrong_shapes_are_torchs_errors():
    for wrong in (lambda a, b: a + b[:3], lambda a, b: a @ a, lambda a, b: torch.cat([a, b])):
        with pytest.raises(RuntimeError) as ours:
            trace(wrong, [A, B])
        with pytest.raises(RuntimeError) as torchs:
            make_fx(wrong, tracing_mode="fake")(A, B)
        assert str(ours.value) == str(torchs.value)


def test_tracing_a_network_does_not_import_torch_compile():
    code = """
import sys, torch, torchpure as tp
def loss(w, x):
    return ((torch.tanh(x @ w) * torch.arange(2.0)).mean(1) ** 2).sum()
tp.make_graph(tp.value_and_grad(loss))(torch.ones(3, 2), torch.ones(4, 3))
sys.exit(any(name in sys.modules for name in ("torch._dynamo", "torch._inductor", "sympy")))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
