"""Several optimizers, each for its own leaves, as torch's parameter groups."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

from torchpure._types import Grads, Params, Tree, Updates
from torchpure.errors import StructureError
from torchpure.optim.core import (
    Choice,
    Mask,
    Optimizer,
    choice,
    first_match,
    keep,
    labelling,
    leaf_paths,
    merge,
    names,
    set_to_zero,
)


class PartitionState(NamedTuple):
    """State of `partition`."""

    inner_states: dict[Any, Any]  # by label


def partition(
    transforms: Mapping[Any, Optimizer[Any]], param_labels: Tree | Callable[[Params], Tree] = None
) -> Optimizer[PartitionState]:
    """Give each leaf to the optimizer that its label names.

    Labels are a tree like the parameters (a label may stand for a whole subtree), or a function of the parameters that
    gives one. Without labels the names are globs over dotted paths, and the first that matches has the leaf:
    `partition({"*.bias": sgd(0.1), "*": adam(1e-3)})`.

    Raises:
        ValueError: there is no optimizer.
        StructureError: a leaf has a label that names no optimizer, or none at all (when called).
    """
    if not transforms:
        raise ValueError("partition: wanted at least one optimizer")
    label = first_match("partition", list(transforms)) if param_labels is None else labelling("partition", param_labels)
    return _by_label("partition", dict(transforms), label)


def _by_label(who: str, transforms: dict[Any, Optimizer[Any]], label: Choice) -> Optimizer[PartitionState]:
    def init(params: Params) -> PartitionState:
        labels = label(params)
        _check_labels(who, labels, transforms, params)
        parts = {name: keep([one == name for one in labels], params, params, who) for name in transforms}
        return PartitionState({name: optimizer.init(parts[name]) for name, optimizer in transforms.items()})

    def update(grads: Grads, state: PartitionState, params: Params, **extra: Any) -> tuple[Updates, PartitionState]:
        base = grads if params is None else params
        labels, states = label(base), {}
        for name, optimizer in transforms.items():
            flags = [one == name for one in labels]
            own = [keep(flags, base, part, who) for part in (grads, base)]
            updates, states[name] = optimizer.update(own[0], state.inner_states[name], own[1], **extra)
            grads = merge(flags, base, updates, grads, who)
        return grads, PartitionState(states)

    return Optimizer(init, update, extra=names(*transforms.values()))


def _check_labels(who: str, labels: list[Hashable], transforms: dict[Any, Any], params: Params) -> None:
    for number, one in enumerate(labels):
        if one not in transforms:
            path = leaf_paths(params)[number]
            raise StructureError(f"{who}: `{path}` has the label {one!r}, wanted one of {list(transforms)}")


def selective_transform(optimizer: Optimizer[Any], *, freeze_mask: Mask) -> Optimizer[PartitionState]:
    """Freeze the leaves that a mask means, and train the others: frozen ones have no state, and zero updates.

    >>> import torch
    >>> from torchpure import optim
    >>> params = {"w": torch.ones(1), "b": torch.ones(1)}
    >>> opt = selective_transform(optim.sgd(0.5), freeze_mask="b")
    >>> opt.step(params, opt.init(params), params)[0]
    {'w': tensor([0.5000]), 'b': tensor([1.])}
    """
    frozen = choice("selective_transform", freeze_mask)

    def label(params: Params) -> list[str]:
        return ["freeze" if flag else "train" for flag in frozen(params)]

    return _by_label("selective_transform", {"train": optimizer, "freeze": set_to_zero()}, label)
