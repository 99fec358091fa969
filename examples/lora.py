"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685): an unmodified network is frozen, small factors are trained.

The base network is first fitted to one function. Then its weights are frozen and each gets a correction B A of rank
two, which alone learns another function: a tenth of the parameters, and the base stays bitwise as it was.
"""

import torch
from torch import nn

import torchpure as tp

RANK = 2


def network() -> nn.Module:
    """Return a network with one input and one output."""
    return nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))


def factors(key, weight):
    """Draw the factors of one weight: A is random and B is zero, so that nothing changes at first."""
    a = tp.random.normal(key, (RANK, weight.shape[1])) / weight.shape[1] ** 0.5
    return {"A": a, "B": torch.zeros(weight.shape[0], RANK)}


def adapted(frozen, lora):
    """Return the base parameters with W + B A in the place of each adapted weight W."""
    return {**frozen, **{name: frozen[name] + pair["B"] @ pair["A"] for name, pair in lora.items()}}


def main() -> tuple[float, float]:
    """Train the base, then the factors; print and return the loss on the second task before and after."""
    x = torch.linspace(-3, 3, 64).unsqueeze(1)
    net = tp.functional(network)
    base = tp.fit(net, (x, torch.sin(x)), optimizer=tp.optim.adam(1e-2), steps=300, key=tp.random.key(0)).params
    before = {name: value.clone() for name, value in base.items()}

    weights, _ = tp.partition(base, ["2.weight", "4.weight"])
    names = [name for name, weight in weights.items() if weight is not None]
    keys = tp.random.split(tp.random.key(1), len(names))
    lora = {name: factors(key, base[name]) for name, key in zip(names, keys, strict=True)}

    def loss(lora):
        return nn.functional.mse_loss(net(adapted(base, lora), x), torch.cos(x))

    optimizer = tp.optim.adamw(1e-2)
    state, first = optimizer.init(lora), loss(lora)
    for _ in range(500):
        _, grads = tp.value_and_grad(loss)(lora)
        lora, state = optimizer.step(grads, state, lora)
    assert all(torch.equal(before[name], value) for name, value in base.items())
    trained, total = (sum(leaf.numel() for leaf in tp.tree.leaves(part)) for part in (lora, base))
    print(f"{trained} of {total} parameters trained: loss {first:.4f} before, {loss(lora):.6f} after")
    return first.item(), loss(lora).item()


if __name__ == "__main__":
    main()
