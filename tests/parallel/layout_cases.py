"""Training steps in programs, tensor-parallel plans and meshes with two axes, as processes of the tests run them."""

import torch
from sharded_cases import D, X, Y, full, mesh, network
from torch import nn
from torch.distributed import get_world_size
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import torchpure as tp
from torchpure import P, tree

PAIR = "pair of linear layers"


class Attention(nn.Module):
    def __init__(self, width, num_heads):
        super().__init__()
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)  # a bias of keys has the gradient 0, so rounding decides
        self.size = width // num_heads

    def forward(self, x):
        q, k, v = (
            part(x).unflatten(-1, (-1, self.size)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


MODELS = {  # module, plan, inputs, targets
    PAIR: (network, {"0": ColwiseParallel(), "2": RowwiseParallel()}, X, Y),
    "attention": (
        lambda: Attention(8, 4).double(),
        {"query": ColwiseParallel(), "key": ColwiseParallel(), "value": ColwiseParallel(), "out": RowwiseParallel()},
        *(tp.random.normal(key, (4, 5, 8), dtype=D) for key in tp.random.split(tp.random.key(7), 2)),
    ),
}
OPTIMIZER = tp.optim.chain(tp.optim.clip_by_global_norm(0.1), tp.optim.adam(0.05))


def made(name):
    """Return the functional module of one process; with a hook, as a plan adds them, so that keys mean the same."""
    torch.manual_seed(0)
    module = MODELS[name][0]()
    module.register_forward_hook(lambda *_: None)
    return tp.functional(module)


def planned(name, mesh):
    """Return the functional module whose layers a plan splits."""
    torch.manual_seed(0)
    make, plan, _, _ = MODELS[name]
    return tp.functional(parallelize_module(make(), mesh, plan))


def mean_square(net):
    return lambda params, x, y: ((net(params, x) - y) ** 2).mean()


def step_of(loss, optimizer=OPTIMIZER):
    def step(params, state, x, y):
        value, grads = tp.value_and_grad(loss)(params, x, y)
        return value, grads, *optimizer.step(grads, state, params)

    return step


def plan_steps(name):
    """Return a step of a plan, of a program and of one process, and whether layouts are kept."""
    net, split, rows = made(name), planned(name, tp.make_mesh((-1,), ("model",))), MODELS[name][2:]
    step, state = step_of(mean_square(split)), OPTIMIZER.init(split.params)
    ours, compiled = step(split.params, state, *rows), tp.jit(step)(split.params, state, *rows)
    wanted = step_of(mean_square(net))(net.params, OPTIMIZER.init(net.params), *rows)
    kept = all(ours[2][name].placements == leaf.placements for name, leaf in split.params.items() if is_split(leaf))
    return full(ours), full(compiled), wanted, kept


def is_split(leaf):
    return isinstance(leaf, DTensor)


def mapped(loss, mesh):
    """Return the mean loss over the rows of all processes."""
    specs = (P(), P("data"), P("data"))
    return tp.shard_map(lambda *args: tp.pmean(loss(*args), "data"), mesh, specs, P())


LAYOUTS = {  # whether parameters and rows are DTensors, and whether the state is, and in parts
    "replicated": (True, True, False),
    "state in parts": (False, True, True),
    "all replicated, state in parts": (True, True, True),
}


def programs(layout):
    """Return steps of a program and of one process, and whether layouts are kept."""
    params_put, state_put, in_parts = LAYOUTS[layout]
    on, net = mesh(), made(PAIR)
    params = tp.device_put(net.params, on) if params_put else net.params
    rows = tp.device_put((X, Y), on, P("data")) if params_put else (X, Y)
    state = OPTIMIZER.init(net.params)
    if state_put:
        state = tp.device_put(state, on, tp.parallel.partition_specs(state, on, "data") if in_parts else P())
    wanted = step_of(mean_square(net))(net.params, OPTIMIZER.init(net.params), X, Y)
    step = tp.jit(step_of(mapped(mean_square(net), on)))
    ours = step(params, state, *rows)
    kept = [str(leaf) for leaf in placements((params, state))] == [str(leaf) for leaf in placements(ours[2:])]
    return full(ours), wanted, kept


def placements(values):
    return [leaf.placements if is_split(leaf) else None for leaf in tree.leaves(values)]


def compiled_parts():
    """Return the gradient of a program inside of `shard_map`, that of one process, and how often it was traced."""
    on, net, traced = mesh(), made(PAIR), []

    def local(params, x, y):
        traced.append(1)
        return tp.pmean(tp.value_and_grad(mean_square(net))(params, x, y), "data")

    shards = tp.device_put(net.params, on, tp.parallel.partition_specs(net.params, on, "data"))
    both = tp.shard_map(tp.jit(local), on, (P(), P("data"), P("data")), P())
    ours = [both(shards, X, Y) for _ in range(2)]
    return full(ours[1]), tp.value_and_grad(mean_square(net))(net.params, X, Y), len(traced)


def refused(how):
    """Use DTensors where they cannot be."""
    shards = tp.device_put({"w": X}, mesh(), P("data"))
    calls = {
        "captured": lambda: tp.jit(lambda x: shards["w"] * 2 + x)(X),
        "in shard_map": lambda: tp.jit(lambda x: tp.shard_map(torch.sin, mesh(), P("data"), P("data"))(shards["w"]))(X),
        "made": lambda: tp.jit(lambda x: tp.device_put(x, mesh(), P("data")) * 2)(X),
        "lower": lambda: tp.jit(torch.sin).lower(shards["w"]),
        "other mesh": lambda: tp.device_put(shards, tp.make_mesh((1, -1), ("data", "model")), P("model")),
    }
    return calls[how]()


def two_axes():
    return tp.make_mesh((get_world_size() // 2, 2), ("data", "model"))


def fit_of(net, name, **on):
    *_, x, y = MODELS[name]
    found = tp.fit(net, (x, y), optimizer=OPTIMIZER, steps=4, batch_size=len(x) // 2, key=tp.random.key(5), **on)
    return full((found.params, found.opt_state, found.history))


FITS_OF_TWO_AXES = {
    "whole parameters": lambda name, **on: fit_of(made(name), name, mesh=two_axes(), **on),
    "a plan": lambda name, **on: fit_of(planned(name, two_axes()["model"]), name, mesh=two_axes(), **on),
}


def two_axis_fit(how, name, accumulate):
    return FITS_OF_TWO_AXES[how](name, accumulate=accumulate), fit_of(made(name), name, accumulate=accumulate)


SPECS = {"0.weight": P("model"), "0.bias": P("model"), "2.weight": P(None, "model"), "2.bias": P()}


def two_axis_step():
    """Return a step of which torch splits the rows and the layers, and that of one process."""
    net, on = made(PAIR), two_axes()
    step = step_of(mean_square(net))
    params = tp.device_put(net.params, on, SPECS)
    ours = step(params, OPTIMIZER.init(params), *tp.device_put((X, Y), on, P("data")))
    wanted = step(net.params, OPTIMIZER.init(net.params), X, Y)
    return full(ours), wanted, placements(params) == placements(ours[2])


RUN = {
    "plan": plan_steps, "programs": programs, "compiled parts": compiled_parts, "refused": refused,
    "two axes": two_axis_fit, "step of two axes": two_axis_step,
}  # fmt: skip
