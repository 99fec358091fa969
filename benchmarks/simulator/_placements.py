"""Where parameters, gradients, moments and activations lie, and how many bytes that takes on a GPU.

ZeRO: Rajbhandari et al. 2020, arXiv:1910.02054, section 5. Tensor parallelism: Shoeybi et al. 2019, arXiv:1909.08053.
Activations: Korthikanti et al. 2022, arXiv:2205.05198, equation 2, without the square of the sequence: attention keeps
no scores.
"""

from typing import NamedTuple

from ._transformer import Transformer, layer_parameters, parameters

PARAMETER, GRADIENT, OPTIMIZER = 2, 2, 12  # bytes: bfloat16 twice; a float32 copy and the two moments of Adam


class Placement(NamedTuple):
    """How a model and its batch are divided."""

    data: int  # groups that each take a part of the batch
    tensor: int = 1  # GPUs that divide each layer
    zero: int = 0  # 0: all replicated; 1: moments are divided over `data`; 2: gradients too; 3: parameters too
    remat: bool = False  # activations are computed again in the backward pass

    @property
    def gpus(self) -> int:
        """The GPUs of all groups."""
        return self.data * self.tensor


def shard_bytes(count: int, parts: int, part: int) -> int:
    """Return how many of `count` entries lie in a part. Law: they sum to `count`, and differ by at most one."""
    return count * (part + 1) // parts - count * part // parts


def state_bytes(model: Transformer, placement: Placement, rank: int) -> int:
    """Return the bytes of parameters, gradients and optimizer on a GPU.

    Law: with `zero=3` they sum over all GPUs to those of one GPU that has everything.
    """
    data, tensor = divmod(rank, placement.tensor)
    own = shard_bytes(parameters(model), placement.tensor, tensor)
    shard = shard_bytes(own, placement.data, data)
    kinds = ((OPTIMIZER, 1), (GRADIENT, 2), (PARAMETER, 3))
    return sum(each * (shard if placement.zero >= level else own) for each, level in kinds)


def activation_bytes(model: Transformer, placement: Placement) -> float:
    """Return the bytes that the backward pass of one sequence needs, in bfloat16."""
    whole = model.sequence * model.width * (10 + 24 / placement.tensor)  # of a layer
    entries = 2 * model.sequence * model.width
    layers = model.layers * entries + whole if placement.remat else model.layers * whole
    logits = 6 * model.sequence * model.vocabulary / placement.tensor  # float32, and their gradient in bfloat16
    return layers + logits


def gathered_bytes(model: Transformer, placement: Placement) -> float:
    """Return the bytes of the layers that ZeRO-3 has gathered at once: the one that runs, and the next one."""
    return 2 * PARAMETER * layer_parameters(model) / placement.tensor if placement.zero == 3 else 0.0


def memory(model: Transformer, placement: Placement) -> float:
    """Return the bytes of the fullest GPU, with one sequence at a time."""
    ranks = range(placement.gpus - placement.tensor, placement.gpus)
    states = max(state_bytes(model, placement, rank) for rank in ranks)
    return states + gathered_bytes(model, placement) + activation_bytes(model, placement)
