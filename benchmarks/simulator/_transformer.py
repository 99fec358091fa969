"""A decoder-only transformer: parameters and floating point operations (Kaplan et al. 2020, arXiv:2001.08361)."""

from typing import NamedTuple


class Transformer(NamedTuple):
    """Layers of attention and of a network of two matrices, four times as wide; embeddings are used at both ends."""

    name: str
    layers: int
    width: int
    vocabulary: int
    sequence: int  # tokens


def layer_parameters(model: Transformer) -> int:
    """Return the parameters of a layer: four square matrices of attention, and eight of the network."""
    return 12 * model.width**2


def parameters(model: Transformer) -> int:
    """Return the parameters of layers and of the embedding."""
    return model.layers * layer_parameters(model) + model.vocabulary * model.width


def layer_flops(model: Transformer) -> float:
    """Return the operations of a layer's forward pass over one sequence: matrices, and causal attention."""
    matrices = 2 * layer_parameters(model) * model.sequence
    scores = 2 * 2 * model.sequence**2 * model.width / 2  # half of each square lies in the future
    return matrices + scores


def head_flops(model: Transformer) -> float:
    """Return the operations of the logits of one sequence, forwards."""
    return 2 * model.vocabulary * model.width * model.sequence


def step_flops(model: Transformer, sequences: int) -> float:
    """Return the operations of a step, without those that are done again: a backward pass costs two forward passes."""
    return 3 * sequences * (model.layers * layer_flops(model) + head_flops(model))
