"""Choose results that take the memory of donated inputs.

Law: a program computes the same, whether a result takes the memory of an input or has its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torchpure.jit.native.ir import View

from ._inplace_carry import Accesses, can_overwrite


def choose_donated(inputs: Mapping[int, View], outputs: Mapping[int, View], items: Sequence[Any]) -> dict[int, int]:
    """Return result -> input, for as many results as possible. All are dense.

    A result may take the memory of an input of its shape, strides and dtype, if nothing reads that input later.
    """
    accesses = Accesses(items)
    possible = {
        output: [
            at
            for at, old in inputs.items()
            if (old.dtype, old.shape, old.strides) == (new.dtype, new.shape, new.strides)
            and can_overwrite(old.buffer, new.buffer, accesses)
        ]
        for output, new in outputs.items()
    }
    chosen: dict[int, int] = {}  # input -> output
    for output in possible:
        _match(output, possible, chosen, set())
    return {output: at for at, output in chosen.items()}


def _match(output: int, possible: Mapping[int, Sequence[int]], chosen: dict[int, int], tried: set[int]) -> bool:
    """Find an input for an output. Outputs that were matched before may change to another input (Kuhn 1955)."""
    for at in possible[output]:
        if at not in tried:
            tried.add(at)
            if at not in chosen or _match(chosen[at], possible, chosen, tried):
                chosen[at] = output
                return True
    return False
