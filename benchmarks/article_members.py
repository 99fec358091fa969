"""1,024 members of the article's run at once, each with a key and a learning rate of its own."""

from ._members import JAX, compare

THREADS = 2


def main() -> None:
    """Compare with JAX."""
    compare("article members", {JAX: 0.25}, members=1024, neurons=5, learning_rate=1e-2, runs=2)
