"""Optimizers built from other optimizers: chains, masks, parameter groups, conditions, gradient accumulation."""

from ._chain import chain, named_chain
from ._conditional import (
    ApplyIfFiniteState,
    ConditionalState,
    apply_if_finite,
    conditionally_mask,
    conditionally_transform,
)
from ._inject_hyperparams import InjectHyperparamsState, inject_hyperparams
from ._layouts import SplitRealAndImaginaryState, flatten, split_real_and_imaginary
from ._masked import MaskedState, freeze, masked
from ._multi_steps import MultiStepsState, has_updated, multi_steps, skip_large_updates, skip_not_finite
from ._partition import PartitionState, partition, selective_transform

__all__ = [
    "ApplyIfFiniteState",
    "ConditionalState",
    "InjectHyperparamsState",
    "MaskedState",
    "MultiStepsState",
    "PartitionState",
    "SplitRealAndImaginaryState",
    "apply_if_finite",
    "chain",
    "conditionally_mask",
    "conditionally_transform",
    "flatten",
    "freeze",
    "has_updated",
    "inject_hyperparams",
    "masked",
    "multi_steps",
    "named_chain",
    "partition",
    "selective_transform",
    "skip_large_updates",
    "skip_not_finite",
    "split_real_and_imaginary",
]
