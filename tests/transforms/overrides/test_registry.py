"""Every override of the registry: its operation exists, and each transform of it is right.

To test a new override, add a row to `ROWS`: its operations, and a function of one operation and a tensor that calls it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, special
from torch._functorch.autograd_function import custom_function_call
from torch.overrides import TorchFunctionMode, resolve_name
from torch.testing import assert_close
from torch.torch_version import TorchVersion

import torchpure as tp
from torchpure.errors import TransformError
from torchpure.transforms.formulas import POLYNOMIALS
from torchpure.transforms.overrides._override import Override, Where
from torchpure.transforms.overrides._registry import OVERRIDES, is_needed, table

pytestmark = [
    pytest.mark.filterwarnings("ignore:There is a performance drop"),  # torch maps some operations in a loop
    pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated"),
    pytest.mark.filterwarnings("ignore:at..frobenius_norm is deprecated"),
    pytest.mark.filterwarnings("ignore:index_reduce.. is in beta"),
    pytest.mark.filterwarnings("ignore:torch.cholesky is deprecated"),
    pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node"),  # torch.func.linearize
]
D = torch.float64
STEP = 1e-5  # of central differences: they are off by its square, and by the rounding 1e-16 / STEP
CLOSE = {"rtol": 1e-6, "atol": 1e-7}
LAWS = ("grad", "vmap", "jvp", "jvp of jvp", "vmap of grad", "grad of grad", "jvp of grad", "vmap of grad of grad")
GRADIENTS = ("grad", "vmap of grad", "grad of grad", "jvp of grad", "vmap of grad of grad")
MAPPED = ("vmap", "vmap of grad", "vmap of grad of grad")
FORWARD = ("jvp", "jvp of jvp", "jvp of grad")


class Row(NamedTuple):
    """A call of operations, each of which takes its turn as `operation`."""

    operations: tuple[Any, ...]
    call: Callable[[Any, Tensor], Any]  # (operation, x) -> a tensor
    at: Tensor
    refuses: tuple[str, ...] = ()  # the laws for which torch has no rule, or the override refuses


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=D)


def matrix(x: Tensor) -> Tensor:
    """A regular matrix that is not symmetric, with a positive determinant."""
    return torch.outer(x, torch.sin(x)) + torch.diag(2 + x**2)


V3, V4, V34, V44 = values(3), values(4), values(3, 4), values(4, 4)
WORDS, OFFSETS = torch.tensor([1, 4, 1, 1, 5]), torch.tensor([0, 2, 2])
LSTM, GRU, RNN = ([values(n, 4), values(n, 3, seed=1), values(n, seed=2), values(n, seed=3)] for n in (12, 9, 3))
HEADS = nn.MultiheadAttention(4, 2, batch_first=True, dtype=D)
MEANS, VARIANCES = torch.zeros(3, dtype=D), torch.ones(3, dtype=D)
SAMPLES = torch.full((1, 2, 3), 0.3, dtype=D)


def heads(operation: Any, x: Tensor) -> Tensor:
    """Self attention of two heads, in the form (steps, rows, entries)."""
    return operation(
        x, x, x, 4, 2, HEADS.in_proj_weight, HEADS.in_proj_bias, None, None, False, 0.0, HEADS.out_proj.weight,
        HEADS.out_proj.bias, need_weights=False,
    )[0]  # fmt: skip


class Sine(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return torch.sin(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * torch.cos(ctx.saved_tensors[0])

    @staticmethod
    def jvp(ctx, tangent):
        return tangent * torch.cos(ctx.saved_tensors[0])


def layers(weights: list[Tensor], states: int = 1) -> Callable[[Any, Tensor], Tensor]:
    """A recurrent layer over five steps."""
    state = tuple(values(1, 2, 3, seed=4) for _ in range(states))
    return lambda operation, x: operation(
        x, state if states == 2 else state[0], weights, True, 1, 0.0, False, False, False
    )[0]


def cell(weights: list[Tensor]) -> Callable[[Any, Tensor], Tensor]:
    return lambda operation, x: operation(x, values_of_state, *weights)


values_of_state = values(2, 3, seed=4)
BOTH_STATES = (values_of_state, values(2, 3, seed=5))
CLASSES, CLASS_LISTS = torch.tensor([1, 3, 0]), torch.tensor([[2, 0, -1, 1], [3, -1, 3, 2], [-1, 0, 0, 0]])
IN_TRANSFORM = [
    Row((Tensor.data.__get__,), lambda operation, x: x.data.sign() * x**2, V3),
    Row((Tensor.index_copy_,), lambda operation, x: operation(x.clone(), 0, torch.tensor([2, 0]), x[:2] ** 2), V34),
    Row((F.bilinear,), lambda operation, x: operation(x, x[:, :2], BILINEAR), V34[:, :3]),
    Row((F.normalize,), lambda operation, x: operation(x, dim=-1), V34),
    Row((F.embedding_bag,), lambda operation, x: operation(WORDS, x, OFFSETS), values(6, 3)),
    Row((F.multi_margin_loss,), lambda f, x: f(x.sin(), CLASSES, 2, 0.7, reduction="none"), V34),
    Row((F.multilabel_margin_loss,), lambda f, x: f(x.sin(), CLASS_LISTS, reduction="none"), V34),
    Row((torch.norm_except_dim,), lambda operation, x: operation(x, 2, 0), V34),
    Row((torch._weight_norm,), lambda operation, x: operation(x, x[:, :1] ** 2, 0), V34),
    Row((F.fractional_max_pool2d,), lambda f, x: f(x, 2, (2, 2), _random_samples=SAMPLES[..., :2]), values(1, 2, 5, 5)),
    Row((F.fractional_max_pool3d,), lambda f, x: f(x, 2, (2, 2, 2), _random_samples=SAMPLES), values(1, 2, 4, 4, 4)),
    Row((F.scaled_dot_product_attention,), lambda operation, x: operation(x, x, x), values(1, 2, 4, 3)),
    Row((F.multi_head_attention_forward,), heads, values(3, 2, 4)),
    Row((torch.lstm,), layers(LSTM, 2), values(5, 2, 4)),
    Row((torch.gru,), layers(GRU), values(5, 2, 4)),
    Row((torch.rnn_tanh,), layers(RNN), values(5, 2, 4)),
    Row((torch.rnn_relu,), layers(RNN), values(5, 2, 4)),
    Row((torch.lstm_cell,), lambda operation, x: operation(x, BOTH_STATES, *LSTM)[0], values(2, 4)),
    Row((torch.gru_cell,), cell(GRU), values(2, 4)),
    Row((torch.rnn_tanh_cell, torch.rnn_relu_cell), cell(RNN), values(2, 4)),
]
BILINEAR = values(5, 3, 2, seed=2)
ONES = torch.ones(4, dtype=D)
LU = torch.linalg.lu_factor(V44)
SLOTS = torch.tensor([[0, 2, 0, 2], [1, 1, 1, 0], [2, 0, 1, 2]])
ROWS = [
    *IN_TRANSFORM,
    # linear algebra and solvers
    Row((torch.triangular_solve, Tensor.triangular_solve), lambda f, x: f(x[:, :1], matrix(x[:, 1]))[0], V34),
    Row((torch.cholesky_inverse, Tensor.cholesky_inverse), lambda f, x: f(matrix(x)), V3),
    Row((torch.linalg.vector_norm, torch.linalg.norm, torch.norm, Tensor.norm), lambda f, x: f(x, dim=1), V34),
    Row((torch.linalg.solve,), lambda f, x: f(matrix(x), x), V3),
    Row((torch.linalg.solve_ex,), lambda f, x: f(matrix(x), x)[0], V3),
    Row((torch.linalg.tensorsolve,), lambda f, x: f(matrix(x), x), V3),
    Row((torch.linalg.det, torch.det, Tensor.det), lambda f, x: f(matrix(x)), V3),
    Row((torch.linalg.slogdet, torch.slogdet, Tensor.slogdet), lambda f, x: f(matrix(x))[1], V3),
    Row((torch.logdet, Tensor.logdet), lambda f, x: f(matrix(x)), V3),
    Row((torch.linalg.lu_solve,), lambda f, x: f(*LU, x), V44),
    Row((torch.linalg.eigh,), lambda f, x: f(matrix(x) + matrix(x).T, "U")[1] ** 2, V3),
    # factorizations and inverses, whose members may fail alone: see test_failing_members.py
    Row((torch.linalg.cholesky, torch.cholesky, Tensor.cholesky), lambda f, x: f(matrix(x) + matrix(x).T), V3),
    Row((torch.linalg.inv, torch.inverse, Tensor.inverse, torch.pinverse), lambda f, x: f(matrix(x)), V3),
    Row((torch.linalg.pinv, Tensor.pinverse), lambda f, x: f(matrix(x)), V3),
    Row((torch.linalg.tensorinv,), lambda f, x: f(matrix(x), 1), V3),
    Row((torch.linalg.matrix_power, torch.matrix_power, Tensor.matrix_power), lambda f, x: f(matrix(x), -2), V3),
    Row((torch.linalg.svd, torch.svd, Tensor.svd), lambda f, x: f(matrix(x))[1], V3),
    Row((F.logsigmoid, F.rrelu), lambda f, x: f(x), V34),
    Row((F.glu,), lambda f, x: f(x), V44),
    Row((F.multilabel_soft_margin_loss,), lambda f, x: f(x, torch.ones_like(x)), V34),
    Row((torch.linalg.svdvals, torch.linalg.eigvalsh), lambda f, x: f(matrix(x) + matrix(x).T), V3),
    Row((torch.linalg.eig,), lambda f, x: f(matrix(x) + matrix(x).T)[0].real.sum(), V3),
    Row((torch.linalg.eigvals,), lambda f, x: f(matrix(x) + matrix(x).T).real.sum(), V3),
    Row((torch.linalg.lstsq,), lambda f, x: f(matrix(x), x[:, None])[0], V3),
    Row((torch.linalg.matrix_rank,), lambda f, x: f(matrix(x)) * x, V3),
    Row((torch.linalg.cond,), lambda f, x: f(matrix(x)), V3),
    Row((torch.linalg.matrix_norm,), lambda f, x: f(matrix(x)) * f(matrix(x), "nuc"), V3),
    Row((torch.linalg.lu_factor,), lambda f, x: f(matrix(x))[0], V3),
    Row((torch.linalg.householder_product, torch.orgqr, Tensor.orgqr), lambda f, x: f(x.T, x[:, 3]), V34),
    # scatters, splits and slices
    Row((torch.select_scatter, Tensor.select_scatter), lambda f, x: f(x, x[0] ** 2, 0, 1), V34),
    Row((torch.as_strided_scatter, Tensor.as_strided_scatter), lambda f, x: f(x, V3[:2], (2,), (1,), 1) * x, V4),
    Row((torch.column_stack,), lambda f, x: f([x, x**2]), V3),
    Row(
        (torch.scatter_reduce, Tensor.scatter_reduce),
        lambda f, x: f(x, 1, SLOTS, x**2, "prod") + f(x, 1, SLOTS, x**2, "sum"),
        V34,
    ),
    Row(
        (Tensor.scatter_reduce_,),
        lambda f, x: f(x * 2, 0, SLOTS[:2, :3], x[:2, :3] ** 2, "prod", include_self=False),
        V34,
    ),
    Row((torch.index_reduce, Tensor.index_reduce), lambda f, x: f(x, 1, SLOTS[0], x**2, "prod"), V34),
    Row((Tensor.index_reduce_,), lambda f, x: f(x * 2, 0, SLOTS[2, :2], x[:2] ** 2, "prod"), V34),
    Row((F.one_hot,), lambda f, x: f((x * 0).long() + SLOTS, 3) * x[..., None], V34),
    Row((torch.tensor_split, Tensor.tensor_split), lambda f, x: f(x, torch.tensor([1, 3]))[1], V4),
    Row((torch.narrow, Tensor.narrow), lambda f, x: f(x, 0, torch.tensor(1), 2), V4),
    # norms
    Row((F.layer_norm, torch.layer_norm), lambda f, x: f(x, (4,), V4), V34),
    Row((F.batch_norm,), lambda f, x: f(x.T, None, None, V3, training=True), V34),
    Row((F.instance_norm,), lambda f, x: f(x[None]), V34),
    Row((torch.native_layer_norm,), lambda f, x: f(x, (4,), V4, V4, 1e-5)[0], V34),
    Row((torch.native_batch_norm,), lambda f, x: f(x.T, V3, V3, MEANS, VARIANCES, False, 0.1, 1e-5)[0], V34, FORWARD),
    Row((torch._native_batch_norm_legit,), lambda f, x: f(x.T, V3, V3, True, 0.1, 1e-5)[0], V34, FORWARD),
    # distances and functions of norms
    Row((torch.frobenius_norm,), lambda f, x: f(x, (1,)), V34),
    Row((F.pairwise_distance,), lambda f, x: f(x, x.flip(0) ** 2), V34),
    Row((F.triplet_margin_loss,), lambda f, x: f(x, x.flip(0) ** 2, x**3, swap=True), V34),
    Row((torch.cdist,), lambda f, x: torch.cat([f(x, x[:2] ** 2, p) for p in (2.0, 3.0, torch.inf)]), V34),
    Row((F.pdist,), lambda f, x: torch.cat([f(x, p) for p in (2.0, 3.0, torch.inf)]), V34),
    Row((torch.renorm, Tensor.renorm), lambda f, x: f(x, 2, 0, 0.7), V34),
    Row((Tensor.renorm_,), lambda f, x: f(x * 2, 2, 0, 0.7), V34),
    Row((torch.std_mean,), lambda f, x: sum(f(x, 1)), V34),
    Row(
        (torch.abs, torch.absolute, Tensor.abs, Tensor.absolute, torch.angle, Tensor.angle),
        lambda f, x: f(torch.complex(x[0], x[1])),
        V34,
    ),
    Row((torch.sgn, Tensor.sgn), lambda f, x: torch.view_as_real(f(torch.complex(x[0], x[1]))), V34),
    Row((torch.linalg.vander,), lambda f, x: f(x, N=5), V34),
    Row((torch.vander,), lambda f, x: f(x, 4), V3),
    # losses and activations
    Row((F.binary_cross_entropy_with_logits,), lambda f, x: f(x, V34.flip(0).sigmoid(), reduction="none"), V34),
    Row((F.mse_loss, F.huber_loss, F.soft_margin_loss), lambda f, x: f(x, V34.flip(0), reduction="none"), V34),
    Row((F.gaussian_nll_loss,), lambda f, x: f(x[0], x[1], x[2] ** 2 + 1), V34),
    Row((F.linear_cross_entropy,), lambda f, x: f(x, V44, torch.tensor([0, 2, 3])), V34),
    Row((F.hardsigmoid,), lambda f, x: f(x), V34),
    Row((torch.prelu, Tensor.prelu), lambda f, x: f(x, x[0]), V34),
    Row((torch.ops.aten._safe_softmax.default,), lambda f, x: f(x, -1), V34),
    # borders of formulas: the values there are in test_borders.py
    Row((torch.prod, Tensor.prod, torch.cumprod, Tensor.cumprod), lambda f, x: f(x, 1), V34),
    Row((torch.logcumsumexp, Tensor.logcumsumexp), lambda f, x: f(x, 1), V34),
    Row(
        (
            torch.logaddexp,
            Tensor.logaddexp,
            torch.logaddexp2,
            Tensor.logaddexp2,
            torch.atan2,
            torch.arctan2,
            Tensor.atan2,
            Tensor.arctan2,
            torch.copysign,
            Tensor.copysign,
            torch.dist,
            Tensor.dist,
            torch.hypot,
            Tensor.hypot,
        ),
        lambda f, x: f(x[0], x[1]),
        V34,
    ),
    Row((torch.xlogy, special.xlogy, Tensor.xlogy, special.xlog1py), lambda f, x: f(x[0], x[1] ** 2 + 0.1), V34),
    Row((F.cosine_similarity,), lambda f, x: f(x, x.flip(0) ** 2, 1), V34),
    Row((torch.std, Tensor.std), lambda f, x: f(x, 1), V34),
    Row((F.embedding,), lambda f, x: f(WORDS, x, 2), values(6, 3)),
    Row(
        (
            torch.sinc,
            special.sinc,
            Tensor.sinc,
            torch.i0,
            Tensor.i0,
            special.i0,
            special.i1,
            special.i0e,
            special.i1e,
            special.bessel_j0,
            special.bessel_j1,
            special.modified_bessel_i0,
            special.modified_bessel_i1,
            special.spherical_bessel_j0,
        ),
        lambda f, x: f(x),
        V34,
    ),
    Row(
        (
            special.bessel_y0,
            special.bessel_y1,
            special.modified_bessel_k0,
            special.modified_bessel_k1,
            special.scaled_modified_bessel_k0,
            special.scaled_modified_bessel_k1,
        ),
        lambda f, x: f(0.1 * x**2 + 0.3),  # elsewhere torch has errors of 1e-7 in Y
        V34,
    ),
    Row(tuple(POLYNOMIALS), lambda f, x: f(x, 3), V34),
    Row((torch.sqrt,), lambda f, x: f(x**2 + 0.1), V34),
    Row((Tensor.hypot_,), lambda f, x: f(x[0] * 2, x[1]), V34),
    Row((Tensor.sinc_, Tensor.i0_), lambda f, x: f(x * 2), V34),
    Row((Tensor.cumprod_,), lambda f, x: f(x * 2, 1), V34),
    Row(
        (torch.pow, Tensor.pow, Tensor.__pow__, torch.float_power, Tensor.float_power),
        lambda f, x: f(x[0] ** 2 + 0.1, x[1]),
        V34,
    ),
    Row((Tensor.__rpow__,), lambda f, x: f(x[1], x[0] ** 2 + 0.1), V34),
    Row((Tensor.pow_, Tensor.__ipow__), lambda f, x: f(x[0] ** 2 + 0.1, x[1]), V34),
    Row((special.zeta,), lambda f, x: f(3.0 * torch.ones_like(x), x**2 + 0.5), V34),
    Row(
        (torch.igamma, special.gammainc, Tensor.igamma, torch.igammac, special.gammaincc, Tensor.igammac),
        lambda f, x: f(ONES, x**2 + 0.1),
        V4,
    ),
    Row((Tensor.igamma_, Tensor.igammac_), lambda f, x: f(2 * ONES + 0 * x.detach(), x**2 + 0.1), V4),
    Row((torch.normal,), lambda f, x: f(x[0], x[1] ** 2, generator=torch.Generator().manual_seed(0)), V34, MAPPED),
    Row((torch.linspace, torch.logspace), lambda f, x: f(x[0], x[1], 4, dtype=D), V4),
    Row((torch.tensor, torch.as_tensor, torch.asarray), lambda f, x: f([x[0], x[1], 2.0]), V4),
    Row((Tensor.new_tensor,), lambda f, x: f(x, [x[0], x[1], 2.0]), V4),
    # results that share the tangent of their argument
    Row((torch.frac, Tensor.frac, torch.t_copy, torch.alias_copy), lambda f, x: f(x), V34),
    Row((torch.fmod, Tensor.fmod, torch.remainder, Tensor.remainder), lambda f, x: f(x, 5.0), V34),
    Row((torch.as_strided_copy,), lambda f, x: f(x, (3,), (1,)), V4),
    Row((torch.diagonal_copy,), lambda f, x: f(x), V34),
    Row((Tensor.view,), lambda f, x: f(x, D) * f(x, 12).reshape(3, 4), V34),
    Row((torch.expand_copy, torch.view_copy), lambda f, x: f(x, (3, 4)), V34),
    Row((torch.permute_copy,), lambda f, x: f(x, (1, 0)), V34),
    Row((torch.transpose_copy,), lambda f, x: f(x, 0, 1), V34),
    Row((torch.select_copy,), lambda f, x: f(x, 0, 1), V34),
    Row((torch.slice_copy,), lambda f, x: f(x, 0, 1, 3), V34),
    Row((torch.split_copy,), lambda f, x: f(x, 2)[0], V34, MAPPED),
    Row((torch.split_with_sizes_copy,), lambda f, x: f(x, [1, 2])[1], V34),
    Row((torch.squeeze_copy,), lambda f, x: f(x[:1]), V34),
    Row((torch.unbind_copy,), lambda f, x: f(x)[1], V34),
    Row((torch.unfold_copy,), lambda f, x: f(x, 1, 2, 1), V34),
    Row((torch.unsqueeze_copy,), lambda f, x: f(x, 0), V34),
    Row((torch.view_as_real_copy,), lambda f, x: f(torch.complex(x, x**2)), V34),
    Row((torch.view_as_complex_copy,), lambda f, x: f(x.reshape(3, 2, 2)).abs(), V34, GRADIENTS),
]


def slope(f: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    """The gradient, by torch's autograd with a graph."""
    return lambda x: torch.autograd.grad(f(x), x, create_graph=True)[0]


AT = (torch.tensor([0, 3]), torch.tensor([0, 1, 2]))  # places of the entries of a compressed matrix
INTERCEPTED = {  # operations of which the mode changes the arguments, or refuses the call -> a function that uses them
    custom_function_call: Sine.apply,
    torch.autograd.grad: slope(lambda x: (x**3).sum()),
    Tensor.__deepcopy__: lambda x: x * __import__("copy").deepcopy(torch.ones(3)),
    Tensor.untyped_storage: lambda x: x.untyped_storage(),
    torch.nested.to_padded_tensor: lambda x: torch.nested.to_padded_tensor(torch.nested.as_nested_tensor([x]), 0.0),
    Tensor.to_padded_tensor: lambda x: torch.nested.as_nested_tensor([x]).to_padded_tensor(0.0),
    Tensor.values: lambda x: torch.nested.as_nested_tensor([x]).values(),
    torch.unbind: lambda x: torch.unbind(x),
    Tensor.unbind: lambda x: x.unbind(),
    torch.select: lambda x: torch.select(x, 0, 1),
    Tensor.select: lambda x: x.select(0, 1),
    Tensor.to_sparse: lambda x: x.to_sparse(),
    Tensor.to_sparse_csr: lambda x: x[None].to_sparse_csr(),
    Tensor.to_sparse_csc: lambda x: x[None].to_sparse_csc(),
    Tensor.to_sparse_bsr: lambda x: x[None].to_sparse_bsr((1, 1)),
    Tensor.to_sparse_bsc: lambda x: x[None].to_sparse_bsc((1, 1)),
    torch.sparse_coo_tensor: lambda x: torch.sparse_coo_tensor(torch.tensor([[0, 1, 2]]), x, (3,)),
    torch.sparse_compressed_tensor: lambda x: torch.sparse_compressed_tensor(*AT, x, (1, 3), layout=torch.sparse_csr),
    torch.sparse_csr_tensor: lambda x: torch.sparse_csr_tensor(*AT, x, (1, 3)),
    torch.sparse_csc_tensor: lambda x: torch.sparse_csc_tensor(*AT, x, (3, 1)),
    torch.sparse_bsr_tensor: lambda x: torch.sparse_bsr_tensor(*AT, x[:, None, None], (1, 3)),
    torch.sparse_bsc_tensor: lambda x: torch.sparse_bsc_tensor(*AT, x[:, None, None], (3, 1)),
    torch.autograd.backward: lambda x: torch.autograd.backward((x**3).sum(), inputs=[x]),
    Tensor.backward: lambda x: (x**3).sum().backward(inputs=[x]),
    Tensor.detach: lambda x: torch.autograd.functional.vjp(torch.sin, x.detach(), V3)[1],
    Tensor.new_empty: lambda x: torch.func.linearize(torch.sin, x)[1](x),
    torch._C._set_grad_enabled: lambda x: torch.set_grad_enabled(True),
    Tensor.requires_grad.__get__: lambda x: x.requires_grad,
    Tensor.grad_fn.__get__: lambda x: x.grad_fn,
    Tensor.register_hook: lambda x: x.register_hook(torch.sin),
    Tensor.register_post_accumulate_grad_hook: lambda x: x.register_post_accumulate_grad_hook(print),
    F.l1_loss: lambda x: F.l1_loss(x, x**2, weight=x**2 + 1),
    Tensor.item: lambda x: x[0].item(),
    Tensor.tolist: lambda x: x.tolist(),
    Tensor.numpy: lambda x: x.detach().numpy(),
    Tensor.__array__: lambda x: __import__("numpy").asarray(x.detach()),
    Tensor.__float__: lambda x: float(x[0].detach()),
    Tensor.__int__: lambda x: int(x[0]),
    Tensor.__index__: lambda x: range(WORDS[0]),
    Tensor.__complex__: lambda x: complex(x[0].detach()),
    Tensor.__dlpack__: lambda x: torch.from_dlpack(x.detach()),
    F.batch_norm: lambda x: F.batch_norm(x[None].expand(2, 3), MEANS.clone(), VARIANCES.clone(), training=True),
    F.instance_norm: lambda x: F.instance_norm(x[None, None], VARIANCES[:1].clone(), VARIANCES[:1].clone()),
}


def name_of(operation: Any) -> str:
    if operation.__name__ == "__get__":  # of an attribute, such as `Tensor.data`
        return operation.__self__.__name__
    return resolve_name(operation) or operation.__name__


REMOVED = {torch.cholesky, Tensor.cholesky} if TorchVersion(torch.__version__) >= "2.14" else set()  # they only raise
CALLS = {name_of(op): (row, op) for row in ROWS for op in row.operations if op not in REMOVED}


def plain(name: str) -> Callable[[Tensor], Tensor]:
    """The operation in a function."""
    row, operation = CALLS[name]
    call = row.call
    return lambda x: call(operation, x)


class Layer(nn.Module):
    """The operation in a module, whose parameter is its argument."""

    def __init__(self, call: Callable[[Tensor], Tensor], at: Tensor) -> None:
        super().__init__()
        self.x, self.call = nn.Parameter(at), call

    def forward(self) -> Tensor:
        return self.call(self.x)


def in_module(name: str) -> Callable[[Tensor], Tensor]:
    net = tp.functional(Layer(plain(name), CALLS[name][0].at))
    return lambda x: net({"x": x})


def difference(f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """The derivative in a direction."""
    return (f(x + STEP * v) - f(x - STEP * v)) / (2 * STEP)


def transformed(law: str, f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """What a law is about: a transform of `f`, or of the scalar `|f|²`."""
    both = torch.stack([x, x + 0.1 * v])
    gradient = tp.grad(lambda y: (f(y) ** 2).sum())
    product = tp.grad(lambda y: (gradient(y) * v).sum())
    return {
        "grad": lambda: (gradient(x) * v).sum(),
        "vmap": lambda: tp.vmap(f)(both),
        "jvp": lambda: tp.jvp(f, (x,), (v,))[1],
        "jvp of jvp": lambda: tp.jvp(lambda y: tp.jvp(lambda z: f(z) ** 2, (y,), (v,))[1].sum(), (x,), (v,))[1],
        "vmap of grad": lambda: tp.vmap(gradient)(both),
        "grad of grad": lambda: product(x),
        "jvp of grad": lambda: tp.jvp(gradient, (x,), (v,))[1],
        "vmap of grad of grad": lambda: tp.vmap(product)(both),
    }[law]()


def wanted(law: str, f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """The same by loops and differences; second derivatives by differences of first ones, which have their own laws."""
    both = (x, x + 0.1 * v)
    gradient = tp.grad(lambda y: (f(y) ** 2).sum())

    def slope_in_v(y: Tensor) -> Tensor:
        return tp.jvp(lambda z: (f(z) ** 2).sum(), (y,), (v,))[1]

    return {
        "grad": lambda: difference(lambda y: (f(y) ** 2).sum(), x, v),
        "vmap": lambda: torch.stack([f(y) for y in both]),
        "jvp": lambda: difference(f, x, v),
        "jvp of jvp": lambda: difference(slope_in_v, x, v),
        "vmap of grad": lambda: torch.stack([gradient(y) for y in both]),
        "grad of grad": lambda: difference(gradient, x, v),
        "jvp of grad": lambda: difference(gradient, x, v),
        "vmap of grad of grad": lambda: torch.stack([difference(gradient, y, v) for y in both]),
    }[law]()


@pytest.mark.parametrize("name", CALLS)
def test_each_transform_of_an_overridden_operation_is_right(name):
    row, _ = CALLS[name]
    f, v = plain(name), values(*row.at.shape, seed=7)
    for law in LAWS:
        if law in row.refuses:
            with pytest.raises((TransformError, RuntimeError)):
                transformed(law, f, row.at, v)
        else:
            assert_close(
                transformed(law, f, row.at, v), wanted(law, f, row.at, v), **CLOSE, msg=lambda m, at=law: f"{at}: {m}"
            )


IN_TRANSFORM_NAMES = [name for name, (row, _) in CALLS.items() if row in IN_TRANSFORM]


@pytest.mark.parametrize("name", IN_TRANSFORM_NAMES)
def test_a_function_gets_what_a_module_gets(name):
    x = CALLS[name][0].at
    v = values(*x.shape, seed=7)
    for law in LAWS:
        assert_close(transformed(law, plain(name), x, v), transformed(law, in_module(name), x, v))


class _Seen(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.operations.add(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", CALLS)
def test_a_mode_sees_the_operation(name):
    """If not, torch calls it in another way: name in the row of the override what the mode sees now."""
    row, operation = CALLS[name]
    with _Seen() as seen:
        plain(name)(row.at)
    assert operation in seen.operations


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("operation", INTERCEPTED, ids=name_of)
def test_a_mode_sees_the_operation_that_is_intercepted(operation):
    run = INTERCEPTED[operation]
    with _Seen() as seen:
        if operation is custom_function_call:
            torch.func.vmap(run)(V34)
        else:
            run(V3.clone().requires_grad_())
    assert operation in seen.operations


ELSEWHERE = {
    Tensor.requires_grad_,  # tests/model/test_checkpoint.py
    torch._nested_tensor_from_mask_left_aligned,  # tests/model/test_masks.py
    torch.embedding,  # tests/transforms/test_sparse.py
    torch.embedding_bag,
    Tensor.new,  # tests/faults/test_borders.py
}


def test_every_override_has_a_test_row():
    tested = {id_ for _, id_ in CALLS.values()} | set(INTERCEPTED) | ELSEWHERE | REMOVED
    missing = [
        name_of(operation) for override in OVERRIDES for operation in override.operations if operation not in tested
    ]
    assert not missing, f"add a Row(...) to ROWS of {__file__} for {', '.join(missing)}"


def test_an_operation_has_one_rule_in_a_place():
    for where in Where:
        named = [operation for override in OVERRIDES if where in override.where for operation in override.operations]
        twice = [name_of(operation) for operation in named if named.count(operation) > 1]
        assert not twice, f"{where}: two overrides name {twice}: join them, or give each another place"


def test_an_override_is_left_out_of_versions_that_do_not_need_it():
    repaired = Override([torch.det], Where.ALWAYS, torch.det, until="2.15")
    versions = {
        "2.13.0": True,
        "2.14.1+cpu": True,
        "2.15.0a0": True,
        "2.15.0": False,
        "2.15.0+cpu": False,
        "3.0": False,
    }
    for version, needed in versions.items():
        assert is_needed(repaired, version) is needed
    assert is_needed(repaired._replace(until=None), "9.0")
    assert torch.cholesky_inverse in table(Where.ALWAYS)  # no version has repaired it


def test_a_program_of_a_first_gradient_keeps_the_kernels_of_torch():
    """They are right there, and faster; a second derivative needs the rule."""
    x = values(1, 2, 4, 3)

    def f(x):
        return (F.scaled_dot_product_attention(x, x, x) ** 2).sum()

    def second(x):
        return tp.grad(lambda y: tp.grad(f)(y).sum())(x)

    assert "scaled_dot_product" in str(tp.make_graph(tp.grad(f))(x))
    assert "scaled_dot_product" not in str(tp.make_graph(second)(x))
