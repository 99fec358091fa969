"""100 members of a network with two hidden layers of 64 in one program, each with its own key and learning rate."""

import torch

from ._members import JAX, compare

THREADS = (2, 1)


def main() -> None:
    """Compare with JAX. On one thread there is no bar."""
    two = torch.get_num_threads() == 2
    figure, bars = ("wide members", {JAX: 0.9}) if two else ("wide members, one thread", {})
    compare(figure, bars, members=100, neurons=64, learning_rate=1e-3, runs=2)
