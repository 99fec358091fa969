"""A smoke test of an installed wheel: it needs nothing but the wheel and what that declares.

Run it with the Python of the environment, in an empty folder: python -I …/tests/release/smoke.py
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

import torchpure as tp
from torchpure.cli import main

PLACE = Path(tp.__file__).resolve()
X = torch.linspace(0, 6, 40)[:, None]


def check_functions() -> None:
    """Differentiate, map and compile an ordinary module; save its parameters and read them back."""
    net = tp.functional(nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)))
    params, _ = net.init(tp.random.key(0))

    def loss(params: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return (net(params, x) - x.sin()).pow(2).mean()

    eager = tp.vmap(tp.grad(loss), in_dims=(None, 0))(params, X)
    compiled = tp.jit(tp.vmap(tp.grad(loss), in_dims=(None, 0)))(params, X)
    tp.testing.assert_trees_close(eager, compiled, rtol=1e-4, atol=1e-5)
    result = tp.fit(net, (X, X.sin()), optimizer=tp.optim.adam(1e-2), steps=300)
    assert result.history[-1] < result.history[0] / 2, "a fit does not learn"
    tp.save("model", result.params)
    assert torch.equal(tp.restore("model", result.params)["0.weight"], result.params["0.weight"])


def check_commands() -> None:
    """Fit each kind of file, and ask for the run in each way."""
    import pyarrow as pa
    from pyarrow import feather, parquet

    Path("runs").mkdir(exist_ok=True)
    columns = {"x": np.linspace(0, 1, 30), "city": np.array(["Oslo", "Rome", "Kyiv"] * 10), "y": np.linspace(0, 2, 30)}
    table = pa.table(columns)
    Path("data.csv").write_text(
        "x,city,y\n" + "".join(f"{x},{c},{y}\n" for x, c, y in zip(*columns.values(), strict=True))
    )
    parquet.write_table(table, "data.parquet")
    feather.write_feather(table, "data.arrow", compression="uncompressed")
    np.savez("data.npz", x=columns["x"], y=columns["y"])
    short = ["--steps", "20", "--hidden", "4"]
    for file in ("data.csv", "data.parquet", "data.arrow", "data.npz"):
        assert main(["fit", file, "--target", "y", "--out", f"runs/{file[5:]}", *short]) == 0, file
    assert main(["sweep", "sin(x)", "--vary", "lr=1e-3:1e-1:log:3", "--out", "runs/sweep", *short]) == 0
    assert main(["predict", "runs/csv", "--input", "data.csv", "--output", "predicted.csv"]) == 0
    for words in (["ls"], ["info", "runs/csv"], ["info", "runs/sweep"], ["--version"]):
        assert main(words) == 0, words
    assert main(["fit", "sin(x)", "--steps", "many"]) == 2, "a wrong option is an error of one line"


if __name__ == "__main__":
    assert Path(sys.prefix).resolve() in PLACE.parents, f"this is not the wheel of the environment: {PLACE}"
    check_functions()
    check_commands()
    tp.show_versions()
