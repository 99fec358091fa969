"""What processes save and restore together: trees of DTensors, in every layout."""

import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Partial, Shard

import torchpure as tp
from torchpure.checkpoints import _plan
from torchpure.checkpoints._dtypes import STORED
from torchpure.train._resume import open_store

NUMBERS = torch.arange(32, dtype=torch.float64).reshape(8, 4)
LAYOUTS = {"rows": tp.P("data"), "columns": tp.P(None, "data"), "replicated": tp.P()}


def mesh(timeout=None):
    return tp.make_mesh((-1,), ("data",), timeout=timeout)


def values():
    """Return the global tensors that all cases save, by name."""
    bits = (torch.arange(48) % 2).to(torch.uint8)
    kinds = {f"kind {name}": bits.view(one.dtype) for name, one in STORED.items()}
    return {**dict.fromkeys(LAYOUTS, NUMBERS), "uneven": torch.arange(5.0), "empty": torch.zeros(0, 4), **kinds}


def put(name, value, layout=None):
    """Lay out a tensor as its name says, or in another layout; gloo itself cannot send all dtypes."""
    if name in LAYOUTS:
        return tp.device_put(value, mesh(), LAYOUTS[layout or name])
    rank, chunk = dist.get_rank(), -(-len(value) // dist.get_world_size())
    part = value[rank * chunk : (rank + 1) * chunk].clone()
    return DTensor.from_local(part, mesh(), [Shard(0)], shape=value.shape, stride=value.stride(), run_check=False)


def tree(layout=None):
    found = {name: put(name, value, layout) for name, value in values().items()}
    return {**found, "plain": NUMBERS + 1, "step": 3, "state": [tp.random.key(0), None]}


def differences(found, wanted):
    """Return the names of the leaves that differ in placements, strides or values of this process."""
    names = []
    for name, value in values().items():
        got, like = found[name], wanted[name]
        same = type(got) is type(like) and got.dtype == like.dtype and got.shape == like.shape == value.shape
        if same and isinstance(like, DTensor):
            same = got.placements == like.placements and got.stride() == like.stride()
            got, like = got.to_local(), like.to_local()
        if not same or not torch.equal(got.view(torch.uint8), like.view(torch.uint8)):
            names.append(name)
    return names + [
        name for name in ("plain", "step") if not torch.equal(*map(torch.as_tensor, (found[name], wanted[name])))
    ]


def saved(path):
    tp.save(path, tree(), metadata={"from": dist.get_world_size()})


def restored(path):
    """Restore in the layout of the save and in others; return what differs."""
    likes = [tree(), *[tree(layout) for layout in LAYOUTS], {**tree(), **values()}]
    wrong = [differences(tp.restore(path, like=like), like) for like in likes]
    some = tp.restore(path, like={**tree(), "plain": 0}, only="r*", dtype=torch.float32)
    kept = [name for name in ("rows", "replicated") if some[name].dtype != torch.float32 or some["plain"] != 0]
    return sum(wrong, kept)


def of_step(step):
    """Make a tree whose every number is the step."""
    full = torch.full((64, 8), float(step))
    found = {name: tp.device_put(full, mesh(), spec) for name, spec in LAYOUTS.items()}
    return {**found, "n": torch.full((), step), "step": step}


def is_whole(found, step):
    return found["step"] == step == int(found["n"]) and all(bool((found[name] == step).all()) for name in LAYOUTS)


def run_of_steps(folder, asynchronous):
    with tp.train.Checkpointer(folder, keep=2, best=("loss", "min"), asynchronous=asynchronous) as run:
        for step in range(1, 6):
            run.save(step, of_step(step), {"loss": abs(step - 2)})
        found = run.restore(like=of_step(0))
        return run.steps(), run.best_step(), found["step"], bool((found["rows"].to_local() == 5).all())


def carried(step):
    return {"w": tp.device_put(torch.full((8, 4), float(step)), mesh(), tp.P("data"))}, (), {}


def run_of_store(folder):
    """Note positions as `fit` does; the processes disagree on whether a save is too soon, and still save together."""
    found = []
    for first in (0, 4):
        with open_store("fit", folder, first > 0, lambda: {"steps": 9}) as store:
            position = store.start(carried(0))
            found.append((position.step, bool((position.carry[0]["w"].to_local() == position.step).all())))
            for step in range(first + 1, first + 5):
                if last():
                    store._saved_at = time.monotonic() + step % 2 * 100.0
                store.note(step, carried(step), [torch.ones(1)])
    return found


def save_forever(folder, reports, asynchronous):
    """Save until a process is killed; each writes the steps that it knows to be committed."""
    _plan._LEAST_FILE = 1 << 10  # bytes, so that a process has several files
    run = tp.train.Checkpointer(folder, keep=2, asynchronous=asynchronous)
    with Path(f"{reports}-{dist.get_rank()}").open("a") as file:
        step = run.latest() or 0
        while True:
            step += 1
            run.save(step, of_step(step))
            run.wait()
            file.write(f"{step}\n")
            file.flush()


def last():
    return dist.get_rank() == dist.get_world_size() - 1


def dies_in_a_save(path):
    on_mesh = mesh(timeout=5.0)
    value = {"w": tp.device_put(NUMBERS[:6], on_mesh, tp.P())}
    if last():
        from torchpure.checkpoints import _write

        _write.write_tensors = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
    value["v"] = tp.device_put(NUMBERS[:6], on_mesh, tp.P("data"))
    tp.save(path, value)


def save_in_run(asynchronous):
    def save(path):
        with tp.train.Checkpointer(path, asynchronous=asynchronous) as run:
            run.save(1, of_step(1))

    return save


def save_failing(path, save=lambda path: tp.save(path, tree())):
    """The last process cannot write its file."""
    from torchpure.checkpoints import _write

    original = _write.write_tensors
    if last():
        _write.write_tensors = lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    try:
        save(path)
    finally:
        _write.write_tensors = original


def second_run(folder):
    mesh()
    tp.train.Checkpointer(folder).save(1, of_step(1))


def save_step_of_rank(folder):
    with tp.train.Checkpointer(folder) as run:
        run.save(1 + last(), of_step(1))


FAILURES = {
    "shape": lambda path: tp.save(path, {"r": put("rows", NUMBERS), "w": torch.ones(2 + last())}),
    "value": lambda path: tp.save(path, {"r": put("rows", NUMBERS), "w": torch.ones(2) * last()}),
    "text": lambda path: tp.save(path, {"r": put("rows", NUMBERS), "text": "a" * 70 + "b" * last()}),
    "number": lambda path: tp.save(path, {"r": put("rows", NUMBERS), "step": int(last())}),
    "names": lambda path: tp.save(path, {"r": put("rows", NUMBERS)} | ({"more": 1} if last() else {})),
    "layout": lambda path: tp.save(path, {"r": put("rows", NUMBERS, "columns" if last() else "rows")}),
    "leaf": lambda path: tp.save(path, {"r": put("rows", NUMBERS), "w": {1, 2} if last() else 1}),
    "partial": lambda path: tp.save(path, {"w": DTensor.from_local(NUMBERS, mesh(), [Partial()])}),
    "disk": save_failing,
    "disk of a run": lambda path: save_failing(path, save_in_run(False)),
    "disk of a run, in the background": lambda path: save_failing(path, save_in_run(True)),
    "step": save_step_of_rank,
    "restores": lambda path: tp.restore(path, like=tree()),
    "restores another shape": lambda path: tp.restore(path, like={**tree(), "rows": NUMBERS[: 8 - last()]}),
    "second run": second_run,
}


def fails_to_save(name, path):
    FAILURES[name](path)


def life(rank, size, port, count, folder, kill_at):
    """Train in a process that torchrun has started; the last process kills itself after a step."""
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": str(count),
    }  # fmt: skip
    torch.set_num_threads(1)
    train(folder, kill_at)


def train(folder, kill_at=None, steps=6):
    """Train with DTensors, from the newest checkpoint on, and write the parameters at the end."""
    on_mesh = mesh(timeout=30.0)
    x = tp.device_put(NUMBERS, on_mesh, tp.P("data"))
    optimizer = tp.optim.adam(1e-2)

    def local(w, x):
        return tp.pmean(tp.grad(lambda w: ((x @ w).sin() ** 2).mean())(w), "data")

    slope = tp.shard_map(local, on_mesh, (tp.P(), tp.P("data")), tp.P())
    w = torch.ones(4, 2, dtype=torch.float64)
    state = (w, optimizer.init(w))
    with tp.train.Checkpointer(folder) as run:
        like = {"w": tp.device_put(state[0], on_mesh, tp.P("data")), "state": state[1]}
        step = run.latest() or 0
        if step:
            found = run.restore(like=like)
            state = (found["w"].full_tensor(), found["state"])
        while step < steps:
            step += 1
            w, opt_state = optimizer.step(slope(state[0], x).full_tensor(), state[1], state[0])
            state = (w, opt_state)
            run.save(step, {"w": tp.device_put(w, on_mesh, tp.P("data")), "state": opt_state})
            if step == kill_at and last():
                time.sleep(0.05)
                os.kill(os.getpid(), signal.SIGKILL)
    torch.save(state[0], Path(folder) / f"final-{dist.get_rank()}.pt")


RUN = {
    "saved": saved, "restored": restored, "run_of_steps": run_of_steps, "run_of_store": run_of_store, "save_forever": save_forever,
    "dies_in_a_save": dies_in_a_save, "fails_to_save": fails_to_save,
}  # fmt: skip
