"""Constants of a linear model from measurements: least squares of relative errors, with constants of at least zero."""

from collections.abc import Sequence
from itertools import combinations

import torch


def fit_nonnegative(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Return the constants c ≥ 0 that minimise the sum of ((rows · c - values) / values)².

    All subsets of the constants are tried, so there may be only a few. The best one solves the problem of Lawson and
    Hanson (1974) without an iteration.

    Raises:
        ValueError: there are fewer rows than constants, or a value that is not positive.
    """
    count = len(rows[0]) if rows else 0
    if len(rows) < count or len(rows) != len(values) or not rows or min(values) <= 0:
        raise ValueError(
            f"fit_nonnegative: wanted at least as many rows as constants, and a positive value for each row; got "
            f"{len(rows)} rows, {count} constants, values {list(values)}"
        )
    target = torch.tensor(values, dtype=torch.float64)
    matrix = torch.tensor(rows, dtype=torch.float64) / target[:, None]
    scales = matrix.abs().amax(0)
    used = [column for column in range(count) if scales[column] > 0]
    best, least = torch.zeros(count, dtype=torch.float64), float(len(rows))
    for number in range(1, len(used) + 1):
        for chosen in combinations(used, number):
            part = matrix[:, list(chosen)] / scales[list(chosen)]
            found = torch.linalg.lstsq(part, torch.ones(len(rows), 1, dtype=torch.float64), driver="gelsd").solution
            error = float(((part @ found - 1) ** 2).sum())
            if float(found.min()) >= 0 and error < least - 1e-12:
                best, least = torch.zeros_like(best), error
                best[list(chosen)] = found[:, 0] / scales[list(chosen)]
    return best.tolist()
