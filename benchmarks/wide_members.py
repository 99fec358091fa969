"""100 members of a network with two hidden layers of 64 at once, each with a key and a learning rate of its own."""

import torch

from ._members import JAX, compare

THREADS = (2, 1)


def main() -> None:
    """Compare with JAX; on one thread for information only."""
    two = torch.get_num_threads() == 2
    figure, bars = ("wide members", {JAX: 0.9}) if two else ("wide members, one thread", {})
    compare(figure, bars, members=100, neurons=64, learning_rate=1e-3, runs=2)
