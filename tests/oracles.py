"""Run the optimizers of optax and torch on the problems of the tests."""

import __future__

import ast
from functools import cache
from pathlib import Path
from typing import Any

import torch

from torchpure import optim

# optax runs on the rows of `noise`, so that no gradient vanishes and no sign depends on rounding
STIFFNESS, TARGET = (1.0, 0.5, 2.0, 0.8, 1.5), 0.2
START = (0.9, -0.7, 1.1, -0.4, 0.5)


def noise(steps):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(steps, 5, generator=generator, dtype=torch.float64)


def run_ours(optimizer, noises):
    stiffness = torch.tensor(STIFFNESS, dtype=torch.float64)
    flat = torch.tensor(START, dtype=torch.float64)
    params = {"w": flat[:4].reshape(2, 2), "b": flat[4:]}
    state = optimizer.init(params)
    for row in noises:
        x = torch.cat([params["w"].reshape(-1), params["b"]])
        gradient = stiffness * (x - TARGET) + row
        value = 0.5 * (stiffness * (x - TARGET).square()).sum() + row @ x
        grads = {"w": gradient[:4].reshape(2, 2), "b": gradient[4:]}
        params, state = optimizer.step(grads, state, params, value=value, grad=grads, value_fn=None)
    return torch.cat([params["w"].reshape(-1), params["b"]])


def run_optax(make, noises):
    import jax
    import jax.numpy as jnp
    import optax

    with jax.enable_x64(True):
        stiffness, flat = jnp.array(STIFFNESS), jnp.array(START)
        params = {"w": flat[:4].reshape(2, 2), "b": flat[4:]}
        transformation = optax.with_extra_args_support(make())

        def body(carry, row):
            params, state = carry
            x = jnp.concatenate([params["w"].reshape(-1), params["b"]])
            gradient = stiffness * (x - TARGET) + row
            value = 0.5 * (stiffness * (x - TARGET) ** 2).sum() + row @ x
            grads = {"w": gradient[:4].reshape(2, 2), "b": gradient[4:]}
            updates, state = transformation.update(grads, state, params, value=value, grad=grads)
            return (optax.apply_updates(params, updates), state), None

        carry = (params, transformation.init(params))
        (params, _), _ = jax.jit(lambda c, rows: jax.lax.scan(body, c, rows))(carry, jnp.asarray(noises.numpy()))
        return torch.tensor([float(v) for v in [*params["w"].reshape(-1), *params["b"]]], dtype=torch.float64)


def optax_maker(name, case):
    """Return a function that makes the case's oracle."""
    if callable(case.optax):
        return case.optax
    import optax

    theirs = getattr(optax, case.optax, None) or getattr(optax.contrib, case.optax)
    return lambda: theirs(case.learning_rate, **case.hyper, **case.options)


@cache
def _torch_tables():
    """Read torch's lists of inputs from its tests' source: an import changes global settings and needs expecttest."""
    path = Path(torch.__file__).parent / "testing/_internal/common_optimizers.py"
    wanted = ("optim_inputs_func_", "OptimizerInput", "_get_device_type")
    kept = [node for node in ast.parse(path.read_text()).body if getattr(node, "name", "").startswith(wanted)]
    space: dict[str, Any] = {
        "torch": torch,
        "Tensor": torch.Tensor,
        "Parameter": torch.nn.Parameter,
        "Any": Any,
        "CUDA_CONFIG_GPUS": [],
    }
    exec(compile(ast.Module(kept, []), str(path), "exec", flags=__future__.annotations.compiler_flag), space)
    return space


def torch_inputs(theirs):
    """Return the arguments that torch's own tests use for this class, by description."""
    inputs = _torch_tables()[f"optim_inputs_func_{theirs.__name__.lower()}"](device="cpu")
    flags = ("foreach", "fused", "capturable")
    cleaned = {one.desc: {key: value for key, value in one.kwargs.items() if key not in flags} for one in inputs}
    return {desc: kwargs for desc, kwargs in cleaned.items() if not isinstance(kwargs.get("lr"), torch.Tensor)}


def ours_for(theirs, make, kwargs):
    """Make our optimizer for torch's arguments; None if we have none.

    If the factory takes no weight_decay, the penalty is added before it; `maximize` first negates the gradients.
    """
    kwargs = dict(kwargs)
    maximize = kwargs.pop("maximize", False)
    kwargs.pop("differentiable", None)
    before: list[optim.Optimizer[Any]] = [optim.scale(-1.0)] if maximize else []
    names = make.__code__.co_varnames[: make.__code__.co_argcount]
    if "weight_decay" not in names and "weight_decay" in kwargs:
        before.append(optim.add_decayed_weights(kwargs.pop("weight_decay")))
    if set(kwargs) - set(names):
        return None
    optimizer = make(**kwargs)
    return optimizer if optimizer is None else optim.chain(*before, optimizer)


def run_torch(theirs, kwargs, noises):
    stiffness = torch.tensor(STIFFNESS, dtype=torch.float64)
    flat = torch.tensor(START, dtype=torch.float64)
    w, b = (torch.nn.Parameter(part.clone()) for part in (flat[:4].reshape(2, 2), flat[4:]))
    optimizer = theirs([w, b], **kwargs)
    for row in noises:
        x = torch.cat([w.detach().reshape(-1), b.detach()])
        gradient = stiffness * (x - TARGET) + row
        w.grad, b.grad = gradient[:4].reshape(2, 2).clone(), gradient[4:].clone()
        optimizer.step()
    return torch.cat([w.detach().reshape(-1), b.detach()])
