"""Optimizers built from other optimizers: chains, masks, parameter groups, conditions, gradient accumulation."""

from ._chain import chain as chain
from ._chain import named_chain as named_chain
from ._conditional import ApplyIfFiniteState as ApplyIfFiniteState
from ._conditional import ConditionalState as ConditionalState
from ._conditional import apply_if_finite as apply_if_finite
from ._conditional import conditionally_mask as conditionally_mask
from ._conditional import conditionally_transform as conditionally_transform
from ._inject_hyperparams import InjectHyperparamsState as InjectHyperparamsState
from ._inject_hyperparams import inject_hyperparams as inject_hyperparams
from ._layouts import RealAndImaginary as RealAndImaginary
from ._layouts import SplitRealAndImaginaryState as SplitRealAndImaginaryState
from ._layouts import flatten as flatten
from ._layouts import split_real_and_imaginary as split_real_and_imaginary
from ._masked import MaskedState as MaskedState
from ._masked import freeze as freeze
from ._masked import masked as masked
from ._multi_steps import MultiStepsState as MultiStepsState
from ._multi_steps import has_updated as has_updated
from ._multi_steps import multi_steps as multi_steps
from ._multi_steps import skip_large_updates as skip_large_updates
from ._multi_steps import skip_not_finite as skip_not_finite
from ._partition import PartitionState as PartitionState
from ._partition import partition as partition
from ._partition import selective_transform as selective_transform
