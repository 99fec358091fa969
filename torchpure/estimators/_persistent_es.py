"""Persistent evolution strategies (Vicol, Metz, Sohl-Dickstein 2021, arXiv:2112.13835, algorithm 2)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from torchpure import random, tree
from torchpure._types import Grads, Key, Params, Tree
from torchpure.errors import TransformError
from torchpure.transforms import vmap
from torchpure.transforms.calls import check_callable
from torchpure.transforms.engine import is_variable

from ._samples import (
    check_num_samples,
    check_params,
    check_positive,
    check_scalar,
    mean_of_products,
    normal_like,
    shift,
)


class PersistentState(NamedTuple):
    """The state of the population between two estimates."""

    inner: Tree  # states of the members, shape (2 num_pairs, ...): first those at +, then those at −
    perturbations: Tree  # the sum of each pair's perturbations so far, shape (num_pairs, ...)


@dataclass(frozen=True, slots=True)
class PersistentES:
    """A pair of functions: `init(params, inner)` makes the state; `estimate(params, state, *args, key=key)` goes on."""

    init: Callable[[Params, Tree], PersistentState]
    estimate: Callable[..., tuple[Grads, PersistentState, Tensor]]  # (grads, new state, mean loss)


def persistent_es(
    unroll: Callable[..., tuple[Tensor, Tree]], std: float | Tensor = 0.1, num_pairs: int = 32
) -> PersistentES:
    """Estimate the gradient of the loss of a long run, from short pieces of it, without the bias of truncation.

    `unroll(params, inner, *args)` runs one piece from the inner state, and returns (loss of the piece, inner state at
    its end). Each call of `estimate` draws new perturbations, runs the next piece of all members in one vmapped
    program, and weighs the losses by the sum of all perturbations that they have seen. Call `init` again where a run
    ends.

    Law: the sum of the estimates over all pieces of a run has as mean the gradient of E[loss of the run].

    Raises:
        TransformError: `std` is not above 0, `num_pairs` is below 1, or `unroll` does not return (scalar, state).
        TypeError: `key` is not a key.

    >>> import torch
    >>> from torchpure import random
    >>> pes = persistent_es(lambda rate, x: ((x - rate * x) ** 2, x - rate * x), num_pairs=1000)
    >>> rate = torch.tensor(0.5)
    >>> grads, state, loss = pes.estimate(rate, pes.init(rate, torch.tensor(1.0)), key=random.key(0))
    >>> grads.round()  # d (1 - rate)² / d rate
    tensor(-1.)
    """
    check_callable("persistent_es", unroll)
    check_positive("persistent_es", std=std)
    check_num_samples("persistent_es", num_pairs, name="num_pairs")

    def init(params: Params, inner: Tree) -> PersistentState:
        check_params("persistent_es", params)
        zeros = tree.map(lambda leaf: leaf.new_zeros((num_pairs, *leaf.shape)) if is_variable(leaf) else None, params)
        return PersistentState(tree.map(lambda leaf: torch.stack([leaf] * (2 * num_pairs)), inner), zeros)

    def estimate(
        params: Params, state: PersistentState, *args: Tree, key: Key
    ) -> tuple[Grads, PersistentState, Tensor]:
        random.check_key(key, "persistent_es")
        new = vmap(lambda key: tree.scale(normal_like(key, params), std))(random.split(key, num_pairs))
        both = tree.map(lambda leaf: torch.cat([leaf, -leaf]), new)
        losses, inner = vmap(lambda move, inner: _checked(unroll(shift(params, move, 1.0), inner, *args)))(
            both, state.inner
        )
        seen = tree.add(state.perturbations, new)
        weights = (losses[:num_pairs] - losses[num_pairs:]) / (2 * std**2)
        return mean_of_products(weights, seen), PersistentState(inner, seen), losses.mean()

    return PersistentES(init, estimate)


def _checked(out: object) -> tuple[Tensor, Tree]:
    if not isinstance(out, tuple) or len(out) != 2:
        raise TransformError(f"persistent_es: unroll must return (loss, inner state), got {tree.describe(out)}")
    return check_scalar("persistent_es", "unroll", out[0]), out[1]
