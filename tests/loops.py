"""Reference loops, and programs traced from stacks of transforms, for the tests of control flow."""

import stacks
import torch
from stacks import D

import torchpure as tp

T = torch.tensor([0.5, -0.3, 0.8, 0.2], dtype=D)
DEEP = ["vmap grad", "jvp jvp", "vmap hessian"]


def unrolled(f, init, xs=None, length=0, *, reverse=False, **_):
    """Do what `tp.scan` does, in a Python loop."""
    count = length if xs is None else tp.tree.leaves(xs)[0].shape[0]
    carry, ys = init, []
    for i in range(count - 1, -1, -1) if reverse else range(count):
        carry, y = f(carry, None if xs is None else tp.tree.map(lambda x, i=i: x[i], xs))
        ys.append(y)
    ys = ys[::-1] if reverse else ys
    return carry, None if ys[0] is None else tp.tree.map(lambda *leaves: torch.stack(leaves), *ys)


def traced(stack, f, monkeypatch):
    """Trace a stack with its points as arguments, and run the program."""
    points = stacks.U, stacks.V, stacks.XS

    def run(u, v, xs):
        with monkeypatch.context() as patch:
            for name, value in (("U", u), ("V", v), ("XS", xs)):
                patch.setattr(stacks, name, value)
            return stack(f)

    graph = tp.make_graph(run)(*points)
    return graph, graph(*points)
