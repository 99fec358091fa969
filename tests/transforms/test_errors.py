"""Messages of errors: the transform, the place, what was wanted, what came, and what to do."""

import copy
import dataclasses
import re

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure.errors import CheckError, ImpureError, ParameterError, StructureError, TransformError

D = torch.float64
X = torch.tensor([1.0, 2.0], dtype=D)
XS = torch.stack([X, X * 2, X * 3])
KEPT = []
TOTALS = torch.zeros(2, dtype=D)
NET = tp.functional(nn.Linear(2, 1).double())
NORM = nn.BatchNorm1d(2).double()
NORMED = tp.functional(NORM)
ADAM = tp.optim.adam(0.1)
LIFTED = tp.optim.lift(torch.optim.SGD, lr=0.1)


def loss(x):
    return x


def keep(x):
    KEPT.append(x)
    return x.sum()


def total(x):
    TOTALS.add_(x)
    return x.sum()


@dataclasses.dataclass
class Weights:
    """A dataclass that is not registered as a tree."""

    w: torch.Tensor


class Square(torch.autograd.Function):
    """A function for plain autograd only, without `setup_context`."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * 2 * ctx.saved_tensors[0]


def ruled(forward, backward):
    """Give a function a rule."""
    made = tp.custom_vjp(lambda x: x * 2)
    made.defvjp(forward, backward)
    return lambda x: made(x).sum()


def pushed(rule):
    """Give a function a forward rule, and push through it."""
    made = tp.custom_jvp(lambda x: x * 2)
    made.defjvp(rule)
    return tp.jvp(made, (X,), (X,))


def mapped(rule):
    """Give a function a rule for batches, and map it."""
    made = tp.custom_vmap(lambda x: x * 2)
    made.def_vmap(rule)
    return tp.vmap(made)(XS)


def donated():
    """Use a donated tensor."""
    step = tp.jit(loss_twice, donate=(0,))
    given = torch.ones(6, dtype=D)
    step(given)
    return given + 1


def loss_twice(x):
    return x * 2


# In a message `@` stands for the function of its row, `@name` for one above, @line for the line of the row, and @line:name
# for that inside of a function.
ERRORS = {
    # grad and its like: what goes in
    "no function": (lambda: tp.grad(3)(X), TransformError, "grad: wanted a function, got int 3"),
    "the result of a function": (lambda: tp.vmap(loss(X)), TransformError, "vmap: wanted a function, got a float64 tensor of shape (2,). Pass the function itself, and its arguments to what comes back"),
    "a float": (lambda: tp.grad(torch.sin)(3.0), TransformError, "grad: `sin` has nothing to differentiate: argument 0 is float 3.0. Wanted a floating point or complex tensor, such as torch.tensor(3.0)"),
    "an array": (lambda: tp.grad(lambda x: x.sum())(X.numpy()), TransformError, "grad: `@` has nothing to differentiate: argument 0 is ndarray array([1., 2.]). Wanted a floating point or complex tensor, such as torch.tensor(3.0)"),
    "a module": (lambda: tp.grad(lambda net: net(X).sum())(torch.nn.Identity()), TransformError, "grad: `@` has nothing to differentiate: argument 0 is Identity Identity(). Wanted a floating point or complex tensor, such as the parameters of net = tp.functional(module): net(net.params, x)"),
    "an int leaf": (lambda: tp.grad(loss)({"a": {"n": 1}}), TransformError, "grad: `@loss` has nothing to differentiate: argument 0 at `a.n` is int 1. Wanted a floating point or complex tensor, such as torch.tensor(3.0)"),
    "an int tensor": (lambda: tp.grad(loss)(torch.arange(2)), TransformError, "grad: `@loss` has nothing to differentiate: argument 0 is an int64 tensor of shape (2,). Wanted a floating point or complex tensor, such as torch.tensor(3.0)"),
    "no leaves": (lambda: tp.grad(loss)({"a": None}), TransformError, "grad: `@loss` has nothing to differentiate: argument 0 has no leaves. Wanted a floating point or complex tensor, such as torch.tensor(3.0)"),
    "no arguments": (lambda: tp.grad(loss)(x=X), TransformError, "grad: `@loss` got no positional argument to differentiate. Give it by position"),
    "argnums too large": (lambda: tp.grad(loss, argnums=1)(X), TransformError, "grad: argnums=1 does not fit the 1 positional arguments of `@loss`: wanted an int from -1 to 0, or a tuple of such"),
    "argnums twice": (lambda: tp.grad(loss, argnums=(0, -1))(X), TransformError, "grad: argnums must name each argument once and at least one, got (0, -1) for the 1 of `@loss`"),
    "argnums empty": (lambda: tp.grad(loss, argnums=())(X), TransformError, "grad: argnums must name each argument once and at least one, got () for the 1 of `@loss`"),
    # what comes out
    "not a scalar": (lambda: tp.grad(loss)(X), TransformError, "grad: `@loss` must return a real tensor of shape (), got a float64 tensor of shape (2,). Reduce it with .sum() or .mean(), or use jacrev"),
    "a tuple": (lambda: tp.value_and_grad(lambda x: (x.sum(), 1))(X), TransformError, "value_and_grad: `@` must return a real tensor of shape (), got tuple of 2. Return a floating point tensor; for (value, aux) pass has_aux=True"),
    "a number": (lambda: tp.grad(lambda x: x.sum().item())(X), TransformError, ".item(), @line, reads numbers from a tensor that is differentiated: the derivative through them would be lost. Compute with the tensor; if a constant is meant, use tp.stop_gradient(x) first"),
    "complex": (lambda: tp.grad(lambda x: x.sum() * 1j)(X), TransformError, "grad: `@` must return a real tensor of shape (), got a complex128 tensor of shape (). Return a floating point tensor; for (value, aux) pass has_aux=True"),
    "no aux": (lambda: tp.grad(lambda x: x.sum(), has_aux=True)(X), TransformError, "grad: with has_aux, `@` must return (value, aux), got a float64 tensor of shape (). Return both, or leave out has_aux"),
    "no aux in jacrev": (lambda: tp.jacrev(loss, has_aux=True)(X), TransformError, "jacrev: with has_aux, `@loss` must return (value, aux), got a float64 tensor of shape (2,). Return both, or leave out has_aux"),
    "no output": (lambda: tp.jacrev(lambda x: "text")(X), TransformError, "jacrev: `@` must return floating point or complex tensors, got str 'text'"),
    "an int output": (lambda: tp.jvp(lambda x: x.argmax(), (X,), (X,)), TransformError, "jvp: `@` must return floating point or complex tensors, got an int64 tensor of shape ()"),
    "a complex Jacobian": (lambda: tp.jacfwd(loss)(X + 0j), TransformError, "jacfwd: `@loss`: argument 0 is complex, and a complex derivative is not one number: use jvp or vjp, or torch.view_as_real"),
    "a chunk": (lambda: tp.hessian(loss, chunk_size=0), TransformError, "hessian: chunk_size must be an int of at least 1, or None, got int 0"),
    # what a derivative cannot see through
    "torch.autograd": (lambda: tp.jvp(lambda x: torch.autograd.grad((x**3).sum(), x)[0], (X,), (X,)), TransformError, "jvp: `@`, @line, calls torch.autograd.grad or backward, which do not see through transforms: use tp.grad there"),
    "backward": (lambda: tp.hessian(lambda x: (x**3).sum().backward())(X), TransformError, "hessian: `@`, @line, calls torch.autograd.grad or backward, which do not see through transforms: use tp.grad there"),
    "requires_grad_": (lambda: tp.vmap(lambda x: x.requires_grad_() * 2)(X), TransformError, "vmap: `@`, @line, makes a variable for torch's autograd, which does not see through transforms: use tp.grad there"),
    "an array of a variable": (lambda: tp.grad(lambda x: torch.as_tensor(x.numpy()).sum())(X), TransformError, ".numpy(), @line, reads numbers from a tensor that is differentiated: the derivative through them would be lost. Compute with the tensor; if a constant is meant, use tp.stop_gradient(x) first"),
    "an old Function": (lambda: tp.vmap(lambda x: Square.apply(x))(X), TransformError, "vmap: `@`, @line, uses a torch.autograd.Function that transforms cannot follow: give it setup_context and generate_vmap_rule, or use custom_vjp"),
    "no forward derivative": (lambda: tp.jvp(lambda x: torch.segment_reduce(x, "sum", lengths=torch.tensor([len(x)])), (XS,), (XS,)), TransformError, "jvp: `@`, @line, uses `segment_reduce`, which has no forward derivative in torch: go backwards, with grad, vjp and jacrev (jacrev twice for a Hessian), or give it a rule with custom_jvp"),
    "no second derivative": (lambda: tp.linearize(lambda x: torch.segment_reduce(x, "sum", lengths=torch.tensor([len(x)])), XS)[1](XS), TransformError, "linearize: `@` needs the derivative of `aten::_segment_reduce_backward`, which torch lacks: use other operations, or give it a rule with custom_jvp"),
    "a temporary changed late": (lambda: tp.grad(lambda x: (y := x.sin(), z := y**2, y.add_(1), z.sum())[3])(X), TransformError, "grad: `@` changes a temporary in place after it was used where its value matters for the derivative: change a clone"),
    "hooks in an inner gradient": (lambda: tp.vmap(tp.grad(lambda x: (torch.autograd.graph.save_on_cpu().__enter__(), x)[1]))(X), TransformError, "grad: `@`, @line, uses hooks on saved tensors, as save_on_cpu does: only the outermost grad or value_and_grad allows them. To save memory use tp.remat"),
    # mutation and leaks
    "an input changed": (lambda: tp.grad(lambda x: x["a"].mul_(2).sum())({"a": X.clone()}), ImpureError, "grad: `@`, @line, changes in place what it was given or captures: clone it, or return the new value. tp.pure(fn) names it"),
    "an input changed under jvp": (lambda: tp.jvp(lambda x: x["a"].mul_(2), ({"a": X.clone()},), ({"a": X.clone()},)), ImpureError, "jvp: `@` changes argument 0 at `a` in place, which a function under a transform must leave alone: clone it, or return the new value. tp.pure(fn) shows the line"),
    "a captured tensor changed": (lambda: tp.grad(total)(X), ImpureError, "grad: `@total` changes what it captures, a float64 tensor of shape (2,), `TOTALS` in place, which a function under a transform must leave alone: clone it, or return the new value. tp.pure(fn) shows the line"),
    "a captured tensor changed under jit": (lambda: tp.jit(total)(X), ImpureError, "jit: `@total`, @line:total, would change a float64 tensor of shape (2,), `TOTALS`, which it captures: clone it, or return the new value"),
    "a change that pure finds": (lambda: tp.pure(total)(X), ImpureError, "pure: `@total`, @line:total, `aten.add_` would change a float64 tensor of shape (2,), `TOTALS`: clone it, or return the new value"),
    "a traced tensor let out": (lambda: tp.vmap(keep)(X), ImpureError, "vmap: `@keep` lets a traced tensor out, a float64 tensor of shape (), `KEPT.0`: it has no meaning there. Return it, as aux with has_aux=True"),
    "a traced tensor let out of jit": (lambda: tp.jit(keep)(X), ImpureError, "jit: `@keep` lets a traced tensor out, a float64 tensor of shape (2,), `KEPT.0`: it has no meaning there. Return it, as aux with has_aux=True"),
    # tangents and cotangents
    "primals": (lambda: tp.jvp(loss, X, X), TransformError, "jvp: primals must be a tuple, one entry an argument, got a float64 tensor of shape (2,): for one write (x,)"),
    "number of tangents": (lambda: tp.jvp(loss, (X,), ()), TransformError, "jvp: wanted 1 tangents, one a primal, got 0. None stands for zero"),
    "tangent": (lambda: tp.jvp(lambda p: p["w"], ({"w": X},), ({"w": X[:1]},)), TransformError, "jvp: tangent of argument 0 at `w`: wanted a float64 tensor of shape (2,), got a float64 tensor of shape (1,)"),
    "tangent dtype": (lambda: tp.jvp(loss, (X,), (X.float(),)), TransformError, "jvp: tangent of argument 0: wanted a float64 tensor of shape (2,), got a float32 tensor of shape (2,)"),
    "tangent structure": (lambda: tp.jvp(lambda p: p["w"], ({"w": X},), ({"v": X},)), StructureError, "jvp: tangents: trees differ at `0`: wanted keys 'w', got 'v' (missing 'w'; unexpected 'v')"),
    "cotangent": (lambda: tp.vjp(lambda x: {"y": x}, X)[1]({"y": X[:1]}), TransformError, "vjp: cotangent at `y`: wanted a float64 tensor of shape (2,), got a float64 tensor of shape (1,)"),
    "cotangent structure": (lambda: tp.vjp(lambda x: {"y": x}, X)[1]({"z": X}), StructureError, "vjp: trees differ at `.`: wanted keys 'y', got 'z' (missing 'y'; unexpected 'z')"),
    "tangents of linearize": (lambda: tp.linearize(loss, X)[1](X, X), TransformError, "linearize: wanted 1 tangents, one a primal, got 2. None stands for zero"),
    "not linear": (lambda: tp.linear_transpose(lambda x: x**2, X), TransformError, "linear_transpose: `@` is not linear. Use vjp for the transpose of its derivative"),
    # vmap
    "sizes": (lambda: tp.vmap(loss)({"a": X, "b": {"c": X[:1]}}), TransformError, "vmap: `@loss`: mapped dimensions differ in size: 2 in argument 0 at `a`, 1 in argument 0 at `b.c`. Pass in_dims=None for what is not mapped"),
    "in_dims length": (lambda: tp.vmap(loss, in_dims=(0, 0))(X), TransformError, "vmap: in_dims=(0, 0) does not fit the 1 positional arguments of `@loss`: wanted an int, None or a tuple with an entry for each"),
    "in_dims shape": (lambda: tp.vmap(loss, in_dims=({"b": 0},))({"a": X}), TransformError, "vmap: in_dims[0] must be an int, None or shaped like the value it is for, a dict with 'a'; got a dict with 'b'"),
    "dimension": (lambda: tp.vmap(loss, in_dims=1)(X), TransformError, "vmap: `@loss`: argument 0 cannot be mapped over dimension 1: it is a float64 tensor of shape (2,). Pass in_dims=None for what is not mapped"),
    "a mapped number": (lambda: tp.vmap(loss)({"a": X, "n": 3}), TransformError, "vmap: `@loss`: argument 0 at `n` cannot be mapped over dimension 0: it is int 3. Pass in_dims=None for what is not mapped"),
    "nothing mapped": (lambda: tp.vmap(loss, in_dims=None)(X), TransformError, "vmap: `@loss` has no mapped argument: no leaf has a dimension in in_dims. Give one of them an int, or call the function as it is"),
    "output": (lambda: tp.vmap(lambda x: 3)(X), TransformError, "vmap: `@` must return tensors, got int 3 at `.`: make a tensor of it, or give it None in out_dims"),
    "out_dims": (lambda: tp.vmap(lambda x: {"y": x}, out_dims=None)(X), TransformError, "vmap: the result of `@` at `y` differs between members; out_dims=None is for a result that does not: give it an int"),
    "out_dims shape": (lambda: tp.vmap(loss, out_dims=(0, 0))(X), TransformError, "vmap: out_dims must be an int, None or shaped like the value it is for, a float64 tensor of shape (); got tuple of 2"),
    "out_dims too large": (lambda: tp.vmap(loss, out_dims=2)(X), TransformError, "vmap: the result of `@loss` at `.` has no place for a dimension 2: for one member it is a float64 tensor of shape ()"),
    "draws": (lambda: tp.vmap(lambda x: x + torch.rand(()))(X), TransformError, "vmap: `@`, @line, draws from the global generator. Give each member a key: vmap(fn)(random.split(key, n), ...), and draw with tp.random"),
    "sizes by value": (lambda: tp.vmap(lambda x: x[x > 1])(XS), TransformError, "vmap: `@`, @line, uses `indexing with a boolean mask`, whose result has another size for each member: keep all entries, and choose with torch.where"),
    "nonzero": (lambda: tp.vmap(lambda x: x.nonzero())(XS), TransformError, "vmap: `@`, @line, uses `aten::nonzero`, whose result has another size for each member: keep all entries, and choose with torch.where"),
    "item": (lambda: tp.vmap(lambda x: x * x.item())(X), TransformError, "vmap: `@`, @line, makes a number of a mapped tensor: keep it a tensor"),
    "branch": (lambda: tp.vmap(lambda x: x if x > 0 else -x)(X), TransformError, "vmap: `@`, @line, branches on the value of a mapped tensor: choose with torch.where"),
    "written": (lambda: tp.vmap(lambda x: torch.zeros(2).__setitem__(0, x))(X), TransformError, "vmap: `@`, @line, writes a mapped value into a tensor that all members share: make it of a mapped one, with torch.zeros_like(x) or x.new_zeros(shape), or return new values"),
    "written at a mask": (lambda: tp.vmap(lambda x: torch.zeros(2).__setitem__(x[None] > 1, x))(X), TransformError, "vmap: `@`, @line, writes a mapped value into a tensor that all members share: make it of a mapped one, with torch.zeros_like(x) or x.new_zeros(shape), or return new values"),
    "added in place": (lambda: tp.vmap(lambda x: torch.zeros(2, dtype=D).add_(x))(XS), TransformError, "vmap: `@`, @line, writes a mapped value into a tensor that all members share: make it of a mapped one, with torch.zeros_like(x) or x.new_zeros(shape), or return new values"),
    "added in place under a gradient": (lambda: tp.grad(lambda x: tp.vmap(lambda y: torch.zeros(2, dtype=D).__iadd__(y))(x).sum())(XS), TransformError, "vmap: `@`, @line, writes a mapped value into a tensor that all members share: make it of a mapped one, with torch.zeros_like(x) or x.new_zeros(shape), or return new values"),
    "written, at a mapped place": (lambda: tp.vmap(tp.grad(lambda x, i: (y := torch.zeros(2, dtype=D), y.add_(x[i] * x), y.sum())[2]))(XS, torch.tensor([0, 1, 0])), TransformError, "grad: `@`, @line, writes a mapped value into a tensor that all members share: make it of a mapped one, with torch.zeros_like(x) or x.new_zeros(shape), or return new values"),
    "added in place in a program": (lambda: tp.jit(tp.vmap(lambda x: torch.zeros(2, dtype=D).add_(x)))(XS), TransformError, "vmap: `@`, @line, writes a mapped value into a tensor that all members share: make it of a mapped one, with torch.zeros_like(x) or x.new_zeros(shape), or return new values"),
    "an array ": (lambda: tp.vmap(lambda x: torch.as_tensor(x.numpy()))(X), TransformError, "vmap: `@`, @line, takes the numbers of a traced tensor out of torch, as .numpy() and .tolist() do: compute with operations of torch, or look at them with tp.debug.callback"),
    "a list": (lambda: tp.vmap(lambda x: torch.tensor(x.tolist()))(XS), TransformError, "vmap: `@`, @line, takes the numbers of a traced tensor out of torch, as .numpy() and .tolist() do: compute with operations of torch, or look at them with tp.debug.callback"),
    "deepcopy": (lambda: tp.vmap(lambda x: copy.deepcopy(x))(X), TransformError, "vmap: `@`, @line, asks for the memory of a traced tensor, as copy.deepcopy does: copy it with .clone()"),
    "an array under jvp": (lambda: tp.jvp(lambda x: torch.as_tensor(x.numpy()), (X,), (X,)), TransformError, ".numpy(), @line, reads numbers from a tensor that is differentiated: the derivative through them would be lost. Compute with the tensor; if a constant is meant, use tp.stop_gradient(x) first"),
    "statistics": (lambda: tp.vmap(lambda x: NORM(x))(torch.ones(3, 4, 2, dtype=D)), TransformError, "vmap: `@`, @line, updates the running statistics of a batch norm that members share: make the module a function with tp.functional"),
    "devices": (lambda: tp.vmap(loss, devices="cpu"), TransformError, "vmap: devices must be a list of at least one device, got str 'cpu'"),
    # collectives
    "no axis": (lambda: tp.psum(X, "member"), TransformError, "psum: there is no axis 'member' here (axes: none): name it in vmap(fn, axis_name='member'), or in the mesh of shard_map"),
    "another axis": (lambda: tp.vmap(lambda x: tp.pmean(x, "j"), axis_name="i")(X), TransformError, "pmean: there is no axis 'j' here (axes: 'i'): name it in vmap(fn, axis_name='j'), or in the mesh of shard_map"),
    "an axis twice": (lambda: tp.vmap(tp.vmap(loss, axis_name="i"), axis_name="i")(XS), TransformError, "vmap: axis_name 'i' is taken by a vmap around this one: choose another name"),
    "an axis in chunks": (lambda: tp.vmap(loss, axis_name="i", chunk_size=1), TransformError, "vmap: collectives over axis 'i' cannot span chunks or devices: leave out chunk_size and devices"),
    "a text to gather": (lambda: tp.vmap(lambda x: tp.all_gather("1", "i"), axis_name="i")(X), TransformError, "all_gather: wanted tensors or numbers, got str '1'"),
    # loops
    "a condition": (lambda: tp.cond(X > 0, loss, loss, X), TransformError, "cond: the condition must be a bool of shape (), got a bool tensor of shape (2,). Compare, or reduce with .any() or .all()"),
    "branches": (lambda: tp.vmap(lambda x: tp.cond(x > 1, lambda y: {"a": y}, lambda y: {"b": y}, x))(X), StructureError, "cond: the branches `@` and `@`: trees differ at `.`: wanted keys 'b', got 'a' (missing 'b'; unexpected 'a')"),
    "branches of other dtypes": (lambda: tp.jit(lambda x: tp.cond(x.sum() > 1, lambda y: y, lambda y: y.float(), x))(X), TransformError, "cond: the branches `@` and `@` must give the same shapes and dtypes: at `.` a float32 tensor of shape (2,) against a float64 tensor of shape (2,)"),
    "a switch": (lambda: tp.switch(0.5, [loss], X), TransformError, "switch: index must be an integer of shape (), got float 0.5"),
    "a carry": (lambda: tp.scan(lambda c, x: (c.float(), x), X, XS), TransformError, "scan: `@` must return a carry like the one that it is given: at `.` wanted a float64 tensor of shape (2,), got a float32 tensor of shape (2,). Convert it there, or start with one like it"),
    "a carry of another structure": (lambda: tp.scan(lambda c, x: ((c, c), x), X, XS), StructureError, "scan: `@`: the carry that it returns, against the one that it is given: trees differ at `.`: wanted a float64 tensor of shape (2,), got tuple of 2"),
    "no pair": (lambda: tp.scan(lambda c, x: c, X, XS), TransformError, "scan: `@` must return (carry, y), got a float64 tensor of shape (2,)"),
    "lengths": (lambda: tp.scan(loss, X, {"a": XS, "b": X}), TransformError, "scan: `@loss`: xs differ in length: 3 at `a`, 2 at `b`"),
    "while": (lambda: tp.while_loop(lambda c: c < 3, loss, X), TransformError, "while_loop: `@`: the condition must be a bool of shape (), got a bool tensor of shape (2,). Compare, or reduce with .any() or .all()"),
    "no way back": (lambda: tp.make_graph(tp.grad(lambda x: tp.while_loop(lambda c: c.sum() < 9, lambda c: c * 2, x).sum()))(X), TransformError, "while_loop: `@` runs an unknown number of times, which a backward pass cannot go back through: bound it with max_steps, use fori_loop, or go forwards with jvp or jacfwd"),
    "bounds": (lambda: tp.fori_loop(0, 1.5, lambda i, c: c, X), TransformError, "fori_loop: upper must be an integer of shape (), got float 1.5"),
    "a batch": (lambda: tp.map(torch.sin, X, batch_size=0), TransformError, "map: batch_size must be an int of at least 1, or None, got int 0"),
    "an associative function": (lambda: tp.associative_scan(lambda a, b: a.sum(), XS), TransformError, "associative_scan: `@` must return what it is given in shape and dtype: at `.` wanted a float64 tensor of shape (1, 2), got a float64 tensor of shape ()"),
    # custom rules
    "no rule": (lambda: tp.custom_vjp(loss)(X), TransformError, "custom_vjp: `@loss` has no rule yet: define it with defvjp"),
    "a rule that is none": (lambda: tp.custom_jvp(loss).defjvp(3), TransformError, "custom_jvp.defjvp: wanted a function, got int 3"),
    "residuals": (lambda: tp.grad(ruled(lambda x: x * 2, lambda kept, c: (c,)))(X), TransformError, "custom_vjp: the rule `@` must return (value, residuals), got a float64 tensor of shape (2,)"),
    "cotangents": (lambda: tp.grad(ruled(lambda x: (x * 2, None), lambda kept, c: c))(X), TransformError, "custom_vjp: the rule `@` must return a tuple of 1, a cotangent for each argument, got a float64 tensor of shape (2,)"),
    "a cotangent of another shape": (lambda: tp.grad(ruled(lambda x: (x * 2, None), lambda kept, c: (c.sum(),)))(X), TransformError, "custom_vjp: the rule `@` gave a cotangent for argument 0 that is a float64 tensor of shape (), wanted a float64 tensor of shape (2,)"),
    "a cotangent that is a number": (lambda: tp.grad(ruled(lambda x: (x * 2, None), lambda kept, c: (1.0,)))(X), TransformError, "custom_vjp: the rule `@` gave a cotangent for argument 0 that is float 1.0, wanted a float64 tensor of shape (2,)"),
    "a pushed rule": (lambda: pushed(lambda primals, tangents: tangents[0]), TransformError, "custom_jvp: the rule `@` must return (value, tangent), got a float64 tensor of shape (2,)"),
    "a tangent of another dtype": (lambda: pushed(lambda primals, tangents: (primals[0] * 2, tangents[0].float())), TransformError, "custom_jvp: the rule `@` gave a tangent at `.` that is a float32 tensor of shape (2,), wanted a float64 tensor of shape (2,)"),
    "a mapped rule": (lambda: mapped(lambda size, batched, x: x * 2), TransformError, "custom_vmap: the rule `@` must return (value, out_batched), got a float64 tensor of shape (3, 2)"),
    "members of a mapped rule": (lambda: mapped(lambda size, batched, x: (x.sum(), True)), TransformError, "custom_vmap: the rule `@` says that a float64 tensor of shape () is batched: wanted 3 members at dimension 0"),
    # the rest
    "a policy": (lambda: tp.remat(loss, "everything"), TransformError, "remat: wanted the policy 'nothing', 'dots', a set of names or a function, got str 'everything'"),
    "the name of a value": (lambda: tp.remat_name(X, 3), TransformError, "remat_name: the name must be a str, got int 3"),
    "the name of a scope": (lambda: tp.named_scope(3), TransformError, "named_scope: the name must be a str, got int 3"),
    "a mask": (lambda: tp.where(X, X, 0.0), TransformError, "where: the condition must be a tensor of bools, got a float64 tensor of shape (2,)"),
    "a check": (lambda: tp.vmap(lambda x: (tp.check(x < 2, "too large"), x)[1])(X), CheckError, "too large: member 1 of vmap, @line"),
    "a vector for a tree": (lambda: tp.ravel_pytree({"a": X})[1](torch.ones(5)), StructureError, "unravel: wanted a vector of shape (2,), got a float32 tensor of shape (5,)"),
    "an array of shapes": (lambda: tp.eval_shape(lambda x: x.numpy(), X), TransformError, "eval_shape: `@`, @line, needs the number of a tensor that has none here: choose with torch.where instead of a branch, and keep values as tensors instead of .item()"),
    "a number in a program": (lambda: tp.make_graph(lambda x: x * float(x[0]))(X), TransformError, "make_graph: `@`, @line, needs the number of a tensor that has none here: choose with torch.where instead of a branch, and keep values as tensors instead of .item()"),
    # jit
    "no function to compile": (lambda: tp.jit(3), TransformError, "jit: wanted a function, got int 3"),
    "jit: item": (lambda: tp.jit(lambda x: x * x[0].item())(X), TransformError, "jit: `@`, @line, needs the number of a tensor that has none here: choose with tp.where, or tp.cond for a branch, keep values as tensors instead of .item(), or name the argument in static= so that each of its values has a program of its own"),
    "jit: a branch": (lambda: tp.jit(lambda x: x if x.sum() > 0 else -x)(X), TransformError, "jit: `@`, @line, needs the number of a tensor that has none here: choose with tp.where, or tp.cond for a branch, keep values as tensors instead of .item(), or name the argument in static= so that each of its values has a program of its own"),
    "jit: a number in text": (lambda: tp.jit(lambda x: (f"{x.sum():.3f}", x)[1])(X), TransformError, "jit: `@`, @line, needs the number of a tensor that has none here: choose with tp.where, or tp.cond for a branch, keep values as tensors instead of .item(), or name the argument in static= so that each of its values has a program of its own"),
    "jit: a size": (lambda: tp.jit(lambda x: x[x > 1])(X), TransformError, "jit: `@`, @line, makes a tensor whose size depends on numbers, with `aten.index.Tensor`: keep all entries, and choose with tp.where, or pass the size as a static argument"),
    "jit: draws": (lambda: tp.jit(lambda x: x + torch.rand(2))(X), TransformError, "jit: `@`, @line, draws from the global generator, `aten.rand.default`: a program would return the same numbers at every call. Pass a key, and draw with tp.random"),
    "jit: an array": (lambda: tp.jit(lambda x: torch.as_tensor(x.numpy()))(X), TransformError, "jit: `@`, @line, needs the number of a tensor that has none here: choose with tp.where, or tp.cond for a branch, keep values as tensors instead of .item(), or name the argument in static= so that each of its values has a program of its own"),
    "jit: torch.autograd": (lambda: tp.jit(lambda x: torch.autograd.grad((x**3).sum(), x)[0])(X), TransformError, "jit: `@`, @line, calls torch.autograd.grad or backward, which do not see through transforms: use tp.grad there"),
    "jit: a distribution": (lambda: tp.jit(lambda x: torch.distributions.Exponential(x, validate_args=True).log_prob(X))(X), TransformError, "jit: `@`, @line, lets torch.distributions check its arguments, whose numbers cannot be looked at there: see that they are valid, and pass validate_args=False to the distribution"),
    "jit: a sample of a distribution": (lambda: tp.jit(lambda x: torch.distributions.Gamma(X, X, validate_args=True).log_prob(x))(X), TransformError, "jit: `@`, @line, lets torch.distributions check its arguments, whose numbers cannot be looked at there: see that they are valid, and pass validate_args=False to the distribution"),
    "a distribution of members": (lambda: tp.vmap(lambda x: torch.distributions.Exponential(-x, validate_args=True).log_prob(X))(X), TransformError, "vmap: `@`, @line, lets torch.distributions check its arguments, whose numbers cannot be looked at there: see that they are valid, and pass validate_args=False to the distribution"),
    "jit: static": (lambda: tp.jit(loss, static=("y",)), TransformError, "jit: static=('y',) must hold positions or names of arguments: `@loss` has no argument 'y' (it has: x)"),
    "jit: donated": (lambda: donated(), ImpureError, "jit: this tensor was donated to `@loss_twice`: its memory belongs to the results. Use the results, or donate a clone"),
    # models and optimizers under transforms
    "a deep copy": (lambda: tp.grad(lambda p: (copy.deepcopy(p)["a"] ** 2).sum())({"a": X}), TransformError, "grad: `@`, @line, asks for the memory of a traced tensor, as copy.deepcopy does: copy it with .clone()"),
    "running statistics": (lambda: tp.grad(lambda s: NORMED.apply(NORMED.params, {**NORMED.state, **s}, XS, train=True)[0].sum())({"running_mean": X}), TransformError, "grad: `@`, @line, wants the derivative with respect to the running statistics of a norm, which torch does not have: leave the state out of what is differentiated"),
    "missing parameters": (lambda: tp.grad(lambda p: NET(p, X).sum())({"weight": X[None]}), ParameterError, "Linear: parameters: missing `bias`"),
    "gradients of another form": (lambda: tp.grad(lambda w: ADAM.update({"v": w}, ADAM.init({"w": X}), {"w": X})[0]["w"].sum())(X), StructureError, "adam: trees differ at `.`: wanted keys 'w', got 'v' (missing 'w'; unexpected 'v')"),
    "a gradient of another shape": (lambda: tp.vmap(lambda x: ADAM.update({"w": x}, ADAM.init({"w": X}), {"w": X})[0])(X), StructureError, "adam: the gradient at `w` is a float64 tensor of shape (), the parameter a float64 tensor of shape (2,)"),
    "a learning rate for each member": (lambda: tp.vmap(lambda r: tp.optim.sgd(r).init({"w": X}))(XS), ValueError, "sgd: learning_rate must be a tensor of shape (), got shape (2,); vmap over it"),
    "an optimizer of torch": (lambda: tp.vmap(lambda x: LIFTED.update({"w": x}, LIFTED.init({"w": x}), {"w": x})[0])(XS), TransformError, "lift: SGD changes tensors in place, which no transform can follow: use the optimizer of this library, or step outside of the transform"),
    "a learning rate that is no number": (lambda: tp.optim.adam("fast"), TypeError, "adam: learning_rate must be a number, a tensor of shape () or a schedule, got 'fast'"),
    "a value that is missing": (lambda: tp.grad(lambda w: tp.optim.scale_by_polyak(max_learning_rate=1.0).update({"w": w}, tp.optim.scale_by_polyak(max_learning_rate=1.0).init({"w": X}), {"w": X})[0]["w"].sum())(X), TypeError, "scale_by_polyak: wanted value: call step(grads, state, params, value=…)"),
    # pytrees
    "a dataclass": (lambda: tp.grad(lambda p: p.w.sum())(Weights(X)), TransformError, "grad: `@` has nothing to differentiate: argument 0 is Weights Weights(w=tensor([1., 2.], dtype=torch.f. Wanted a floating point or complex tensor, or a dataclass that is a tree: see tree.register_dataclass"),
    "trees that differ": (lambda: tp.vmap(lambda x: tp.tree.map(torch.add, {"a": x}, {"b": x}))(X), StructureError, "tree.map: trees differ at `.`: wanted keys 'a', got 'b' (missing 'a'; unexpected 'b')"),
    "trees of other depths": (lambda: tp.tree.lerp({"a": X}, {"a": {"b": X}}, 0.5), StructureError, "tree.lerp: cannot compute with dict of 1 at `a`: wanted numbers"),
    "stacked trees": (lambda: tp.stack([{"a": X}, {"a": X[:1]}]), StructureError, "stack: `a` is a float64 tensor of shape (2,) in member 0 and a float64 tensor of shape (1,) in member 1"),
}  # fmt: skip


def first_line(name):
    """Return the first line of a function in this file."""
    return globals()[name].__code__.co_firstlineno


def placed(message, line):
    """Insert line numbers into a message: `@` is the row's lambda, `@name` a function above."""
    message = re.sub(r"`@(\w+)`", lambda found: f"`{found[1]}` (test_errors.py:{first_line(found[1])})", message)
    message = re.sub(r"@line:(\w+)", lambda found: f"line {first_line(found[1]) + 1} of test_errors.py", message)
    return message.replace("`@`", f"`<lambda>` (test_errors.py:{line})").replace(
        "@line", f"line {line} of test_errors.py"
    )


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, kind, message = ERRORS[name]
    KEPT.clear()
    with pytest.raises(kind) as error:
        call()
    assert type(error.value) is kind
    assert str(error.value) == placed(message, call.__code__.co_firstlineno)


TRANSFORMS = (
    "grad", "value_and_grad", "vmap", "jacfwd", "jacrev", "hessian", "remat", "make_graph", "jit", "pure", "custom_jvp",
    "custom_vjp", "custom_vmap",
)  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_value_that_is_not_callable_is_refused_when_the_transform_is_made(name):
    with pytest.raises(TransformError) as error:
        getattr(tp, name)(3)
    assert str(error.value) == f"{name}: wanted a function, got int 3"


@pytest.mark.parametrize("name", ["jvp", "vjp", "linearize", "linear_transpose", "eval_shape"])
def test_a_value_that_is_not_callable_is_refused_at_the_call(name):
    with pytest.raises(TransformError) as error:
        getattr(tp, name)(3, (X,), (X,))
    assert str(error.value) == f"{name}: wanted a function, got int 3"
