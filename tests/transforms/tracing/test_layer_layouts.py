"""Layouts of network layers by formula, against what torch's kernels return."""

import itertools
import subprocess
import sys

import pytest
import torch

from torchpure.transforms.tracing._layer_layouts import LAYERS, layer_layout

aten = torch.ops.aten
ALL = [True, True, True]


def _image(*shape, dtype=torch.float32):
    return torch.ones(*shape, dtype=dtype)


def _convolutions():
    """Convolutions in one to three dimensions, of several strides, and their transposes."""
    for dims, step, pad, spread, transposed, groups in itertools.product(
        (1, 2, 3), (1, 2), (0, 1), (1, 2), (False, True), (1, 2)
    ):
        x, kernel = _image(2, 4, *[9, 8, 7][:dims]), [3, 2, 3][:dims]
        weight = _image(*((4, 6 // groups) if transposed else (6, 4 // groups)), *kernel)
        more = [step - 1 if transposed else 0] * dims
        rest = ([step] * dims, [pad] * dims, [spread] * dims, transposed, more, groups)
        yield x, weight, rest


def _cases():
    x, row = _image(3, 5, 4, 6), _image(5)
    for image, weight, rest in _convolutions():
        outputs = 6
        yield aten.convolution.default, (image, weight, _image(outputs), *rest)
        out = aten.convolution.default(image, weight, None, *rest)
        yield aten.convolution_backward.default, (torch.ones_like(out), image, weight, [outputs], *rest, ALL)
        yield (
            aten.convolution_backward.default,
            (torch.ones_like(out), image, weight, None, *rest, [False, True, False]),
        )
    one = _image(4, 3, 1, 1)
    yield aten.convolution.default, (_image(2, 3, 5, 5), one, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    for given in (x, x[..., 0], x[..., 0, 0].contiguous(), x.double()):
        r = row.to(given.dtype)
        given = given.contiguous()
        yield aten.native_batch_norm.default, (given, r, r, r.clone(), r.clone(), True, 0.1, 1e-5)
        yield aten.native_batch_norm.default, (given, None, None, r.clone(), r.clone(), False, 0.1, 1e-5)
        yield aten.native_batch_norm.default, (given, None, None, None, None, True, 0.1, 1e-5)
        saved = aten.native_batch_norm.default(given, r, r, None, None, True, 0.1, 1e-5)[1:]
        yield aten.native_batch_norm_backward.default, (given, given, r, None, None, *saved, True, 1e-5, ALL)
    for pictures in (x, x.to(memory_format=torch.channels_last), x[..., 0].contiguous()):
        sizes = (3, 5, pictures[0, 0].numel(), 1)
        yield aten.native_group_norm.default, (pictures, row, row, *sizes, 1e-5)
        saved = aten.native_group_norm.default(pictures, row, row, *sizes, 1e-5)[1:]
        if pictures.is_contiguous():
            yield aten.native_group_norm_backward.default, (pictures, pictures, *saved, row, *sizes, ALL)
    for sizes in ([6], [4, 6], [3, 5, 4, 6]):
        weight = _image(*sizes)
        yield aten.native_layer_norm.default, (x, sizes, weight, weight, 1e-5)
        yield aten.native_layer_norm.default, (x, sizes, None, None, 1e-5)
        saved = aten.native_layer_norm.default(x, sizes, weight, weight, 1e-5)[1:]
        yield aten.native_layer_norm_backward.default, (x, x, sizes, *saved, weight, weight, ALL)
        yield aten.native_layer_norm_backward.default, (x, x, sizes, *saved, weight, weight, [True, False, False])
    for dim in (-1, 0, 2):
        yield aten._softmax.default, (x, dim, False)
        yield aten._log_softmax.default, (x, dim, False)
        yield aten._softmax_backward_data.default, (x, x, dim, torch.float32)
        yield aten._log_softmax_backward_data.default, (x, x, dim, torch.float32)
    classes, scores = torch.tensor([0, 1, 4]), _image(3, 5)
    for weight, reduction in itertools.product((None, row), (0, 1, 2)):
        yield aten.nll_loss_forward.default, (scores, classes, weight, reduction, -100)
        loss, total = aten.nll_loss_forward.default(scores, classes, weight, reduction, -100)
        yield aten.nll_loss_backward.default, (loss, scores, classes, weight, reduction, -100, total)
    for window in (([2, 2],), ([3, 2], [1, 2]), ([3], [2], [1])):
        yield aten.avg_pool2d.default, (x, *window)
        full = (window[0], window[1] if len(window) > 1 else window[0], window[2] if len(window) > 2 else [0])
        out, indices = aten.max_pool2d_with_indices.default(x, *full, [1, 1], False)
        yield aten.max_pool2d_with_indices.default, (x, *window)
        yield aten.max_pool2d_with_indices.default, (x, *full, [1, 1], False)
        yield aten.max_pool2d_with_indices_backward.default, (out, x, *full, [1, 1], False, indices)
        mean = aten.avg_pool2d.default(x, *full, False, True, None)
        yield aten.avg_pool2d_backward.default, (mean, x, *full, False, True, None)
    for dims, keepdim in (([1], False), ([0, -1], True), (None, False)):
        yield aten.var.correction, (x, dims), {"correction": 1, "keepdim": keepdim}
        yield aten.var_mean.correction, (x, dims), {"correction": 0, "keepdim": keepdim}


def _layouts(found):
    parts = found if isinstance(found, tuple | list) and not hasattr(found, "strides") else [found]
    return [part if part is None else (tuple(part.shape), tuple(_strides(part)), part.dtype) for part in parts]


def _strides(part):
    return part.stride() if isinstance(part, torch.Tensor) else part.strides


def test_law_a_layout_by_formula_is_that_of_torchs_kernel():
    seen = set()
    for func, args, *options in _cases():
        kwargs = options[0] if options else {}
        assert _layouts(layer_layout(func, args, kwargs)) == _layouts(func(*args, **kwargs)), (func, args[3:])
        seen.add(func)
    assert seen == set(LAYERS)


X, W, B = _image(2, 4, 9, 8), _image(6, 4, 3, 3), _image(6)
REST = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)
UNKNOWN = {
    "channels last": (aten.convolution.default, (X.to(memory_format=torch.channels_last), W, B, *REST)),
    "one channel, both layouts": (aten.convolution.default, (X[:, :1].contiguous(), W[:, :1].contiguous(), B, *REST)),
    "other channels": (aten.convolution.default, (X, W[:, :2].contiguous(), B, *REST)),
    "a long bias": (aten.convolution.default, (X, W, _image(7), *REST)),
    "another dtype": (aten.convolution.default, (X, W.double(), B, *REST)),
    "a kernel that is too large": (aten.convolution.default, (X, _image(6, 4, 10, 3), B, *REST)),
    "an empty batch": (aten.convolution.default, (X[:0], W, B, *REST)),
    "another gradient": (aten.convolution_backward.default, (X, X, W, [6], *REST, ALL)),
    "a long row": (aten.native_batch_norm.default, (X, B, B, None, None, True, 0.1, 1e-5)),
    "no statistics": (aten.native_batch_norm.default, (X, None, None, None, None, False, 0.1, 1e-5)),
    "other sizes": (aten.native_layer_norm.default, (X, [9], None, None, 1e-5)),
    "integers": (aten._softmax.default, (X.long(), 0, False)),
    "no such dimension": (aten._softmax.default, (X, 4, False)),
    "pools that round up": (aten.avg_pool2d.default, (X, [2, 2], [2, 2], [0, 0], True)),
    "a window that is too large": (aten.max_pool2d_with_indices.default, (X, [10, 2])),
    "other classes": (aten.nll_loss_forward.default, (_image(3, 5), torch.zeros(2).long(), None, 1, -100)),
    "no rule": (aten.sin.default, (X,)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_law_what_no_formula_knows_is_a_type_error(name):
    with pytest.raises(TypeError):
        layer_layout(*UNKNOWN[name], {})


def test_tracing_layers_of_real_size_does_not_import_torch_compile():
    code = """
import sys, torch, torchpure as tp
from torch import nn
net = tp.functional(nn.Sequential(
    nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 8, 3, 2, 1), nn.GroupNorm(2, 8),
    nn.Flatten(2), nn.LayerNorm(256), nn.TransformerEncoderLayer(256, 4, 512, 0.0, batch_first=True), nn.Flatten(),
))
def loss(params, state, x):
    y, _ = net.apply(params, state, x, train=True)
    return nn.functional.cross_entropy(y, torch.arange(32)) + torch.cat(y.split(8))[:3].var()
tp.make_graph(tp.value_and_grad(loss))(net.params, net.state, torch.ones(32, 3, 32, 32))
sys.exit(any(name in sys.modules for name in ("torch._dynamo", "torch._inductor")))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0
