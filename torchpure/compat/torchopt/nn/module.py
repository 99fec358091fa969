"""Modules with meta-parameters."""

from torchpure.compat.torchopt.modules import MetaGradientModule, MetaInputsContainer

__all__ = ["MetaGradientModule", "MetaInputsContainer"]
