"""Runs that other numbers of processes go on with, as processes of the tests run them."""

import os

import torch
from sharded_cases import X, Y, full, mesh, network, run_of

import torchpure as tp

OPTIONS = {"optimizer": "adam", "schedule": "constant", "batch_size": "20", "checkpoint_every": "10"}
ADAM = tp.optim.adam(0.05)


def loss(net):
    return lambda params, x, y: ((net(params, x) - y) ** 2).mean()


def fit(steps, **on):
    """Return parameters, state and losses of a fit."""
    fitted = tp.fit(network(), (X, Y), optimizer=ADAM, steps=steps, every=2, **on)
    return full((fitted.params, fitted.opt_state, fitted.history))


def looped(steps, **on):
    """Return those of a loop; its losses are of the last two steps."""
    net = tp.functional(network())
    batches = [(X, Y)] * steps
    *_, last = tp.train.loop(loss(net), net.params, batches, ADAM, every=2, **on)
    return full((last.params, last.opt_state, last.losses))


def split_state(**on):
    """Return the options of a fit whose optimizer state is in parts."""
    state = ADAM.init(tp.functional(network()).params)
    return on | {"opt_state": tp.device_put(state, mesh(), tp.parallel.partition_specs(state, mesh(), "data"))}


TRAIN = {
    "fit": fit,
    "loop": looped,
    "split state": lambda steps, **on: fit(steps, **(split_state(**on) if "mesh" in on else on)),
}


def train(name, steps, folder=None, resume=False):
    """Train on the mesh of all processes."""
    return TRAIN[name](steps, checkpoint=folder, resume=resume, mesh=mesh())


def in_other_layout(folder):
    """Save whole states, and go on with parts."""
    fit(4, checkpoint=folder, mesh=mesh())
    return fit(8, checkpoint=folder, resume=True, **split_state(mesh=mesh()))


def whole_losses():
    """Return whether losses of parameters in parts are plain numbers, and what they are."""
    params = tp.functional(network()).params
    shards = tp.device_put(params, mesh(), tp.parallel.partition_specs(params, mesh(), "data"))
    history = tp.fit(network(), (X, Y), optimizer=ADAM, steps=3, params=shards, mesh=mesh()).history
    return type(history) is torch.Tensor, history


def run_on_mesh(folder):
    run_of("sin(x)", folder, mesh=f"data={mesh().size()}", **OPTIONS)


def resume_run(folder, steps):
    from torchpure.runs import resume

    finished = resume(folder, steps=steps)
    return finished.fit.steps, finished.fit.code


def resume_together(folder, steps):
    os.environ["WORLD_SIZE"] = str(mesh().size())  # as torchrun does
    try:
        return resume_run(folder, steps)
    finally:
        del os.environ["WORLD_SIZE"]


RUN = {
    "train": train, "other layout": in_other_layout, "whole losses": whole_losses,
    "run on mesh": run_on_mesh, "resume run": resume_run, "resume together": resume_together,
}  # fmt: skip
