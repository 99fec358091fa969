"""Large matrix products: call the BLAS library that torch was built with."""

from functools import partial
from math import prod

import torch

from torchpure.jit.native.ir import Opaque, UnsupportedError, View, c_type, longest_last, loop_heads

from ._matvec import transpose_view
from ._scope import Scope
from ._torch_library import gemm_pointers

# BLAS has a Fortran interface: arguments by reference, column-major matrices
BLAS_TYPES = "\n".join(
    f"typedef void (*{letter}gemm)(const char *, const char *, const int *, const int *, const int *, const {c} *, "
    f"const {c} *, const int *, const {c} *, const int *, const {c} *, {c} *, const int *);"
    for letter, c in (("s", "float"), ("d", "double"))
)


def blas_product(scope: Scope, a: View, b: View, dtype: torch.dtype) -> View:
    """Multiply with BLAS. It is column-major, so the operands swap places."""
    if gemm_pointers() is None:
        raise UnsupportedError("a large product: torch's library exports no gemm")
    scope.state.uses_blas = True
    result = made = scope.empty(
        (*a.shape[:-1], b.shape[-1]), dtype, [*range(len(a.shape) - 2), *_row_and_column_order(a, b)]
    )
    if made.strides[-1] != 1:  # compute the transposed product
        a, b, made = transpose_view(b), transpose_view(a), transpose_view(made)
    *batch, m, k = a.shape
    n = b.shape[-1]
    a, b = (v if _blas_layout(v) else scope.materialize(v, range(len(v.shape))) for v in (a, b))
    letter, c = ("s" if dtype is torch.float32 else "d"), c_type(dtype)
    loops, count = loop_heads("p", list(enumerate(batch)))
    place = [" + ".join([str(v.offset), *(f"p{d} * {v.strides[d]}" for d in range(len(batch)))]) for v in (a, b, made)]
    (ta, la), (tb, lb) = _blas_layout(a) or ("N", 1), _blas_layout(b) or ("N", 1)

    def text(target: str, factor: str, kept: int) -> str:
        return (
            f"{loops}{{ const int m_ = {m}, n_ = {n}, k_ = {k}, la = {la}, lb = {lb};\n"
            f"const {c} factor = {factor}, kept = {kept};\n"
            f'{letter}gemm_("{tb}", "{ta}", &n_, &m_, &k_, &factor, {b.buffer.slot} + {place[1]}, &lb, '
            f"{a.buffer.slot} + {place[0]}, &la, &kept, {target} + {place[2]}, &n_); }}"
        )

    whole, read = text(made.buffer.slot, "1", 0), (a.buffer, b.buffer)
    adds = partial(text, kept=1)
    cost = prod([*batch, m, n, k])
    scope.items.append(
        Opaque(
            whole,
            read,
            (made.buffer,),
            adds,
            needs_nonzero_factor=True,
            count=count,
            cost=cost,
            tables=(f"{letter}gemm_",),
        )
    )
    return result


def _row_and_column_order(a: View, b: View) -> tuple[int, int]:
    """Order rows and columns of a result as later kernels order them."""
    rank = len(a.shape)
    first, second = longest_last((a.shape[-2], b.shape[-1]))
    return rank - 2 + first, rank - 2 + second


def _blas_layout(view: View) -> tuple[str, int] | None:
    """Return ("N", row stride) or, for a transposed matrix, ("T", row stride); None if BLAS cannot read it."""
    (rows, columns), (far, near) = view.shape[-2:], view.strides[-2:]
    if near == 1 and far >= max(columns, 1):
        return "N", far
    if far == 1 and near >= max(rows, 1):
        return "T", near
    return None
