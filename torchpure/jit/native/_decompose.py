"""A traced program in fewer kinds of operations, none of which changes what it was given.

Law: the decomposed program computes what the program does.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.func import functionalize
from torch.fx import GraphModule

from torchpure.transforms import trace

from ._values import UnsupportedError

_aten = torch.ops.aten
_MORE = (
    _aten._softmax, _aten._log_softmax, _aten._softmax_backward_data, _aten._log_softmax_backward_data,
    _aten.linalg_vector_norm, _aten.native_group_norm, _aten.native_group_norm_backward, _aten.native_layer_norm,
    _aten.native_layer_norm_backward, _aten.native_batch_norm, _aten._native_batch_norm_legit_functional,
    _aten.nll_loss_forward, _aten.nll_loss_backward, _aten.gelu, _aten.gelu_backward, _aten.tanh_backward,
    _aten.sigmoid_backward, _aten.threshold_backward, _aten.embedding_dense_backward, _aten.lerp, _aten.addcmul,
    _aten.addcdiv, _aten.huber_loss, _aten.smooth_l1_loss, _aten.mse_loss, _aten.mse_loss_backward, _aten.linspace,
)  # fmt: skip


@lru_cache(maxsize=1)
def _table() -> dict[Any, Any]:
    attention = _aten._scaled_dot_product_flash_attention_for_cpu.default  # its rule returns no logarithms of sums
    sixths = _aten.hardsigmoid_backward.default  # torch's own multiplies by a sixth in single precision
    kept = {_aten.var.correction, _aten.var_mean.correction, attention, sixths}
    table = {**core_aten_decompositions(), **get_decompositions(_MORE)}
    return {op: rule for op, rule in table.items() if op not in kept}


def decomposed(module: GraphModule, tensors: Sequence[Tensor]) -> GraphModule:
    """Trace a program again through torch's decompositions; programs that change temporaries are made functional.

    Raises:
        UnsupportedError: a program with loops changes temporaries in place outside of them.
    """
    run: Any = module
    if _mutates(module):
        if any(isinstance(node.target, torch._ops.HigherOrderOperator) for node in module.graph.nodes):
            raise UnsupportedError("changes in place around a loop")
        run = functionalize(module, remove="mutations_and_views")
    with torch.no_grad():
        made = trace(run, tensors, _table())
    made.graph.eliminate_dead_code()
    return made


def _mutates(module: GraphModule) -> bool:
    return any(
        getattr(getattr(node.target, "_schema", None), "is_mutable", False)
        for node in module.graph.nodes
        if node.op == "call_function"
    )
