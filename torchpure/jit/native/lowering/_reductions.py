"""Handlers of reductions, argmax and argmin, sorting, cumulative sums, and matrix products."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch.fx import Node

from torchpure.jit.native.ir import Opaque, UnsupportedError, Value, View, c_type, loop_heads

from ._matmul import matrix_product, use_tiles
from ._pointwise import as_value, pointwise
from ._scope import Scope, cast, fake_value, handles, operation_name


def _dims(dims: Any, rank: int) -> list[int]:
    if dims is None or (isinstance(dims, list | tuple) and not dims):
        return list(range(rank))
    return [d % rank if rank else 0 for d in ([dims] if isinstance(dims, int) else dims)][: rank or 0]


_SQUARE = "({0} - {1}) * ({0} - {1})"


def reduce_dims(
    scope: Scope, kind: str, x: Value, dims: Sequence[int], out: Any, dtype: torch.dtype, after: str = "{0}"
) -> View:
    """Reduce dimensions of a value. `out` has the shape of the result, and `after` is a formula applied to it."""
    build = scope.new_kernel(x.shape, dims)
    loaded = cast(build, build.load(x, x.shape), x.dtype, torch.bool if kind in {"any", "all"} else dtype)
    result = build.reduce(dtype, kind, loaded)
    if after != "{0}":
        result = build.compute(dtype, after, result)
    made = scope.empty(out.shape, out.dtype)
    _store_reduced(scope, build, made, [d for d in range(len(x.shape)) if d not in dims], result, dtype)
    scope.append_kernel(build)
    return made


def _store_reduced(scope: Scope, build: Any, made: View, kept: Sequence[int], result: str, dtype: torch.dtype) -> None:
    dropped = [(n, s) for n, s in zip(made.shape, made.strides, strict=True)]
    if len(made.shape) > len(kept):  # keepdim: skip the kept dimensions of size 1
        sizes = list(kept)
        dropped = [dropped[d] for d in sizes]
    view = View(made.buffer, tuple(n for n, _ in dropped), tuple(s for _, s in dropped), made.offset)
    build.store(view, cast(build, result, dtype, made.dtype), kept)


@handles("sum", "mean", "amax", "amin", "prod", "any", "all")
def _reduce(scope: Scope, node: Node, x: Value, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> View:
    out, name = fake_value(node), operation_name(node)
    dims = _dims(dim, len(x.shape))
    count = 1
    for d in dims:
        count *= x.shape[d]
    if count == 0:
        raise UnsupportedError("a reduction over an empty dimension")
    kind = {"mean": "sum", "amax": "max", "amin": "min"}.get(name, name)
    after = f"{{0}} / {count}" if name == "mean" else "{0}"
    return reduce_dims(scope, kind, x, dims, out, out.dtype, after)


@handles("var", "std", "var_mean")
def _var(scope: Scope, node: Node, x: Value, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
    outs = fake_value(node)
    out = outs[0] if isinstance(outs, tuple | list) else outs
    dims = _dims(dim, len(x.shape))
    count = prod(x.shape[d] for d in dims)
    if count == 0:
        raise UnsupportedError("a reduction over an empty dimension")
    # As torch does: squares of large float32 numbers would overflow. In norms, torch's var_mean, they do there too.
    wide = out.dtype if isinstance(outs, tuple | list) else torch.float64
    shape = [1 if d in dims else n for d, n in enumerate(x.shape)]
    like = torch.empty(shape, dtype=wide, device="meta")
    mean = reduce_dims(scope, "sum", x, dims, like, wide, f"{{0}} / {count}")
    correction = kwargs.get("correction")
    after = f"{{0}} / {float(max(count - (1 if correction is None else correction), 0))!r}"
    if operation_name(node) == "std":
        after = f"op_sqrt({after})"
    variance = reduce_dims(scope, "sum", _squares(scope, x, mean, wide), dims, out, wide, after)
    if not isinstance(outs, tuple | list):
        return variance
    kept = [d for d in range(len(x.shape)) if d not in dims]
    flat = View(mean.buffer, tuple(mean.shape[d] for d in kept), tuple(mean.strides[d] for d in kept))
    return [variance, mean if len(out.shape) == len(x.shape) else flat]


def _squares(scope: Scope, x: Value, mean: View, dtype: torch.dtype) -> View:
    """Return the squares of the differences from the mean."""

    def compute(build: Any, given: Any) -> str:
        return build.compute(dtype, _SQUARE, cast(build, given[0][0], x.dtype, dtype), given[1][0])

    return pointwise(scope, x.shape, dtype, [x, mean], compute)


@handles("argmax", "argmin", "max", "min")
def _extreme(scope: Scope, node: Node, x: Value, dim: Any = None, keepdim: bool = False) -> Any:
    name, outs = operation_name(node), fake_value(node)
    like: Any = outs[1] if isinstance(outs, tuple | list) else outs
    x = scope.materialize(x)
    if name in {"max", "min"} and not isinstance(outs, tuple | list):
        if dim is not None:
            raise UnsupportedError(f"{name} of two tensors")
        return reduce_dims(scope, name, x, list(range(len(x.shape))), outs, outs.dtype)
    if dim is None:
        x, dim = scope.materialize(x, range(len(x.shape))), 0
        x = View(x.buffer, (prod(x.shape),), (1,), x.offset)
    dim = dim % len(x.shape) if x.shape else 0
    if not x.shape:
        return scope.call_torch(node)
    values, indices = (scope.empty(like.shape, d, range(like.ndim)) for d in (x.dtype, torch.int64))
    kept = [d for d in range(len(x.shape)) if d != dim]
    better = ">" if name.endswith("max") else "<"
    head, count = loop_heads("i", [(d, x.shape[d]) for d in kept])
    offset = " + ".join([str(x.offset), *(f"i{d} * ({x.strides[d]})" for d in kept)])
    result_offset, step = "0", 1
    for d in reversed(kept):
        result_offset, step = f"{result_offset} + i{d} * {step}", step * x.shape[d]
    c = c_type(x.dtype)
    text = (
        f"{head}{{ const {c} *p = {x.buffer.slot} + {offset}; int64_t best = 0; {c} top = p[0];"
        f" for (int64_t k = 1; k < {x.shape[dim]}; k++) {{ {c} v = p[k * ({x.strides[dim]})];"
        f" if (v {better} top || (v != v && top == top)) {{ top = v; best = k; }} }}"
        f" {values.buffer.slot}[{result_offset}] = top; {indices.buffer.slot}[{result_offset}] = best; }}"
    )
    written = (values.buffer, indices.buffer)
    scope.items.append(Opaque(text, (x.buffer,), written, count=count, cost=8 * prod(x.shape)))
    return indices if name.startswith("arg") else [values, indices]


@handles("sort", "argsort")
def _sort(scope: Scope, node: Node, x: Value, *args: Any, **kwargs: Any) -> Any:
    has_stable = "stable" in str(node.target).split(".")[-1]
    options = (
        dict(zip(("stable", "dim", "descending") if has_stable else ("dim", "descending"), args, strict=False)) | kwargs
    )
    x, dim, down = scope.materialize(x), options.get("dim", -1), "true" if options.get("descending") else "false"
    if not x.shape or 0 in x.shape:
        return scope.call_torch(node)
    dim %= len(x.shape)
    size = x.shape[dim]
    values, indices = (scope.empty(x.shape, dtype, range(len(x.shape))) for dtype in (x.dtype, torch.int64))
    scratch = [scope.buffer(dtype, 2 * size) for dtype in (x.dtype, torch.int64)]
    loops = "".join(f"for (int64_t i{d} = 0; i{d} < {n}; i{d}++) " for d, n in enumerate(x.shape) if d != dim)
    source, target = (
        " + ".join([str(v.offset), *(f"i{d} * ({v.strides[d]})" for d in range(len(x.shape)) if d != dim)])
        for v in (x, values)
    )
    text = (
        f"{loops}op_sort({x.buffer.slot} + {source}, {x.strides[dim]}, {size}, {values.buffer.slot} + {target}, "
        f"{indices.buffer.slot} + {target}, {values.strides[dim]}, {down}, {scratch[0].slot}, {scratch[1].slot});"
    )
    scope.items.append(Opaque(text, (x.buffer,), (values.buffer, indices.buffer, *scratch)))
    return indices if operation_name(node) == "argsort" else [values, indices]


@handles("cumsum", "cumprod")
def _cumulative(scope: Scope, node: Node, x: Value, dim: int, dtype: Any = None) -> View:
    out = fake_value(node)
    x, sign = scope.materialize(x), "+=" if "cumsum" in str(node.target) else "*="
    if not out.ndim:
        return scope.call_torch(node)
    dim %= out.ndim
    made = scope.empty(out.shape, out.dtype, range(out.ndim))
    loops, count = loop_heads("i", [(d, size) for d, size in enumerate(out.shape) if d != dim])
    source, target = (
        " + ".join([str(v.offset), *(f"i{d} * ({v.strides[d]})" for d in range(out.ndim) if d != dim)])
        for v in (x, made)
    )
    c = c_type(out.dtype)
    wide = "double" if out.dtype is torch.float32 else c  # as torch does: a long sum of float32 loses digits
    text = (
        f"{loops}{{ {wide} acc = {0 if sign == '+=' else 1}; for (int64_t k = 0; k < {out.shape[dim]}; k++) {{"
        f" acc {sign} ({c}){x.buffer.slot}[{source} + k * ({x.strides[dim]})];"
        f" {made.buffer.slot}[{target} + k * ({made.strides[dim]})] = acc; }} }}"
    )
    scope.items.append(Opaque(text, (x.buffer,), (made.buffer,), count=count, cost=8 * prod(out.shape)))
    return made


def product(scope: Scope, a: View, b: View, out: Any) -> View:
    """Multiply matrices: a of shape (*batch, m, k) and b of shape (*batch, k, n)."""
    *batch, m, k = a.shape
    n = b.shape[-1]
    if k == 0:
        raise UnsupportedError("a product with an inner size of 0")
    rank = len(batch)
    shape = [*batch, m, n, k]
    if len(out.shape) == rank + 2 and use_tiles(a, b, out.dtype):
        return matrix_product(scope, a, b, out.dtype)
    build = scope.new_kernel(shape, [rank + 2])
    one = View(a.buffer, tuple(shape), (*a.strides[:rank], a.strides[-2], 0, a.strides[-1]), a.offset)
    two = View(b.buffer, tuple(shape), (*b.strides[:rank], 0, b.strides[-1], b.strides[-2]), b.offset)
    kind = out.dtype
    names = [build.load(view, shape) for view in (one, two)]
    result = build.reduce(kind, "sum", build.compute(kind, "{0} * {1}", *names))
    made = scope.empty(out.shape, kind)
    dims = list(range(rank + 2))
    if len(out.shape) != len(dims):
        view = View(made.buffer, (*batch, m, n), (*made.strides[:rank], *_vector_strides(made, a, b)), made.offset)
    else:
        view = made
    build.store(view, result, dims)
    scope.append_kernel(build)
    return made


def _vector_strides(made: View, a: View, b: View) -> tuple[int, int]:
    """Return the strides of rows and columns of a result that is a vector or a number."""
    return (made.strides[0], 0) if made.shape and made.shape[0] == a.shape[-2] and b.shape[-1] == 1 else (0, 0)


@handles("mm", "bmm", "mv", "dot", "vdot")
def _mm(scope: Scope, node: Node, a: Value, b: Value, *_: Any) -> View:
    return product(
        scope, _as_matrix(scope.materialize(a), node, 0), _as_matrix(scope.materialize(b), node, 1), fake_value(node)
    )


def _as_matrix(view: View, node: Node, side: int) -> View:
    name = operation_name(node)
    if name in {"mm", "bmm", "addmm", "baddbmm"} or (name in {"mv", "addmv"} and side == 0):
        return view
    row = name in {"dot", "vdot"} and side == 0
    return View(
        view.buffer,
        (1, *view.shape) if row else (*view.shape, 1),
        (0, *view.strides) if row else (*view.strides, 0),
        view.offset,
    )


@handles("addmm", "baddbmm", "addmv")
def _addmm(scope: Scope, node: Node, c: Value, a: Value, b: Value, beta: Any = 1, alpha: Any = 1) -> View:
    out = fake_value(node)
    made = product(scope, _as_matrix(scope.materialize(a), node, 0), _as_matrix(scope.materialize(b), node, 1), out)

    def compute(build: Any, loaded: Any) -> str:
        (x, _), (y, old) = loaded
        y = cast(build, y, old, out.dtype)
        scaled = x if alpha == 1 else build.compute(out.dtype, "{0} * {1}", x, build.number(alpha, out.dtype))
        if beta == 0:
            return scaled
        bias = y if beta == 1 else build.compute(out.dtype, "{0} * {1}", y, build.number(beta, out.dtype))
        return build.compute(out.dtype, "{0} + {1}", scaled, bias)

    return pointwise(scope, out.shape, out.dtype, [made, as_value(c, out.dtype)], compute)
