"""Several members of one architecture as one pair of pure functions; all tensors get a leading member dimension."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torchpure import random, tree
from torchpure._types import Key, Params, State, T, Tree
from torchpure.errors import StructureError
from torchpure.model.copies import Pool, first_difference
from torchpure.transforms import vmap

from ._functional import Functional, functional


def stack(trees: Sequence[T]) -> T:
    """Stack trees of one structure, leaf by leaf, on a new first dimension; leaves that are no tensors must be equal.

    Law: `unstack(stack(trees)) == trees`.

    Raises:
        StructureError: the list is empty, or the trees differ in structure, or in the shape or dtype of a leaf.

    >>> stack([{"w": torch.zeros(2)}, {"w": torch.ones(2)}])
    {'w': tensor([[0., 0.],
            [1., 1.]])}
    """
    trees = list(trees)
    if not trees:
        raise StructureError("stack: wanted at least one tree")
    leaves, structure = tree.flatten(trees[0])
    columns = [leaves, *(tree.align(structure, trees[0], other, "stack") for other in trees[1:])]
    rows = [_stack_leaf(trees[0], number, row) for number, row in enumerate(zip(*columns, strict=True))]
    return tree.unflatten(structure, rows)


def unstack(stacked: T) -> list[T]:
    """Split a tree along the first dimension of its tensors into one tree of views for each member.

    Raises:
        StructureError: the tree holds no tensors, or their first dimensions are missing or differ.

    >>> unstack({"w": torch.arange(2)})
    [{'w': tensor(0)}, {'w': tensor(1)}]
    """
    num = _num_members("unstack", stacked)
    return [tree.map(partial(_select_member, i), stacked) for i in range(num)]


def ensemble(net: Functional | nn.Module | Sequence[Any], num: int | None = None, *, in_dims: Any = None) -> Functional:
    """Make one net of `num` members, or of a list of nets or modules; every tensor gets a first member dimension.

    Members share the inputs; with `in_dims=0` each member has its own, as in `vmap`. A key is split into one key per
    member: member i of `init(key)` is `net.init(split(key, num)[i])`. If a net is given, all members begin with its
    values. A single member runs without vmap and costs as much as the net. `trainable` names the parameters that are
    trainable in at least one member.

    Law: `ensemble.apply(p, s, x, key=k)` at member i is `net.apply(p[i], s[i], x, key=split(k, num)[i])`.

    Raises:
        TypeError: no net is given, or no number of members.
        StructureError: members differ in parameters or buffers, or in class, configuration, mode or hooks; the message
            names the place.

    >>> from torchpure import random
    >>> net = ensemble(functional(nn.Linear(3, 1)), 5)
    >>> net.params["weight"].shape, net(net.params, torch.ones(2, 3)).shape
    (torch.Size([5, 1, 3]), torch.Size([5, 2, 1]))
    """
    members = _nets(net, num)
    one, count = members[0], len(members)
    params, state = stack([member.params for member in members]), stack([member.state for member in members])
    _check_same_code(members)
    trainable = [name for name in one.params if any(name in member.trainable for member in members)]
    run_members = partial(_run_members, count, in_dims)
    return Functional(
        init=partial(_init, one, count),
        apply=partial(_apply, one, run_members, count),
        params=params,
        state=state,
        trainable=tuple(trainable),
        to_module=partial(_to_module, members, params, state),
        call=partial(_call, one, run_members),
        deterministic=one.deterministic,
        name=f"{count} × {one.name}",
        forward_hooks=one.forward_hooks,
    )


def _nets(net: Any, num: int | None) -> list[Functional]:
    if isinstance(net, Functional | nn.Module):
        if not isinstance(num, int) or num < 1:
            raise TypeError(f"ensemble: wanted a number of members, at least 1, got {num!r}")
        return [net if isinstance(net, Functional) else functional(net)] * num
    nets = [one if isinstance(one, Functional) else functional(one) for one in net]
    if not nets or num not in (None, len(nets)):
        raise TypeError(
            f"ensemble: wanted at least one net, and num=None or their number, got {len(nets)} net(s) and num={num}"
        )
    return nets


def _check_same_code(members: list[Functional]) -> None:
    """Check that every member runs the code of the first, because one run computes all."""
    first = None
    for number, member in enumerate(members):
        if member is members[0]:
            continue
        first = _template(members[0]) if first is None else first
        found = first_difference(first, _template(member))
        if found is not None:
            raise StructureError(
                f"ensemble: member {number} differs from member 0: {found}. All members run the code of member 0: make "
                "an ensemble of each kind, or give all one class, configuration and mode"
            )


def _template(net: Functional) -> nn.Module:
    held = getattr(net.to_module, "args", ())
    return held[0].template if held and isinstance(held[0], Pool) else net.to_module()


def _init(net: Functional, num: int, key: Key) -> tuple[Params, State]:
    keys = random.split(key, num)
    return _add_member_dim(net.init(keys[0])) if num == 1 else vmap(net.init)(keys)


def _apply(
    net: Functional,
    run_members: Callable[..., Any],
    num: int,
    params: Params,
    state: State,
    *inputs: Any,
    key: Key | None = None,
    train: bool | None = None,
    **options: Any,
) -> tuple[Any, State]:
    """Call every member and return (outputs, new states)."""
    keys = None if key is None else random.split(key, num)

    def member(params: Params, state: State, key: Key | None, *inputs: Any) -> tuple[Any, State]:
        return net.apply(params, state, *inputs, key=key, train=train, **options)

    return run_members(member, (params, state, keys), inputs)


def _call(net: Functional, run_members: Callable[..., Any], params: Params, *inputs: Any, **options: Any) -> Any:
    return run_members(lambda params, *inputs: net.call(params, *inputs, **options), (params,), inputs)


def _run_members(
    num: int, in_dims: Any, member: Callable[..., Any], per_member: tuple[Any, ...], inputs: tuple[Any, ...]
) -> Any:
    """Run `member` for each member: `per_member` and the inputs that `in_dims` names are split."""
    leaves, structure = tree.flatten(per_member)
    _check_members("ensemble: parameters and state", per_member, leaves, num)
    dims = list(in_dims) if isinstance(in_dims, list | tuple) else [in_dims] * len(inputs)
    if num == 1 and all(dim is None or isinstance(dim, int) for dim in dims):
        values = tree.unflatten(structure, [leaf.squeeze(0) if isinstance(leaf, Tensor) else leaf for leaf in leaves])
        given = [value if dim is None else _squeeze_dim(value, dim) for value, dim in zip(inputs, dims, strict=True)]
        return _add_member_dim(member(*values, *given))
    if not tree.leaves(per_member) and all(dim is None for dim in dims):
        return stack(
            [member(*per_member, *inputs) for _ in range(num)]
        )  # members do not differ: no parameters, no state, no key
    return vmap(member, in_dims=(*(None if value is None else 0 for value in per_member), *dims))(*per_member, *inputs)


def _squeeze_dim(value: Any, dim: int) -> Any:
    return tree.map(lambda leaf: leaf.squeeze(dim) if isinstance(leaf, Tensor) else leaf, value)


def _add_member_dim(result: Any) -> Any:
    return tree.map(lambda leaf: leaf.unsqueeze(0) if isinstance(leaf, Tensor) else leaf, result)


def _select_member(number: int, leaf: Any) -> Any:
    return leaf[number] if isinstance(leaf, Tensor) else leaf


def _to_module(
    nets: list[Functional], first: Params, buffers: State, params: Params | None = None, state: State | None = None
) -> nn.Module:
    """Build an nn.ModuleList of the members with these values; the default is the ensemble's initial values."""
    given, held = first if params is None else params, buffers if state is None else state
    _check_members("ensemble: parameters and state", (given, held), tree.leaves((given, held)), len(nets))
    parts = [tree.map(partial(_select_member, i), (given, held)) for i in range(len(nets))]
    return nn.ModuleList(net.to_module(*part) for net, part in zip(nets, parts, strict=True))


def _num_members(caller: str, stacked: Tree) -> int:
    """Return the size of the member dimension of a tree's tensors."""
    leaves = tree.leaves(stacked)
    num = next((leaf.shape[0] for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim), None)
    if num is None and not any(isinstance(leaf, Tensor) for leaf in leaves):
        raise StructureError(f"{caller}: the tree holds no tensors, so the number of members is unknown")
    _check_members(caller, stacked, leaves, num or 0)
    return num or 0


def _check_members(caller: str, stacked: Tree, leaves: list[Any], num: int) -> None:
    for number, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor) and leaf.shape[:1] != (num,):
            path, got = tree.paths(stacked)[number], tree.describe(leaf)
            raise StructureError(f"{caller}: `{path}` wants a first dimension of {num or 'some'} members, got {got}")


def _stack_leaf(first_tree: Tree, number: int, row: tuple[Any, ...]) -> Any:
    first = row[0]
    for i, leaf in enumerate(row):
        if isinstance(first, Tensor) and isinstance(leaf, Tensor):
            alike = (leaf.shape, leaf.dtype) == (first.shape, first.dtype)
        else:
            alike = not isinstance(first, Tensor) and not isinstance(leaf, Tensor) and leaf == first
        if not alike:
            path, wanted, got = tree.paths(first_tree)[number], tree.describe(first), tree.describe(leaf)
            raise StructureError(f"stack: `{path}` is {wanted} in member 0 and {got} in member {i}")
    return torch.stack(row) if isinstance(first, Tensor) else first
