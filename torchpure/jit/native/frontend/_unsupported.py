"""Find nodes that torch itself must run: compiled code would read out of range, or lose an imaginary part."""

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_aggregate

_SELECTIONS = frozenset({
    "max", "min", "argmax", "argmin", "amax", "amin", "aminmax", "median", "nanmedian", "mode", "kthvalue", "topk",
    "index", "_unsafe_index", "index_select", "gather", "take", "embedding", "_embedding_bag", "nll_loss_forward",
    "_embedding_bag_forward_only", "nll_loss2d_forward", "scatter", "scatter_add", "scatter_reduce", "index_put",
    "_unsafe_index_put", "index_add", "index_fill", "index_copy", "index_reduce", "put",
})  # fmt: skip


def selects_from_empty(node: Node) -> bool:
    """Tell whether an operation selects elements of an empty tensor: torch decides if that is an error."""
    name = getattr(node.target, "_opname", None)
    first = node.args[0] if node.args else None
    like = first.meta.get("val") if isinstance(first, Node) else None
    return name is not None and name.removesuffix("_") in _SELECTIONS and isinstance(like, Tensor) and like.numel() == 0


def has_sparse_tensor(node: Node) -> bool:
    """Tell whether the result or an argument of an operation is a sparse tensor, which has no array of its entries."""
    held = (one.meta.get("val") for one in (node, *node.all_input_nodes))
    return any(isinstance(like, Tensor) and like.layout is not torch.strided for like in held)


def has_complex_argument(node: Node) -> bool:
    """Tell whether an argument is a complex number of Python."""
    found: list[bool] = []
    map_aggregate((node.args, node.kwargs), lambda leaf: found.append(isinstance(leaf, complex)))
    return any(found)
