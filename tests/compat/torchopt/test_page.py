"""The idioms of docs/from-torchopt.md run, in both columns, with equal results."""

import re
from pathlib import Path

import torch

PAGE = (Path(__file__).parents[3] / "docs" / "from-torchopt.md").read_text(encoding="utf-8")
ROWS = [
    [re.sub(r"^`|`$", "", cell.strip()) for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("|") and "`" in line
]


def test_both_columns_run_and_agree():
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    moved = []
    for column in (1, 2):
        torch.manual_seed(0)
        space = {}
        exec(block, space)
        if column == 1:
            space["params"] = dict(space["net"].named_parameters())
        for row in ROWS:
            if not row[column].startswith("nothing"):
                exec(row[column], space)
        moved.append({name: value.detach() for name, value in space["moved"].items()})
        assert float(space["rate"](50)) == 0.55 and space["chained"].init and space["other"].init
    assert len(ROWS) == 10
    torch.testing.assert_close(*moved)
