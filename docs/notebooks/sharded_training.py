# %% [markdown]
# # Sharded training on two processes
#
# When to use this: a training should run on several processes or devices, each with its part of the rows and of the optimizer's state,
# and should go on later on another number of them.
#
# The program below is written to a file, and `torchrun` starts it twice. It needs no GPU: the two processes share this machine.

# %%
import json
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import torchpure as tp

# %% tags=["parameters"]
steps, rows = 400, 512

# %% [markdown]
# Each process runs all lines and has all arguments. `mesh=` gives it its part of the rows. `device_put` lays out the state of Adam so that
# each process keeps half of it: stage 1 of ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054). All processes together write one checkpoint.

# %%
model = """
import torch
from torch import nn

import torchpure as tp


def problem(rows):
    x = 2 * tp.random.uniform(tp.random.key(0), (rows, 2), dtype=torch.float64) - 1
    layers = nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
    net = tp.functional(nn.Sequential(*layers).double())
    params, _ = net.init(tp.random.key(1))
    return net, params, (x, torch.sin(3 * x[:, :1]) * x[:, 1:]), tp.optim.adam(0.003)
"""
program = """
import json
import sys

import torch.distributed as dist

import torchpure as tp
from model import problem

steps, rows = map(int, sys.argv[1:])
mesh = tp.make_mesh((-1,), ("data",))
net, params, data, optimizer = problem(rows)
state = optimizer.init(params)
state = tp.device_put(state, mesh, tp.parallel.partition_specs(state, mesh, "data"))

options = {"params": params, "optimizer": optimizer, "opt_state": state, "steps": steps}
fitted = tp.fit(net, data, mesh=mesh, checkpoint="two", **options)

whole = sum(leaf.nbytes for leaf in tp.tree.leaves(state))
parts = [leaf.to_local() for leaf in tp.tree.leaves(fitted.opt_state) if hasattr(leaf, "to_local")]
kept = sum(leaf.nbytes for leaf in parts)
rank = dist.get_rank()
with open(f"losses-{rank}.json", "w") as file:
    json.dump(fitted.history.tolist(), file)
sys.stdout.write(f"process {rank}: {rows // mesh.size()} of {rows} rows, {kept:,} of {whole:,} bytes of the state\\n")
dist.destroy_process_group()
"""
folder = Path(tempfile.mkdtemp())
(folder / "model.py").write_text(model)
(folder / "program.py").write_text(program)
torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
done = subprocess.run([*torchrun, "program.py", str(steps), str(rows)], cwd=folder, capture_output=True, text=True)
assert done.returncode == 0, done.stderr
print(*sorted(done.stdout.splitlines()), sep="\n")

# %% [markdown]
# The same training on one process, in this notebook, finds the same losses, up to rounding.

# %%
net, params, data, optimizer = runpy.run_path(str(folder / "model.py"))["problem"](rows)
alone = tp.fit(net, data, params=params, optimizer=optimizer, steps=steps)
first, second = (json.loads((folder / f"losses-{rank}.json").read_text()) for rank in range(2))
difference = float((torch.tensor(first, dtype=torch.float64) - alone.history).abs().max())
print(f"the losses differ by at most {difference:.0e}; both processes have the same: {first == second}")

# %% [markdown]
# One process goes on where the two have stopped. The checkpoint has whole tensors for whoever reads it, in the layout that is asked for.

# %%
longer = tp.fit(net, data, params=params, optimizer=optimizer, steps=2 * steps, checkpoint=folder / "two", resume=True)
print(f"{len(longer.history)} steps, loss {float(longer.history[steps]):.1e} to {float(longer.history[-1]):.1e}")

# %% alt="Two curves of the loss that fall together: that of two processes, and that of one process, which goes on to twice the steps"
figure, axes = plt.subplots(figsize=(6.4, 3.2))
axes.semilogy(longer.history, color="0.7", linewidth=3, label="two processes, then one")
axes.semilogy(alone.history, "--", linewidth=1, label="one process")
axes.axvline(steps, color="0.8", linewidth=1)
axes.set(xlabel="step", ylabel="loss")
axes.legend(fontsize=8)
figure.tight_layout()
