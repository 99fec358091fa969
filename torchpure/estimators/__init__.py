"""Estimates of gradients from samples and from values: score function, pathwise, zero-order, evolution strategies."""

from ._control_variate import control_variate
from ._evolution_strategy import centered_ranks, evolution_strategy
from ._gumbel import gumbel_one_hot, gumbel_softmax
from ._pathwise import antithetic, pathwise
from ._persistent_es import PersistentES, PersistentState, persistent_es
from ._perturbed import fenchel_young_loss, perturbed
from ._score_function import score_function
from ._smoothing import central_difference, forward_difference
from ._spsa import spsa
from ._straight_through import straight_through
from ._two_point import two_point

__all__ = [
    "PersistentES",
    "PersistentState",
    "antithetic",
    "centered_ranks",
    "central_difference",
    "control_variate",
    "evolution_strategy",
    "fenchel_young_loss",
    "forward_difference",
    "gumbel_one_hot",
    "gumbel_softmax",
    "pathwise",
    "persistent_es",
    "perturbed",
    "score_function",
    "spsa",
    "straight_through",
    "two_point",
]
