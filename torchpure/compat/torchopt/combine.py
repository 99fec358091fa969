"""Chains of transformations."""

from typing import Any

from . import pytree
from .base import ChainedGradientTransformation, GradientTransformation, identity
from .transform import run_formulas

__all__ = ["chain", "chain_flat"]


def chain(*transformations: GradientTransformation) -> GradientTransformation:
    """Apply transformations one after another.

    >>> import torch
    >>> from torchpure.compat.torchopt.transform import scale
    >>> doubled_twice = chain(scale(2.0), scale(2.0))
    >>> doubled_twice.update((torch.tensor(1.0),), doubled_twice.init((torch.tensor(1.0),)))[0]
    (tensor(4.),)
    """
    if not transformations:
        return identity()
    return transformations[0] if len(transformations) == 1 else ChainedGradientTransformation(*transformations)


def chain_flat(*transformations: GradientTransformation) -> GradientTransformation:
    """Apply transformations to the list of leaves: their states are lists too. One pass runs them all if it can."""
    if not transformations:
        return identity()
    inner = chain(*transformations)
    members = inner.transformations if isinstance(inner, ChainedGradientTransformation) else (inner,)
    formulas: list[Any] = [getattr(member.update, "formula", None) for member in members]

    def init(params: Any) -> Any:
        return inner.init(pytree.tree_leaves(params, none_is_leaf=True))

    def update(updates: Any, state: Any, *, params: Any = None, inplace: bool = True) -> tuple[Any, Any]:
        flat, structure = pytree.tree_flatten(updates, none_is_leaf=True)
        flat_params = None if params is None else pytree.tree_leaves(params, none_is_leaf=True)
        single = inner is members[0]
        states = (state,) if single else state
        if None in formulas or len(states) != len(formulas):
            flat, state = inner.update(flat, state, params=flat_params, inplace=inplace)
        else:
            flat, states = run_formulas(formulas, flat, states, flat_params, inplace=inplace)
            state = states[0] if single else states
        return pytree.tree_unflatten(structure, flat), state

    return GradientTransformation(init, update)


chain.flat = chain_flat  # pyrefly: ignore[missing-attribute]
