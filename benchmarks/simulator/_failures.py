"""GPUs that fail: how often, how often to save, and what is lost (Young 1974, first order)."""

import math


def hours_between_failures(gpu_hours: float, gpus: int) -> float:
    """Return the mean time between failures of a program that ends with its first GPU."""
    return gpu_hours / gpus


def checkpoint_interval(saving: float, between_failures: float) -> float:
    """Return the interval between checkpoints that loses least, in the unit of its arguments: √(2 · saving · MTBF)."""
    return math.sqrt(2 * saving * between_failures)


def lost_share(saving: float, restart: float, between_failures: float, interval: float) -> float:
    """Return the share of time that is lost: to saving, and at each failure to half an interval and the restart."""
    return saving / interval + (interval / 2 + restart) / between_failures
