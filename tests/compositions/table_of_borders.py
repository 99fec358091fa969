"""Writes docs/borders.md: derivatives at the borders of formulas, ours and torch.func's."""

import logging
import multiprocessing
import sys
from collections import Counter, defaultdict
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from borders import JIT, WORDS, borders, outcome

TARGET = Path(__file__).parents[2] / "docs" / "borders.md"
COLUMNS = ("right", "refused", "wrong")
HEAD = """# Derivatives at the borders of formulas

A formula can be right at almost every point, and wrong at zeros, at ties, at singular matrices or far out. Each function is taken along
lines through such points. Its first three derivatives are compared with references of sixty digits (mpmath), or with a convention
of torch where there is no derivative (a kink, a norm at zero). `make borders` writes this page; `make proof` fails if a number is wrong, and
the tests of every day run a part of it.

Each derivative is taken in each way: r is `grad`, f is `jvp`, m is `vmap(grad)`, j is `jacfwd`, l is `linearize`; `rf` is `grad` of `jvp`.
The last column is one compiled program of eleven of them, on the first line. Numbers are derivatives; in brackets those of torch.func.
"""


def examine(number: int) -> tuple[str, Counter[str], Counter[str], str]:
    """Return the function of a problem, the words for its derivatives, ours and torch.func's, and that of its program."""
    torch.set_num_threads(1)
    logging.disable(logging.ERROR)
    border = borders()[number]
    ours, theirs = (
        Counter(outcome(border, word, lib=lib).partition(":")[0] for word in WORDS) for lib in (_ours(), torch.func)
    )
    first = next(i for i, other in enumerate(borders()) if other.function == border.function)
    return border.function, ours, theirs, outcome(border, JIT).partition(":")[0] if number == first else ""


def _ours() -> object:
    import torchpure as tp

    return tp


def main() -> None:
    """Examine all problems and write the page."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        rows = pool.map(examine, range(len(borders())), chunksize=8)
    ours, theirs, programs, counts = defaultdict(Counter), defaultdict(Counter), defaultdict(str), Counter()
    for function, mine, other, program in rows:
        ours[function] += mine
        theirs[function] += other
        programs[function] = programs[function] or program
        counts[function] += 1
    lines = [HEAD, f"{len(rows)} lines through borders of {len(ours)} functions, {len(WORDS)} derivatives each.\n"]
    lines += ["| function | lines | " + " | ".join(COLUMNS) + " | compiled |", "|---" * (len(COLUMNS) + 3) + "|"]
    for function in sorted(ours):
        cells = [f"{ours[function][word]} ({theirs[function][word]})" for word in COLUMNS]
        lines.append(f"| `{function}` | {counts[function]} | " + " | ".join(cells) + f" | {programs[function]} |")
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
