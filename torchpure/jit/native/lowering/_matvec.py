"""Matrix-vector products: eight rows at a time, each with one register of sums."""

import torch

from torchpure.jit.native.ir import Opaque, View, c_type

from ._scope import Scope


def num_vector_registers() -> int:
    """Return the number of vector registers of the processor."""
    return 32 if "AVX512" in torch.backends.cpu.get_cpu_capability() else 16


def transpose_view(view: View) -> View:
    """Return a view of the transposed matrices."""
    order = [*range(len(view.shape) - 2), -1, -2]
    return View(view.buffer, tuple(view.shape[d] for d in order), tuple(view.strides[d] for d in order), view.offset)


def matvec_product(scope: Scope, a: View, b: View, dtype: torch.dtype) -> View | None:
    """Multiply a matrix with contiguous rows by a vector, from either side; None for other operands."""
    flip = a.shape[-2] == 1
    rows, column = (transpose_view(b), transpose_view(a)) if flip else (a, b)
    if len(a.shape) != 2 or column.shape[-1] != 1 or rows.strides[-1] != 1 or column.strides[-2] != 1:
        return None
    m, k = rows.shape
    lanes = (64 if num_vector_registers() == 32 and k % 16 == 0 else 32) // dtype.itemsize
    if k < 2 * lanes or m < 4:
        return None
    made = scope.empty((1, m) if flip else (m, 1), dtype)
    c, kind = c_type(dtype), f"V{lanes}{c_type(dtype)[0]}"
    lines = [
        "{",
        f"const {c} *A = {rows.buffer.slot} + {rows.offset}, *B = {column.buffer.slot} + {column.offset};",
        f"{c} *C = {made.buffer.slot};",
    ]
    for start, count in ((0, m // 8 * 8), (m // 8 * 8, m)):
        step = 8 if start == 0 else 1
        if start < count:
            lines.append(f"for (int64_t m0 = {start}; m0 < {count}; m0 += {step}) {{")
            lines.extend(_row_dots(step, k, lanes, kind, c, rows.strides[0]))
            lines.append("}")
    scope.items.append(Opaque("\n".join([*lines, "}"]), (rows.buffer, column.buffer), (made.buffer,)))
    return made


def _row_dots(rows: int, k: int, lanes: int, kind: str, c: str, stride: int) -> list[str]:
    """Write dot products of rows with the vector: one register of sums per row, added up at the end."""
    whole = k // lanes * lanes
    lines = [f"{kind} " + ", ".join(f"t{r} = {{}}" for r in range(rows)) + ";"]
    lines.append(f"for (int64_t i = 0; i < {whole}; i += {lanes}) {{ const {kind} b = *(const {kind} *)(B + i);")
    lines.append(" ".join(f"t{r} += *(const {kind} *)(A + (m0 + {r}) * {stride} + i) * b;" for r in range(rows)) + " }")
    lines.append(f"{c} s[{rows}] = {{}}; const {kind} t[] = {{{', '.join(f't{r}' for r in range(rows))}}};")
    lines.append(f"for (int l = 0; l < {lanes}; l++) for (int r = 0; r < {rows}; r++) s[r] += t[r][l];")
    lines.append(
        f"for (int64_t i = {whole}; i < {k}; i++) for (int r = 0; r < {rows}; r++)"
        f" s[r] += A[(m0 + r) * {stride} + i] * B[i];"
    )
    return [*lines, f"for (int r = 0; r < {rows}; r++) C[m0 + r] = s[r];"]
