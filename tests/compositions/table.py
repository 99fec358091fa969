"""Writes docs/operators.md: what every operator of torch's database gives in each composition, ours and torch.func's."""

import logging
import multiprocessing
import sys
from collections import Counter, defaultdict
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from operator_database import COMPOSITIONS, GRAPHS, JIT, WORDS, operators, outcome, problems, word

TARGET = Path(__file__).parents[2] / "docs" / "operators.md"
HEAD = """# Operators in compositions of transforms

Each operator of torch's own database (`torch.testing._internal.common_methods_invocations.op_db`) that has a derivative
in float64 draws nothing and writes to no argument, on up to three of its samples. `make operators` writes this page; `make proof` fails
if a word is `wrong`, and the tests of every day run a part of it.

- `right`: equal to finite differences (first and second derivatives), or to a loop over members
- `as torch`: finite differences disagree and torch's plain autograd says the same: a subgradient, or a convention
- `kink`: finite differences have no limit there
- `refused`: an error, which names the operation and the way out
- `wrong`: a number that none of these has

`jit of each` is one compiled program of all compositions that can be traced, on the first sample, against their uncompiled values.
"""


def examine(name: str) -> tuple[str, dict[str, str], dict[str, str], dict[str, str]]:
    """Return the words for an operator, ours and torch.func's, and why something was refused."""
    torch.set_num_threads(1)
    logging.disable(logging.ERROR)
    found = list(problems(operators()[name]))
    ours, theirs, why = {}, {}, {}
    for composition in COMPOSITIONS if found else []:
        outcomes = [outcome(problem, composition) for problem in found]
        ours[composition] = word(outcomes)
        why[composition] = next((text for text in outcomes if text.startswith("refused")), "")
        if composition not in GRAPHS:
            theirs[composition] = word([outcome(problem, composition, torch.func) for problem in found])
    if found:  # one sample, since all compositions are compiled for it
        why[JIT] = outcome(found[0], JIT)
        ours[JIT] = word([why[JIT]])
    return name, ours, theirs, why


def main() -> None:
    """Examine all operators and write the page."""
    names = sorted(operators())
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        rows = pool.map(examine, names, chunksize=8)
    examined = [row for row in rows if row[1]]
    lines = [HEAD, f"{len(examined)} operators. Numbers are operators; in brackets those of torch.func.\n"]
    lines += ["| composition | " + " | ".join(WORDS) + " |", "|---" * (len(WORDS) + 1) + "|"]
    for composition in (*COMPOSITIONS, JIT):
        counts = Counter(ours[composition] for _, ours, _, _ in examined)
        others = Counter(theirs[composition] for _, _, theirs, _ in examined if composition in theirs)
        cells = [f"{counts[w]}" + (f" ({others[w]})" if others else "") for w in WORDS]
        lines.append(f"| {composition} | " + " | ".join(cells) + " |")
    lines += ["\n## Wrong in torch.func, and not here\n"]
    for name, ours, theirs, _ in examined:
        bad = [f"{c} ({ours[c]} here)" for c in theirs if theirs[c] == "wrong"]
        lines += [f"- `{name}`: {', '.join(bad)}"] if bad else []
    lines += ["\n## Works here, an error in torch.func\n"]
    for name, ours, theirs, _ in examined:
        better = [c for c in theirs if theirs[c] == "refused" and ours[c] != "refused"]
        lines += [f"- `{name}`: {', '.join(better)}"] if better else []
    lines += ["\n## Refused\n"]
    reasons = defaultdict(list)
    for name, ours, _, _ in examined:
        refused = tuple(c for c in (*COMPOSITIONS, JIT) if ours[c] == "refused")
        reasons[refused].append(name)
    for refused, named in sorted(reasons.items(), key=lambda item: (len(item[0]), item[0])):
        lines += [f"- {', '.join(refused)}: " + ", ".join(f"`{name}`" for name in named)] if refused else []
    TARGET.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
