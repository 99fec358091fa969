"""What the processes of the tests run: functions of one member, over the axis "i", in stacks of transforms."""

import contextlib
import os
import re
import time
from pathlib import Path

import checkpoint_cases
import torch
import torch.distributed as dist

import torchpure as tp

D = torch.float64
STEPS = torch.tensor([1.0, -0.5, 0.7], dtype=D)


def members(count, seed=0):
    numbers = torch.arange(count * 4, dtype=D).reshape(count, 4)
    return torch.sin(numbers * 1.7 + seed) + 0.1 * numbers / count


def ring(count):
    return [(i, (i + 1) % count) for i in range(count)]


def chain(count):
    return [(i, i + 1) for i in range(count - 1)]


def size():
    return tp.axis_size("i")


def rows(x):  # a row for each member
    return torch.stack([x * (i + 1) for i in range(size())])


def until(x):
    return tp.while_loop(
        lambda c: tp.pmax(c.sum(), "i") < 6, lambda c: c + 1 + 0.1 * tp.psum(c.sin(), "i"), x, max_steps=9
    )


by_vjp = tp.custom_vjp(lambda x: x * tp.psum(x**2, "i"))
by_vjp.defvjp(
    lambda x: (x * tp.psum(x**2, "i"), x), lambda x, ct: (ct * tp.psum(x**2, "i") + 2 * x * tp.psum(ct * x, "i"),)
)
FUNCTIONS = {
    "psum": lambda x: x * tp.psum(x**2, "i"),
    "pmean": lambda x: torch.sin(x - tp.pmean(x, "i")),
    "pmax": lambda x: torch.exp(x - tp.pmax(x, "i")),
    "pmin": lambda x: x * tp.pmin(x, "i"),
    "ties": lambda x: tp.pmax(tp.pmean(x, "i") * 2, "i") * x,
    "all_gather": lambda x: tp.all_gather(x**2, "i").cos().sum(0) * x,
    "all_gather, last": lambda x: tp.all_gather(x, "i", dim=-1).sin().sum(1) * x,
    "all_gather, tiled": lambda x: tp.all_gather(x, "i", tiled=True).cumsum(0)[:4] * x,
    "psum_scatter": lambda x: tp.psum_scatter(rows(x**2), "i") * x,
    "psum_scatter, tiled": lambda x: tp.psum_scatter(rows(x).sin().flatten(), "i", tiled=True) * x,
    "ring": lambda x: tp.ppermute(x**2, "i", ring(size())) * x,
    "chain": lambda x: tp.ppermute(x.sin(), "i", chain(size())) + x,
    "all_to_all": lambda x: tp.all_to_all(rows(x**2), "i", 0, 1).sum(1) * x,
    "all_to_all, tiled": lambda x: tp.all_to_all(rows(x).sin(), "i", 0, 1, tiled=True)[0, :4] * x,
    "axis_index": lambda x: x**2 * tp.axis_index("i") + tp.psum(1, "i"),
    "softmax": lambda x: x.exp() / tp.psum(x.exp(), "i"),
    "norm": lambda x: (x - tp.pmean(x, "i")) / (tp.pmean((x - tp.pmean(x, "i")) ** 2, "i") + 1e-3).sqrt(),
    "tree": lambda x: tp.psum({"a": [x], "b": x[0] ** 2, "n": 2}, "i")["a"][0] * x,
    "large": lambda x: tp.psum(x.repeat(400).sin(), "i")[:4] * tp.all_gather(x.repeat(400), "i").cos().sum(0)[-4:],
    "large rows": lambda x: tp.all_to_all(rows(x.repeat(400)).cos(), "i", 0, 0).sum(0)[:4] * x
    + tp.psum_scatter(rows(x.repeat(400)), "i")[:4] * tp.ppermute(x.repeat(400), "i", chain(size()))[:4],
    "remat": tp.remat(lambda x: x * tp.psum(x**2, "i") * (1 + tp.axis_index("i"))),
    "remat, captured": lambda x: tp.remat(lambda y: y * tp.psum(x**2, "i"))(x),
    "scan": lambda x: tp.scan(lambda c, s: (torch.sin(c * tp.psum(c * s, "i")), None), x, STEPS)[0],
    "scan, remat": lambda x: tp.scan(lambda c, s: (torch.sin(c * tp.psum(c * s, "i")), None), x, STEPS, remat=1)[0],
    "while": until,
    "cond": lambda x: tp.cond(
        tp.psum(x.sum(), "i") > 0, lambda x: x * tp.psum(x**2, "i"), lambda x: tp.pmean(x.cos(), "i"), x
    ),
    "custom_vjp": by_vjp,
    "gradient inside": tp.grad(lambda x: (x**3 * tp.psum(x.sin(), "i")).sum()),
}  # fmt: skip


def over_members(f, **options):
    """Map a function as one process does."""
    return tp.vmap(f, axis_name="i", **options)


def over_processes(f):
    """Map a function over processes, one member on each."""
    mesh = tp.make_mesh((-1,), ("i",))

    def local(*parts):
        return f(*[part[0] for part in parts])[None]

    return tp.shard_map(local, mesh, tp.P("i"), tp.P("i"))


def over_pmap(f):
    return tp.pmap(f, "i")


STACKS = {  # of a way to map, a function, members and weights
    "": lambda over, f, x, w: over(f)(x),
    "grad(map)": lambda over, f, x, w: tp.grad(lambda x: (over(f)(x) * w).sum())(x),
    "map(grad)": lambda over, f, x, w: over(tp.grad(lambda x, w: (f(x) * w).sum()))(x, w),
    "jvp(map)": lambda over, f, x, w: tp.jvp(over(f), (x,), (w,))[1],
    "map(jvp)": lambda over, f, x, w: over(lambda x, t: tp.jvp(f, (x,), (t,))[1])(x, w),
    "hvp(map)": lambda over, f, x, w: tp.jvp(tp.grad(lambda x: (over(f)(x) * w).sum()), (x,), (w,))[1],
    "grad(grad(map))": lambda over, f, x, w: tp.grad(
        lambda x: (tp.grad(lambda x: (over(f)(x) * w).sum())(x) * w.cos()).sum()
    )(x),
    "grad(map(grad))": lambda over, f, x, w: tp.grad(
        lambda x: (over(tp.grad(lambda x, w: (f(x) * w).sum()))(x, w) * w).sum()
    )(x),
    "vmap(map)": lambda over, f, x, w: tp.vmap(over(f))(torch.stack([x, w, x * w])),
    "map(vmap)": lambda over, f, x, w: over(lambda x: tp.vmap(f)(torch.stack([x, x.cos()])))(x),
    "vmap(grad(map))": lambda over, f, x, w: tp.vmap(tp.grad(lambda x: (over(f)(x) * w).sum()))(torch.stack([x, w])),
    "remat(map)": lambda over, f, x, w: tp.grad(lambda x: (tp.remat(over(f))(x) * w).sum())(x),
    "scan(map)": lambda over, f, x, w: tp.scan(lambda c, s: (over(f)(c * s).sin(), None), x, STEPS)[0],
    "graph(grad(map))": lambda over, f, x, w: tp.make_graph(tp.grad(lambda x: (over(f)(x) * w).sum()))(x)(x),
}
COMPILED = {
    "jit(map)": lambda over, f, x, w: tp.jit(over(f))(x),
    "map(jit)": lambda over, f, x, w: over(tp.jit(f))(x),
    "jit(grad(map))": lambda over, f, x, w: tp.jit(tp.grad(lambda x: (over(f)(x) * w).sum()))(x),
    "jit(map(grad))": lambda over, f, x, w: tp.jit(over(tp.grad(lambda x, w: (f(x) * w).sum())))(x, w),
    "jit(vmap(map))": lambda over, f, x, w: tp.jit(tp.vmap(over(f)))(torch.stack([x * i for i in range(70)])),
    "map(jit(vmap))": lambda over, f, x, w: over(lambda x: tp.jit(tp.vmap(f))(torch.stack([x * i for i in range(70)])))(
        x
    ),
}


def stacked(function, stacks, over=over_processes):
    """Run a function in stacks of transforms, on as many members as there are processes."""
    count = dist.get_world_size() if dist.is_initialized() else 1
    return run_stacks(over, function, stacks, count)


def run_stacks(over, function, stacks, count):
    x, w = members(count), members(count, 1)
    return {stack: (STACKS | COMPILED)[stack](over, FUNCTIONS[function], x, w) for stack in stacks}


def grid():
    return tp.make_mesh((2, -1), ("data", "model"))


def line(timeout=None):
    return tp.make_mesh((-1,), ("data",), timeout=timeout)


W, X = members(2).T, members(8, 2)  # (4, 2) and (8, 4)


def model_loss(w, x):
    """A loss whose data and weights are split."""
    hidden = tp.psum(x @ w, "model").sin()
    return tp.pmean((hidden**2).mean(), "data")


def whole_loss(w, x):
    return (((x @ w).sin()) ** 2).mean()


def by_grid():
    specs = (tp.P("model"), tp.P("data", "model"))
    sharded = tp.shard_map(model_loss, grid(), specs, tp.P())
    w, x = tp.device_put((W, X), grid(), specs)
    return {
        "value": sharded(W, X),
        "gradients": tp.grad(sharded, (0, 1))(W, X),
        "hessian": tp.hessian(sharded)(W, X),
        "of DTensors": sharded(w, x).full_tensor(),
        "gradients of DTensors": tuple(g.full_tensor() for g in tp.grad(sharded, (0, 1))(w, x)),
        "keyword": tp.shard_map(model_loss, mesh=grid(), in_specs=list(specs), out_specs=tp.P())(W, X),
    }


def by_both_axes():
    """Split one dimension by two axes, in both orders; sum and gather over both."""
    x, found = members(8), {}
    for names in (("data", "model"), ("model", "data")):
        spec = tp.P(names)
        found[names] = tp.shard_map(lambda x: x * 2, grid(), spec, spec)(x)
        f = tp.shard_map(
            lambda x, n=names: x * tp.psum(x.sum(), n) + tp.axis_index(n) + tp.all_gather(x, n, tiled=True).sum(0),
            grid(), spec, spec,
        )  # fmt: skip
        found[names, "collectives"] = f(x)
        found[names, "gradient"] = tp.grad(lambda x, f=f: f(x).sin().sum())(x)
    return found


def nested():
    """A vmap axis inside of a mesh axis, and collectives over both."""

    def f(x):
        rows = tp.vmap(lambda row: row * tp.psum(row.sum(), ("data", "row")) + tp.axis_index("row"), axis_name="row")
        return rows(x)

    mapped = tp.shard_map(f, line(), tp.P("data"), tp.P("data"))
    return {"value": mapped(X), "gradient": tp.grad(lambda x: mapped(x).sin().sum())(X)}


def replicated():
    """Gradients of an argument that all processes have are summed where it goes in."""
    sharded = tp.shard_map(lambda w, x: tp.pmean(((x @ w) ** 2).mean(), "data"), line(), (tp.P(), tp.P("data")), tp.P())
    step = tp.shard_map(
        lambda w, x: tp.pmean(tp.grad(lambda w, x: ((x @ w) ** 2).mean())(w, x), "data"),
        line(), (tp.P(), tp.P("data")), tp.P(),
    )  # fmt: skip
    return {"outside": tp.grad(sharded)(W, X), "inside": step(W, X), "forward": tp.jacfwd(sharded)(W, X)}


def captured():
    """Gradients of a tensor that the function captures."""

    def loss(w):
        return split(lambda x: tp.pmean(((x @ w) ** 2).mean(), "data"), out=None)

    def squared_slopes(w):  # w is used under a gradient inside, and returned as it is
        slopes = tp.grad(lambda x: ((x @ w) ** 2).sum())
        total, same = tp.shard_map(
            lambda x: (tp.psum((slopes(x) ** 2).sum(), "data"), w), line(), tp.P("data"), tp.P())(X)  # fmt: skip
        return total + same.sum()

    variable = W.clone().requires_grad_()
    return {
        "loss": tp.grad(loss)(W),
        "remat": tp.grad(lambda w: tp.remat(lambda s: loss(w * s))(torch.ones((), dtype=D)))(W),
        "scan": tp.grad(lambda w: tp.scan(lambda c, _: (c + loss(w), None), W[0, 0], None, length=3)[0] / 3)(W),
        "vmap": tp.vmap(tp.grad(loss))(W[None])[0],
        "forward": tp.jacfwd(loss)(W),
        "autograd": torch.autograd.grad(loss(variable), variable)[0],
        "slopes": tp.grad(squared_slopes)(W),
    }


def spread_members():
    sharded = tp.shard_map(lambda w, x: (x @ w).sin(), line(), tp.P(), tp.P())
    ws = torch.stack([W * i for i in range(8)], 1)
    mapped = tp.vmap(sharded, in_dims=(1, None), out_dims=-1, spmd_axis_name="data")
    return {"value": mapped(ws, X), "gradient": tp.grad(lambda ws: (mapped(ws, X) ** 2).sum())(ws)}


def layouts():
    values = {"w": W, "rest": [X, 3, "name"]}
    put = tp.device_put(values, grid(), {"w": tp.P("model"), "rest": tp.P()})
    again = tp.device_put(put, grid(), tp.P("data"))
    names = [str(leaf.placements) for leaf in (put["w"], put["rest"][0], again["w"])]
    gradient = tp.grad(lambda w: (tp.device_put(w, grid(), tp.P("model")).full_tensor() ** 2).sum())(W)
    back = [leaf.full_tensor() for leaf in (put["w"], put["rest"][0], again["w"], again["rest"][0])]
    return names, back, put["w"].to_local().shape, put["rest"][1:], gradient


def text_of_program():
    f = tp.shard_map(lambda x: tp.psum(x.sin(), "data") * x, line(), tp.P("data"), tp.P("data"))
    return str(tp.jit(f).lower(X))


def page(folder):
    """Run the page on many devices, in a folder that all processes share."""
    text = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    blocks, space = re.findall(r"```python\n(.*?)```", text, re.DOTALL), {}
    with contextlib.chdir(folder):
        for block in blocks:
            exec(block, space)
    return space["gradient"].full_tensor()


def repeated():
    """Run collectives again and again: from the second time on, large data travel with their header."""
    size = dist.get_world_size()

    def collectives(x, dtype):
        x = (x.repeat(300, 1) * 8).to(dtype)
        rows = x.reshape(size, -1)
        found = [tp.psum(x, "data"), tp.all_gather(x, "data"), tp.all_to_all(rows, "data", 0, 0)]
        return [*found, tp.psum_scatter(rows, "data"), tp.ppermute(x, "data", [(0, size - 1)]), tp.psum(x[:1], "data")]

    def f(x):
        times = [[collectives(x, dtype) for dtype in (D, torch.bfloat16, torch.int32)] for _ in range(3)]
        return [[torch.equal(one, other) for one, other in zip(tp.tree.leaves(times[0]), tp.tree.leaves(again), strict=True)]
                for again in times[1:]]  # fmt: skip

    results = []
    tp.shard_map(lambda x: results.extend(f(x)) or x, line(), tp.P("data"), tp.P("data"))(members(4 * size))
    return results


def last():
    return dist.get_rank() == dist.get_world_size() - 1


def split(f, x=X, out="data", timeout=None):
    return tp.shard_map(f, line(timeout), tp.P("data"), tp.P(out) if out else tp.P())(x)


def raises(x):
    if last():
        raise ValueError("this data file is damaged")
    return tp.psum(x, "data")


def dies(x):
    if last():
        os._exit(1)
    return tp.psum(x, "data")


def is_late(x):
    if last():
        time.sleep(4.0)
    return tp.psum(x, "data")


def after_many(then):
    """Run a large collective three times, so that the next round has room for another one."""

    def f(x):
        for _ in range(3):
            tp.psum(x.repeat(300, 1), "data")
        return then(x)

    return split(f)


FAILURES = {
    "shape after many": lambda: after_many(lambda x: tp.psum(x[:1] if last() else x, "data")),
    "large after many": lambda: after_many(lambda x: tp.psum(x.repeat(300, 1 + last()), "data")),
    "raises after many": lambda: after_many(raises),
    "shape": lambda: split(lambda x: tp.psum(x[:1] if last() else x, "data")),
    "dtype": lambda: split(lambda x: tp.psum(x.float() if last() else x, "data")),
    "kind": lambda: split(lambda x: tp.pmax(x, "data") if last() else tp.psum(x, "data")),
    "large": lambda: split(lambda x: tp.psum(x.repeat(900, 1 + last()), "data")),
    "one more": lambda: split(lambda x: tp.psum(tp.psum(x, "data") if last() else x, "data")),
    "a branch": lambda: split(lambda x: tp.cond(tp.axis_index("data") > 0, lambda x: tp.psum(x, "data"), torch.sin, x)),
    "function": lambda: split(torch.cos if last() else torch.sin),
    "seed": lambda: split(torch.sin, X + last()),
    "seed of a tree": lambda: tp.device_put({"w": W, "x": X * (1 + last())}, line()),
    "result": lambda: split(lambda x: x.sum(), out=None),
    "raises": lambda: split(raises),
    "raises at the end": lambda: split(lambda x: (x, raises(x))[0] if last() else x),
    "specs": lambda: split(torch.sin, X[0, 0] if last() else X),
    "writes": lambda: tp.shard_map(lambda x: x.add_(1), line(), tp.P(), tp.P())(X.clone()),
    "axis of members": lambda: tp.vmap(tp.shard_map(lambda x: tp.psum(x, "data"), line(), tp.P(), tp.P()), spmd_axis_name="data")(X),
    "split by the axis of members": lambda: tp.vmap(tp.shard_map(torch.sin, line(), tp.P("data"), tp.P()), spmd_axis_name="data")(X),
    "raises in a program": lambda: tp.jit(tp.shard_map(raises, line(), tp.P("data"), tp.P("data")))(X),
    "axis": lambda: split(lambda x: tp.psum(x, "model")),
    "in a program": lambda: split(tp.jit(lambda x: tp.psum(x[:1] if last() else x, "data"))),
    "program": lambda: tp.jit(tp.shard_map(lambda x: tp.psum(x[:1] if last() else x, "data"), line(), tp.P("data"), tp.P()))(X),
    "dies": lambda: split(dies, members(3), timeout=2.0),
    "late": lambda: split(is_late, members(3), timeout=2.0),
    "nothing": lambda: split(torch.sin, members(3)),
    "size": lambda: tp.make_mesh((3, 5), ("data", "model")),
    "pmap": lambda: tp.pmap(torch.sin)(members(7)),
}  # fmt: skip


def fails(name):
    return FAILURES[name]()


RUN = {
    "by_grid": by_grid, "by_both_axes": by_both_axes, "nested": nested, "replicated": replicated, "captured": captured,
    "spread_members": spread_members, "layouts": layouts, "text_of_program": text_of_program, "page": page, "fails": fails, "repeated": repeated,
    "stacked": stacked, "pmapped": lambda function, stacks: stacked(function, stacks, over_pmap), **checkpoint_cases.RUN,
}  # fmt: skip
