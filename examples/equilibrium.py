"""A deep equilibrium layer (Bai, Kolter, Koltun 2019, arXiv:1909.01377): z = tanh(W z + U x + b), for ever deep.

The forward pass iterates until z stays. The backward pass solves one linear system at the fixed point, by GMRES. No
iteration is stored.
"""

import torch
from torch.nn import functional as F

import torchpure as tp

WIDTH, POINTS = 16, 64


def layer(z, params, x):
    """Map the state once; W is scaled so that the map contracts."""
    weight = 0.9 * params["W"] / params["W"].norm().clamp_min(1.0)
    return torch.tanh(z @ weight.T + x @ params["U"].T + params["b"])


@tp.custom_fixed_point(layer, solve=tp.implicit.solve_gmres)
def equilibrium(start, params, x):
    """Iterate until the state stays."""

    def unfinished(carry):
        z, before, count = carry
        return ((z - before).abs().max() > 1e-6) & (count < 200)

    first = (layer(start, params, x), start, torch.tensor(1))
    return tp.while_loop(unfinished, lambda carry: (layer(carry[0], params, x), carry[0], carry[2] + 1), first)[0]


def network(params, x):
    """Map points of shape (1,) to values of shape (1,)."""
    return params["out"] @ equilibrium(torch.zeros(WIDTH), params, x)


def main(steps=300):
    """Train the layer on a sine; print and return the mean square error before and after."""
    keys = tp.random.split(tp.random.key(0), 3)
    params = {
        "W": tp.random.normal(keys[0], (WIDTH, WIDTH)) / WIDTH**0.5,
        "U": tp.random.normal(keys[1], (WIDTH, 1)),
        "b": torch.zeros(WIDTH),
        "out": tp.random.normal(keys[2], (1, WIDTH)) / WIDTH**0.5,
    }
    x = torch.linspace(-3, 3, POINTS)[:, None]
    loss = lambda params: F.mse_loss(tp.vmap(lambda x: network(params, x))(x), torch.sin(2 * x))  # noqa: E731
    optimizer = tp.optim.adam(1e-2)

    @tp.jit
    def step(params, state):
        value, grads = tp.value_and_grad(loss)(params)
        return *optimizer.step(grads, state, params), value

    before, state = loss(params), optimizer.init(params)
    for _ in range(steps):
        params, state, value = step(params, state)
    print(f"mean square error {before:.4f} before, {value:.4f} after")
    return before.item(), value.item()


if __name__ == "__main__":
    main()
