"""Matrix products: choose between fused loops, register tiles, matrix-vector code and BLAS; and write the tiles.

A tile of the result stays in registers while the inner dimension runs. Vector lanes run over the dimension of the
result that is contiguous in an operand. If there is none, the smaller operand is transposed first.

By number of multiplications: below `MIN_TILED`, an ordinary kernel, which is fused with what follows; from `MIN_TILED`,
tiles; from `MIN_BLAS`, BLAS.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from math import prod

import torch

from torchpure.jit.native.ir import Opaque, View, c_type, dense_strides, longest_last, loop_heads, reshape_view

from ._blas import blas_product
from ._matvec import matvec_product, num_vector_registers, transpose_view
from ._scope import Scope

MIN_TILED = 4096  # multiplications; below, a fused kernel is as fast (benchmarks/small_products.py)
MIN_BLAS = 1 << 19  # multiplications; from here on, BLAS is faster
_MIN_TILED_DEPTH = 8  # inner size; below, fusing the product with what follows saves more
_MAX_TILE_ROWS = 8  # at most so many rows in a tile
_MIN_BLOCK = 8  # rows and columns of blocks that registers transpose
_ASSIGN = "<-"  # placeholder for the assignment operator of a tile


def use_tiles(a: View, b: View, dtype: torch.dtype) -> bool:
    """Tell whether tiles are faster. Many small members that lie side by side use lanes over members instead."""
    *batch, m, k = a.shape
    n = b.shape[-1]
    return (
        dtype.is_floating_point
        and m * n * k >= (MIN_TILED if min(m, n) > 1 else 256)
        and max(m, n) >= 8
        and (k >= _MIN_TILED_DEPTH or min(m, n) == 1)
        and (prod(batch) < max(m, n, 16) or not all(map(_has_members_side_by_side, (a, b))))
    )


def _has_members_side_by_side(view: View) -> bool:
    """Tell whether a step to the next member is the shortest in memory, or all members are the same."""
    steps = [stride for size, stride in zip(view.shape[:-2], view.strides[:-2], strict=True) if size > 1]
    return min(steps, default=0) in {0, 1}


def matrix_product(scope: Scope, a: View, b: View, dtype: torch.dtype) -> View:
    """Multiply a of shape (*batch, m, k) by b of shape (*batch, k, n), with the fastest method for these sizes."""
    made = matvec_product(scope, a, b, dtype)
    if made is not None:
        return made
    m, k, n = *a.shape[-2:], b.shape[-1]
    return (blas_product if m * k * n >= MIN_BLAS else tiled_product)(scope, a, b, dtype)


def tiled_product(scope: Scope, a: View, b: View, dtype: torch.dtype) -> View:
    """Multiply a of shape (*batch, m, k) by b of shape (*batch, k, n), in register tiles."""
    *batch, m, k = a.shape
    n = b.shape[-1]
    tall = longest_last((m, n)) == [1, 0]  # later kernels then have the rows innermost
    rows_cost = (0 if a.strides[-2] == 1 else m * k) + (0 if tall else m * n)
    columns_cost = (0 if b.strides[-1] == 1 else n * k) + (m * n if tall else 0)
    rank = len(batch)
    across_rows = m >= 8 and (n < 8 or rows_cost < columns_cost)
    order = [*range(rank), *((rank + 1, rank) if across_rows else (rank, rank + 1))]
    made = scope.empty((*batch, m, n), dtype, order)
    if across_rows:  # compute the transposed product, so that lanes are columns
        _append_tiles(scope, transpose_view(b), transpose_view(a), transpose_view(made))
    else:
        _append_tiles(scope, a, b, made)
    return made


def _append_tiles(scope: Scope, a: View, b: View, made: View) -> None:
    if b.strides[-1] != 1:
        b = _transpose_copy(scope, b)
    whole, read = _product_text(a, b, made, made.buffer.slot, ""), (a.buffer, b.buffer)
    adds = partial(_product_text, a, b, made)
    *batch, m, k = a.shape
    count, cost = max(batch, default=1), prod([*batch, m, k, b.shape[-1]])
    scope.items.append(Opaque(whole, read, (made.buffer,), adds, count=count, cost=cost))


def _product_text(a: View, b: View, made: View, target: str, factor: str) -> str:
    """Write a product to the memory at `target`, laid out as `made`. With a factor, add factor · product there."""
    *batch, m, k = a.shape
    n, c = b.shape[-1], c_type(made.dtype)
    lines = [f"{loop_heads('p', list(enumerate(batch)))[0]}{{"]
    for name, pointer, view in (("A", a.buffer.slot, a), ("B", b.buffer.slot, b), ("C", target, made)):
        place = " + ".join([str(view.offset), *(f"p{d} * {view.strides[d]}" for d in range(len(batch)))])
        lines.append(f"{'' if name == 'C' else 'const '}{c} *{name} = {pointer} + {place};")
    if factor:
        lines.append(f"const {c} factor = {factor};")
    for start, lanes, vectors, repeats in _column_blocks(n, made.dtype.itemsize):
        sizes = (start, lanes, vectors, repeats)
        lines.extend(_block(m, k, sizes, a.strides[-2:], b.strides[-2], made.strides[-2], c))
    text = "\n".join([*lines, "}"])
    return text.replace(_ASSIGN, "+= factor *") if factor else text.replace(_ASSIGN, "=")


def _column_blocks(n: int, itemsize: int) -> Iterator[tuple[int, int, int, int]]:
    """Split columns into blocks: (start, lanes of a vector, vectors per tile, repeats)."""
    widest = 64 if num_vector_registers() == 32 else 32
    at = 0
    for width in (widest, 32, 16):
        lanes = width // itemsize
        vectors = (n - at) // lanes
        if not vectors or (vectors > 1 and width > 32 and (n - at) % lanes and (n - at) % (32 // itemsize) == 0):
            continue
        block = min(vectors, 4 if vectors % 5 else 5)
        yield at, lanes, block, vectors // block
        at += lanes * block * (vectors // block)
        if vectors % block:
            yield at, lanes, vectors % block, 1
            at += lanes * (vectors % block)
    if at < n:
        yield at, 1, n - at, 1


def _tile_rows(m: int, vectors: int) -> int:
    """Choose the rows of a tile: few rows left over, and no more accumulators than registers."""
    room = max((num_vector_registers() - 6) // vectors, 1)
    return max(
        range(1, min(_MAX_TILE_ROWS, room, m) + 1),
        key=lambda rows: (m // rows * rows / m) * min(rows * vectors, 12) + rows / 100,
    )


def _block(m: int, k: int, columns: tuple[int, int, int, int], a: Sequence[int], bk: int, cm: int, c: str) -> list[str]:
    start, lanes, vectors, repeats = columns
    rows = _tile_rows(m, vectors)
    lines = [f"for (int64_t q = 0; q < {repeats}; q++) {{ const int64_t n0 = {start} + q * {lanes * vectors};"]
    lines.append(f"for (int64_t m0 = 0; m0 < {m // rows * rows}; m0 += {rows}) {{")
    lines.extend(_tile("m0", rows, k, lanes, vectors, a, bk, cm, c))
    lines.append("}")
    if m % rows:
        lines.extend(["{", *_tile(str(m // rows * rows), m % rows, k, lanes, vectors, a, bk, cm, c), "}"])
    return [*lines, "}"]


def _tile(
    row: str, rows: int, k: int, lanes: int, vectors: int, a: Sequence[int], bk: int, cm: int, c: str
) -> list[str]:
    kind = f"V{lanes}{c[0]}" if lanes > 1 else c
    places = [(r, v) for r in range(rows) for v in range(vectors)]
    lines = [f"{kind} " + ", ".join(f"t{r}_{v} = {{}}" for r, v in places) + ";"]
    lines.append(f"for (int64_t i = 0; i < {k}; i++) {{ const {c} *bi = B + i * {bk} + n0;")
    lines.append(
        f"const {kind} " + ", ".join(f"b{v} = *(const {kind} *)(bi + {v * lanes})" for v in range(vectors)) + ";"
    )
    for r in range(rows):
        lines.append(f"{{ const {c} s = A[({row} + {r}) * {a[0]} + i * {a[1]}];")
        lines.append(" ".join(f"t{r}_{v} += s * b{v};" for v in range(vectors)) + " }")
    lines.append("}")
    lines.extend(f"*({kind} *)(C + ({row} + {r}) * {cm} + n0 + {v * lanes}) {_ASSIGN} t{r}_{v};" for r, v in places)
    return lines


VECTOR_TYPES = "\n".join(
    f"typedef {c} V{width // size}{c[0]} __attribute__((vector_size({width}), aligned({size}), may_alias));"
    for c, size in (("float", 4), ("double", 8))
    for width in (16, 32, 64)
)


def _transpose_copy(scope: Scope, view: View) -> View:
    """Copy a matrix so that its columns are contiguous. Opaque to fusion, since it reads and writes in other orders."""
    made = View(scope.buffer(view.dtype, prod(view.shape)), view.shape, dense_strides(view.shape))
    *batch, k, n = view.shape
    loops, count = loop_heads("p", list(enumerate(batch)))
    source, target = (
        " + ".join([v.buffer.slot, str(v.offset), *(f"p{d} * {v.strides[d]}" for d in range(len(batch)))])
        for v in (view, made)
    )
    text = f"{loops}op_transpose<{k}, {n}, {view.strides[-2]}, {view.strides[-1]}>({source}, {target});"
    scope.items.append(Opaque(text, (view.buffer,), (made.buffer,), count=count, cost=4 * prod(view.shape)))
    return made


def row_major_picture(scope: Scope, x: View) -> View | None:
    """Copy pictures in channels last to row-major memory, block by block; None for another layout."""
    if len(x.shape) < 4 or not x.dtype.is_floating_point or min(x.shape[1], prod(x.shape[2:])) < _MIN_BLOCK:
        return None
    rows = reshape_view(x, (x.shape[0], x.shape[1], prod(x.shape[2:])))
    if rows is None or rows.strides[1:] != (1, x.shape[1]):
        return None
    made = _transpose_copy(scope, rows)
    return View(made.buffer, x.shape, dense_strides(x.shape))


# whole blocks are transposed in registers, the rest element by element
TRANSPOSE_HELPERS = """
INLINE void op_block(const float *from, int64_t sn, float *to, int64_t n) {
  typedef int32_t I __attribute__((vector_size(32)));
  V8f r[8], t[8], u[8];
  for (int i = 0; i < 8; i++) r[i] = *(const V8f *)(from + i * sn);
  for (int i = 0; i < 4; i++) {
    t[2 * i] = __builtin_shuffle(r[2 * i], r[2 * i + 1], (I){0, 8, 1, 9, 4, 12, 5, 13});
    t[2 * i + 1] = __builtin_shuffle(r[2 * i], r[2 * i + 1], (I){2, 10, 3, 11, 6, 14, 7, 15});
  }
  for (int i = 0; i < 2; i++) for (int j = 0; j < 2; j++) {
    u[4 * i + 2 * j] = __builtin_shuffle(t[4 * i + j], t[4 * i + j + 2], (I){0, 1, 8, 9, 4, 5, 12, 13});
    u[4 * i + 2 * j + 1] = __builtin_shuffle(t[4 * i + j], t[4 * i + j + 2], (I){2, 3, 10, 11, 6, 7, 14, 15});
  }
  for (int i = 0; i < 4; i++) {
    *(V8f *)(to + i * n) = __builtin_shuffle(u[i], u[i + 4], (I){0, 1, 2, 3, 8, 9, 10, 11});
    *(V8f *)(to + (i + 4) * n) = __builtin_shuffle(u[i], u[i + 4], (I){4, 5, 6, 7, 12, 13, 14, 15});
  }
}
INLINE void op_block(const double *from, int64_t sn, double *to, int64_t n) {
  typedef int64_t I __attribute__((vector_size(32)));
  V4d r[4], t[4];
  for (int i = 0; i < 4; i++) r[i] = *(const V4d *)(from + i * sn);
  for (int i = 0; i < 2; i++) {
    t[2 * i] = __builtin_shuffle(r[2 * i], r[2 * i + 1], (I){0, 4, 2, 6});
    t[2 * i + 1] = __builtin_shuffle(r[2 * i], r[2 * i + 1], (I){1, 5, 3, 7});
  }
  for (int i = 0; i < 2; i++) {
    *(V4d *)(to + i * n) = __builtin_shuffle(t[i], t[i + 2], (I){0, 1, 4, 5});
    *(V4d *)(to + (i + 2) * n) = __builtin_shuffle(t[i], t[i + 2], (I){2, 3, 6, 7});
  }
}
template <int K, int N, int SK, int SN, class T> INLINE void op_transpose(const T *from, T *to) {
  const int64_t B = 32 / sizeof(T), KB = SK == 1 ? K / B * B : 0, NB = SK == 1 ? N / B * B : 0;
  for (int64_t k = 0; k < KB; k += B) for (int64_t n = 0; n < NB; n += B)
    op_block(from + k + n * SN, SN, to + k * N + n, N);
  for (int64_t k = 0; k < K; k++) for (int64_t n = k < KB ? NB : 0; n < N; n++) to[k * N + n] = from[k * SK + n * SN];
}
"""
