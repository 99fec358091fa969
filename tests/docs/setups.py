"""What the reader of a page has at hand before its first block, for pages whose blocks use names of the reader's."""

IMPORTS = """
from pathlib import Path

import torch
from torch import nn

import torchpure as tp
"""

TRAINING = f"""{IMPORTS}
folder = Path(".").absolute()
net = tp.functional(nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)))
params, _ = net.init(tp.random.key(0))
x = torch.linspace(0, 6, 40)[:, None]
y = x.sin()
loss = lambda params, x, y: nn.functional.mse_loss(net(params, x), y)
batches = [(x, y)] * 3
cities = ["Oslo", "Rome"]
rows = [f"{{cities[i % 2]}},Elm Road,{{50 + i}}.5,true,19{{70 + i}}-05-01,{{300 + 7 * i}}.25,small" for i in range(20)]
Path("houses.csv").write_text("\\n".join(["city,street,area,garden,built,price,kind", *rows]) + "\\n")
nets = {{width: tp.functional(nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1))) for width in (8, 16)}}
for name in ("first", "second"):
    tp.runs.run(tp.runs.configure({{"target": "sin(x)", "steps": 10, "hidden": "4"}}), Path(name))
Path("points.csv").write_text("x\\n0.5\\n1.5\\n")
"""

SETUPS = {
    "training.md": TRAINING,
    "optimizers.md": f"{IMPORTS}\nparams = {{'w': torch.ones(2)}}\ngrads = {{'w': torch.ones(2)}}",
    "transforms.md": f"{IMPORTS}\nf = lambda x, params: (params * x).sin()\nx, params = torch.ones(3), torch.tensor(2.0)",
    "jit.md": f"""{IMPORTS}
x = torch.ones(3)
step = lambda params, state: (params + 1, state + params)
params, state = torch.ones(3), torch.ones(3)
train = lambda params, rate=1.0: tp.scan(lambda c, _: (c - rate * c, c.sum()), params, length=4)[1]
keys, learning_rates = torch.ones(5, 3), torch.linspace(0, 1, 5)
""",
    "architecture.md": f"""{IMPORTS}
loss = lambda params, x: (params["w"] * x).sin().sum()
params = {{"w": torch.ones(3), "scale": torch.tensor(2.0)}}
f = lambda params, x: params["w"] * x
xs, init = torch.ones(4), torch.zeros(3)
step = lambda carry, x: (carry + x, carry)
u = lambda point: point.sin().prod()
points = torch.ones(5, 2)
net, y = nn.Linear(1, 1), torch.ones(3, 1)
x = torch.ones(3, 1)
Path("runs").mkdir()
""",
}
