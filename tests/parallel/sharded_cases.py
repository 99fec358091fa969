"""Sharded training, as processes of the tests run it."""

import re
import runpy
from pathlib import Path

import torch
from cases import OPTIMIZERS
from torch.distributed.tensor import DTensor

import torchpure as tp
from torchpure import tree

D = torch.float64
ROOT = Path(__file__).parents[2]
SHAPES = {"rows": (6, 4), "columns": (3, 8), "bias": (4,), "state": (4, 6), "whole": (2, 3), "scale": ()}
# the covariance of a gradient that is not square has equal eigenvalues, whose eigenvectors rounding decides
SQUARE = {"rows": (4, 4), "columns": (4, 4), "bias": (4,), "state": (6, 6), "whole": (3, 3), "scale": ()}
LAYOUTS = {  # of parameters, gradients, and states; None: plain tensors
    "each": (
        {"rows": tp.P("data"), "columns": tp.P(None, "data"), "bias": tp.P("data")},
        {"rows": tp.P("data"), "columns": tp.P(None, "data"), "bias": tp.P("data"), "state": tp.P("data")},
        {"rows": tp.P("data"), "bias": tp.P("data"), "state": tp.P("data")},
    ),
    "split": (dict.fromkeys(("rows", "bias", "state"), tp.P("data")),) * 3,
    "state": ({}, {}, dict.fromkeys(("rows", "bias", "state"), tp.P("data"))),
    "plain parameters": (None, None, dict.fromkeys(("rows", "bias", "state"), tp.P("data"))),
}


def mesh():
    return tp.make_mesh((-1,), ("data",))


def start(shapes=SHAPES):
    keys = tp.random.split(tp.random.key(3), len(shapes))
    return {
        name: tp.random.normal(key, shape, dtype=D) for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def loss(params):
    shift = sum(leaf.sin().sum() for leaf in params.values())
    return 0.5 * sum((leaf - 0.2).square().sum() for leaf in params.values()) + 0.05 * shift.square()


def put(values, layout):
    """Lay out each tensor by the parameter that it belongs to: its name is in the path."""
    if layout is None or not tree.leaves(values):
        return values
    leaves, structure = tree.flatten(values)
    specs = [
        next((spec for name, spec in layout.items() if name in path.split(".") and fits(spec, leaf)), tp.P())
        for leaf, path in zip(leaves, tree.paths(values), strict=True)
    ]
    return tp.device_put(values, mesh(), tree.unflatten(structure, specs))


def fits(spec, leaf):
    splits = [dim for dim, names in enumerate(spec.by_dim()) if names]
    return isinstance(leaf, torch.Tensor) and all(dim < leaf.ndim and leaf.shape[dim] % 2 == 0 for dim in splits)


def full(values):
    return tree.map(lambda leaf: leaf.full_tensor() if isinstance(leaf, DTensor) else leaf, values)


def layouts_of(values):
    return [str(leaf.placements) if isinstance(leaf, DTensor) else None for leaf in tree.leaves(values)]


def steps_of(optimizer, layout, shapes=SHAPES, count=3):
    """Make steps on tensors of one process and on DTensors; return both results, and whether layouts are kept."""
    of_params, of_grads, of_state = LAYOUTS[layout]
    params, ours = start(shapes), put(start(shapes), of_params)
    state, our_state = optimizer.init(params), optimizer.init(ours)
    made = layouts_of(our_state) if layout == "split" else None
    our_state = put(our_state, of_state)
    before = layouts_of((ours, our_state))
    for _ in range(count):
        grads = tp.grad(loss)(params)
        extra = {"value": loss(params), "value_fn": loss, "grad": grads}
        extra = {name: extra[name] for name in optimizer.extra if name in extra}
        our_grads = put(grads, of_grads)
        ours, our_state = optimizer.step(
            our_grads, our_state, ours, **extra | ({"grad": our_grads} if "grad" in extra else {})
        )
        params, state = optimizer.step(grads, state, params, **extra)
    return full((ours, our_state)), (params, state), before == layouts_of((ours, our_state)), made


def by_name(name, layout="each"):
    return steps_of(OPTIMIZERS[name].make(), layout, SQUARE if name == "soap" else SHAPES)


CHAINS = {
    "clip, adam": lambda: tp.optim.chain(tp.optim.clip_by_global_norm(0.5), tp.optim.adam(0.1)),
    "accumulated": lambda: tp.optim.multi_steps(tp.optim.adamw(0.1), 2),
    "schedule": lambda: tp.optim.adam(tp.optim.warmup_cosine_decay_schedule(0.0, 0.1, 2, 10)),
    "finite": lambda: tp.optim.apply_if_finite(tp.optim.lamb(0.1), 3),
    "donated": lambda: tp.optim.donate(tp.optim.sgd(0.1)),
    "by blocks": lambda: tp.optim.chain(tp.optim.adaptive_grad_clip(0.1), tp.optim.clip_by_block_rms(0.5), tp.optim.sgd(0.1)),
    "masked": lambda: tp.optim.masked(tp.optim.adam(0.1), {name: name != "bias" for name in SHAPES}),
}  # fmt: skip


def chained(name):
    return steps_of(CHAINS[name](), "each")


def updates():
    """Return updates of gradients whose sum over processes is still to be made."""
    from torch.distributed.tensor import Partial

    whole, size = start(), mesh().size()
    grads = {name: DTensor.from_local(leaf / size, mesh(), [Partial()]) for name, leaf in whole.items()}
    optimizer, params = tp.optim.lamb(0.1), put(whole, LAYOUTS["each"][0])
    ours = optimizer.update(grads, optimizer.init(params), params)[0]
    return full(ours), optimizer.update(whole, optimizer.init(whole), whole)[0], layouts_of(ours) == layouts_of(params)


def state_sizes():
    """Return the bytes that a process keeps of Adam's state, and those of all processes."""
    state = tp.optim.adam(0.1).init(start())
    split = tp.device_put(state, mesh(), tp.parallel.partition_specs(state, mesh(), "data"))
    return sum(leaf.to_local().nbytes for leaf in tree.leaves(split)), sum(leaf.nbytes for leaf in tree.leaves(state))


X = tp.random.normal(tp.random.key(1), (24, 3), dtype=D)
Y = X.sin().sum(1, keepdim=True)
KEY = tp.random.key(2)


def network(*more):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), *more, torch.nn.Linear(4, 1)).double()


FITS = {
    "all rows": lambda **on: tp.fit(network(), (X, Y), optimizer=tp.optim.adam(0.05), steps=5, **on),
    "minibatches": lambda **on: tp.fit(
        network(), (X, Y), optimizer=tp.optim.sgd(0.05), steps=9, batch_size=10, key=KEY, **on
    ),
    "accumulated": lambda **on: tp.fit(
        network(), (X, Y), optimizer=tp.optim.adamw(0.05), steps=6, batch_size=6, key=KEY, accumulate=3, **on
    ),
    "batches": lambda **on: tp.fit(
        network(), [(X[:8], Y[:8]), (X[8:], Y[8:])], optimizer=tp.optim.adam(0.05), steps=4, **on
    ),
    "line search": lambda **on: tp.fit(network(), (X, Y), optimizer=tp.optim.lbfgs(1.0), steps=3, **on),
    "guarded": lambda **on: tp.fit(
        network(), (X, Y), optimizer=tp.optim.adam(0.05), steps=4, on_nonfinite="skip", **on
    ),
    "loss function": lambda **on: tp.fit(
        lambda w, x, y: ((x @ w - y) ** 2).mean(), (X, Y), params=X[:3, :1], optimizer=tp.optim.sgd(0.1), steps=4, **on
    ),
    "buffers": lambda **on: tp.fit(
        network(torch.nn.BatchNorm1d(4).eval()), (X, Y), optimizer=tp.optim.sgd(0.1), steps=4, **on
    ),
}  # fmt: skip


def program(**on):
    return tp.fit(network(), (X, Y), optimizer=tp.optim.sgd(0.05), steps=200, every=100, **on)


def fit_both(name):
    run = FITS.get(name, program)
    one, both = run(), run(mesh=mesh())
    return both.params, both.history, one.params, one.history


def rank():
    return torch.distributed.get_rank()


def dropout():
    """Return what a fit with dropout found: each process drops other units."""
    on = {"optimizer": tp.optim.sgd(0.05), "steps": 3, "key": KEY, "mesh": mesh()}
    return tp.fit(network(torch.nn.Dropout()), (X, Y), **on).params


def saved(folder):
    """Interrupt a fit, go on, and return both histories and what each process reported."""
    reports, on = [], {"optimizer": tp.optim.adam(0.05), "every": 2, "mesh": mesh()}

    def stop(progress):
        reports.append(progress.step)
        return progress.step == 4

    first = tp.fit(network(), (X, Y), steps=8, checkpoint=folder, callback=stop, **on)
    again = tp.fit(network(), (X, Y), steps=8, checkpoint=folder, resume=True, **on)
    whole = tp.fit(network(), (X, Y), steps=8, **on)
    return len(first.history), reports, (again.params, again.history), (whole.params, whole.history)


WRONG = {
    "rows": lambda: tp.fit(network(), (X[:7], Y[:7]), optimizer=tp.optim.sgd(0.1), steps=1, mesh=mesh()),
    "batch": lambda: tp.fit(
        network(), (X, Y), optimizer=tp.optim.sgd(0.1), steps=1, batch_size=5, key=KEY, mesh=mesh()
    ),
    "last batch": lambda: tp.fit(
        network(), (X[:23], Y[:23]), optimizer=tp.optim.sgd(0.1), steps=1, batch_size=10, key=KEY, mesh=mesh()
    ),
    "data": lambda: tp.fit(network(), (X + rank(), Y), optimizer=tp.optim.sgd(0.1), steps=1, mesh=mesh()),
    "steps": lambda: tp.fit(network(), (X, Y), optimizer=tp.optim.sgd(0.1), steps=1 + rank(), mesh=mesh()),
    "axes": lambda: tp.fit(
        network(), (X, Y), optimizer=tp.optim.sgd(0.1), steps=1, mesh=tp.make_mesh((2, 1), ("a", "b"))
    ),
    "no mesh": lambda: tp.fit(network(), (X, Y), optimizer=tp.optim.sgd(0.1), steps=1, mesh="data=2"),
    "world": lambda: run_of("sin(x)", mesh="data=3"),
    "points": lambda: run_of("sin(x)", mesh="data=2", batch_size="7"),
    "options": lambda: run_of("sin(x)", mesh="data=2", seed=str(rank())),
    "axis": lambda: tp.parallel.partition_specs(X, mesh(), "model"),
}  # fmt: skip


def wrong(name):
    return WRONG[name]()


def run_of(target, folder=None, **options):
    from torchpure.runs import configure, run

    return run(configure({"target": target, "steps": "20", "dtype": "float64", **options}), folder)


def runs(folder):
    """Return the losses of a run of two processes and of one, and the folder that each process wrote."""
    both = run_of("sin(x)", folder / "both", mesh="data=2", optimizer="sgd", batch_size="20")
    one = run_of("sin(x)", folder / f"one{rank()}", optimizer="sgd", batch_size="20")
    return torch.tensor(both.fit.losses), torch.tensor(one.fit.losses), both.directory == folder / "both"


def page():
    """Run the page on training."""
    text = (ROOT / "docs" / "scale-training.md").read_text(encoding="utf-8")
    space = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, space)
    return True


def example(name, **options):
    return runpy.run_path(str(ROOT / "examples" / f"{name}.py"))["main"](**options)


def examples():
    """Return the losses of the examples: of data parallel training, and of all stages of ZeRO."""
    return example("data_parallel", steps=6, jit=False).history, torch.tensor(example("zero", steps=3))


RUN = {
    "page of training": page, "examples": examples,
    "by_name": by_name, "chained": chained, "updates": updates, "state_sizes": state_sizes,
    "fits": fit_both, "dropout": dropout, "fit_saved": saved, "wrong": wrong, "runs": runs,
}  # fmt: skip
