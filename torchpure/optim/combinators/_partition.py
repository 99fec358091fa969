"""Several optimizers, each for its own leaves, like the parameter groups of torch.optim."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

from torchpure._types import Grads, Params, Tree, Updates
from torchpure.errors import StructureError
from torchpure.optim.core import (
    LabelFn,
    Mask,
    Optimizer,
    check_optimizer,
    extra_names,
    glob_label_fn,
    label_fn,
    leaf_paths,
    mask_fn,
    mask_tree,
    merge_masked,
    set_to_zero,
)


class PartitionState(NamedTuple):
    """State of `partition`."""

    inner_states: dict[Any, Any]  # by label


def partition(
    transforms: Mapping[Any, Optimizer[Any]], param_labels: Tree | Callable[[Params], Tree] = None
) -> Optimizer[PartitionState]:
    """Update each leaf with the optimizer that its label names.

    Without `param_labels`, the keys of `transforms` are globs over dotted paths, and the first glob that matches is the
    label: `partition({"*.bias": sgd(0.1), "*": adam(1e-3)})`. Else `param_labels` is a tree of labels, where a label
    may stand for a whole subtree, or a function from the parameters to such a tree.

    Raises:
        ValueError: no optimizer is given.
        StructureError: a leaf has no label, or a label that names no optimizer (when called).

    >>> import torch
    >>> from torchpure.optim import sgd
    >>> optimizer = partition({"*bias": sgd(1.0), "*": sgd(0.1)})
    >>> ones = {"weight": torch.ones(1), "bias": torch.ones(1)}
    >>> optimizer.update(ones, optimizer.init(ones), ones)[0]
    {'weight': tensor([-0.1000]), 'bias': tensor([-1.])}
    """
    if not transforms:
        raise ValueError("partition: wanted at least one optimizer")
    check_optimizer("partition", *transforms.values())
    label_leaves = (
        glob_label_fn("partition", list(transforms)) if param_labels is None else label_fn("partition", param_labels)
    )
    return _by_label("partition", dict(transforms), label_leaves)


def _by_label(caller: str, transforms: dict[Any, Optimizer[Any]], label_leaves: LabelFn) -> Optimizer[PartitionState]:
    def init(params: Params) -> PartitionState:
        labels = label_leaves(params)
        _check_labels(caller, labels, transforms, params)
        parts = {name: mask_tree([label == name for label in labels], params, params, caller) for name in transforms}
        return PartitionState({name: optimizer.init(parts[name]) for name, optimizer in transforms.items()})

    def update(grads: Grads, state: PartitionState, params: Params, **extra: Any) -> tuple[Updates, PartitionState]:
        base = grads if params is None else params
        labels, states = label_leaves(base), {}
        for name, optimizer in transforms.items():
            flags = [label == name for label in labels]
            selected = mask_tree(flags, base, grads, caller)
            selected_params = None if params is None else mask_tree(flags, base, params, caller)
            updates, states[name] = optimizer.update(selected, state.inner_states[name], selected_params, **extra)
            grads = merge_masked(flags, base, updates, grads, caller)
        return grads, PartitionState(states)

    return Optimizer(init, update, extra=extra_names(*transforms.values()))


def _check_labels(caller: str, labels: list[Hashable], transforms: dict[Any, Any], params: Params) -> None:
    for number, label in enumerate(labels):
        if label not in transforms:
            path = leaf_paths(params)[number]
            raise StructureError(f"{caller}: `{path}` has the label {label!r}, wanted one of {list(transforms)}")


def selective_transform(optimizer: Optimizer[Any], *, freeze_mask: Mask) -> Optimizer[PartitionState]:
    """Train the leaves that a mask does not select. Frozen leaves have zero updates and no state.

    >>> import torch
    >>> from torchpure import optim
    >>> params = {"w": torch.ones(1), "b": torch.ones(1)}
    >>> opt = selective_transform(optim.sgd(0.5), freeze_mask="b")
    >>> opt.step(params, opt.init(params), params)[0]
    {'w': tensor([0.5000]), 'b': tensor([1.])}
    """
    check_optimizer("selective_transform", optimizer)
    is_frozen = mask_fn("selective_transform", freeze_mask)

    def label_leaves(params: Params) -> list[str]:
        return ["freeze" if flag else "train" for flag in is_frozen(params)]

    return _by_label("selective_transform", {"train": optimizer, "freeze": set_to_zero()}, label_leaves)
