"""Native programs: each equals the traced function, for all memory layouts, loops and products."""

import re
from importlib import import_module

import pytest
import torch
from native_programs import BY_TORCH, PROGRAMS, A, N, S, V, W, as_tuple, check, native, rows
from torch import Tensor
from torch.nn import functional

from torchpure import jit
from torchpure._cpp import load_library
from torchpure.errors import CheckError
from torchpure.jit.native import UnsupportedError, compile_cpp
from torchpure.jit.native.codegen import _translation_unit
from torchpure.jit.native.lowering import _torch_calls
from torchpure.transforms.calls._primitives import callback_p, scan_p, switch_p, while_p
from torchpure.transforms.tracing._make_fx import trace


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_equals_function(name):
    fn, *tensors = PROGRAMS[name]
    check(fn, *tensors)


@pytest.mark.parametrize("name", BY_TORCH)
def test_operations_without_a_handler_are_computed_by_torch(name):
    fn, *tensors = BY_TORCH[name]
    check(fn, *tensors)
    assert "torch_->call" in native(fn, *tensors).source


def _scores(x, w):
    """Two convolutions whose results are temporaries; the first is read once more at the end."""
    first = torch.conv2d(x, w).tanh()
    second = torch.conv2d(first, w[:, :1].expand(4, 4, 3, 3).contiguous())
    return second.sum((2, 3)) * first.mean()


@pytest.mark.compile
@pytest.mark.parametrize("layout", ["as traced", "another"])
def test_a_temporary_takes_the_memory_of_a_result_of_torch(layout, monkeypatch):
    if layout == "another":  # what torch returns is then copied
        monkeypatch.setattr(
            _torch_calls, "_result_view", lambda scope, out: out if out is None else scope.empty(out.shape, out.dtype)
        )
    picture, filters = rows(2, 3, 8, 12), rows(4, 3, 3, 3, seed=1)
    source = native(_scores, picture, filters).source
    assert source.count("op_hold(torch_") == 2 and source.count("_held.release()") == 2
    check(_scores, picture, filters)


@pytest.fixture
def same():
    """An operation of a user that returns its argument, though its signature does not say so."""
    library = torch.library.Library("torchpure_tests", "FRAGMENT")
    library.define("same(Tensor x) -> Tensor")
    library.impl("same", lambda x: x, "CPU")
    library.impl("same", torch.empty_like, "Meta")
    yield torch.ops.torchpure_tests.same
    library._destroy()


@pytest.mark.compile
@pytest.mark.parametrize("inline", [64, 0])
def test_a_result_that_is_an_operand_is_copied(same, inline, monkeypatch):
    """The operand is not read again, so the memory plan gives its place to the next value."""
    monkeypatch.setattr(_translation_unit, "MAX_INLINE_KERNELS", inline)

    def fn(x):
        kept = same((x * 2).cumsum(0))
        return kept + (x + 1).cumsum(0).cumsum(1).sort(-1)[0]

    assert "op_hold(torch_" in native(fn, A).source
    check(fn, A)


def test_errors_of_torch_at_run_time_are_raised():
    def steps(s):
        return scan_p(lambda c: (torch.linalg.cholesky(c) - c,), (s,), (), (), 3, False)

    program = native(steps, S)
    with pytest.raises(torch.linalg.LinAlgError, match=r"linalg.cholesky: .* not positive-definite"):
        program(S)
    with pytest.raises(RuntimeError, match="jit: an operation of torch: .*out of range"):
        native(lambda a, n: a.put(n, a[0, :4]), A, N[0])(A, N[0] + 100)


SIZES = [
    (1, 1, 1),
    (40, 5, 5),
    (5, 40, 5),
    (64, 64, 1),
    (1, 64, 64),
    (33, 17, 29),
    (40, 64, 64),
    (64, 40, 64),
    (100, 100, 100),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_products_of_every_layout(dtype):
    def products(*given: Tensor) -> tuple[Tensor, ...]:
        return tuple(a @ b for a, b in zip(given[::2], given[1::2], strict=True))

    for left in (False, True):
        for right in (False, True):
            pairs = [
                leaf
                for m, k, n in SIZES
                for leaf in (
                    rows(k, m, dtype=dtype).T if left else rows(m, k, dtype=dtype),
                    rows(n, k, seed=1, dtype=dtype).T if right else rows(k, n, seed=1, dtype=dtype),
                )
            ]
            found = native(products, *pairs)(*pairs)
            for one, two in zip(found, products(*pairs), strict=True):
                torch.testing.assert_close(
                    one,
                    two,
                    rtol=1e-4 if dtype is torch.float32 else 1e-12,
                    atol=1e-4 if dtype is torch.float32 else 1e-12,
                )


def test_products_of_many_members_and_with_vectors():
    check(lambda w, x: (w @ x, w @ x[0, :, 0], torch.baddbmm(w @ x, w, x, alpha=2)), W, rows(3, 6, 2))
    check(lambda x, y: (x @ y, x.transpose(1, 2) @ x), rows(2, 20, 30), rows(2, 30, 20, seed=1))
    check(lambda v, a: (v @ v, a @ v, torch.outer(v, v), torch.addmv(v[:4], a, v, beta=0.5)), V, A)


def test_inputs_may_have_any_strides():
    base = rows(6, 8)
    strange = [
        base.T,
        base[:, ::2],
        base[1:3].expand(2, 8),
        base[:1].expand(5, 8),
        base[0, 0].expand(3),
        base[::2, 1::3],
    ]
    for leaf in strange:
        check(lambda x: (x * 2, x.sum(0), x.reshape(-1) + 1), leaf)


def test_a_carry_of_stride_zero():
    start = torch.tensor(2.0, dtype=torch.float64).expand(3)
    check(lambda c, k: scan_p(lambda c, x: (c * x, c + 0), (c,), (k,), (), 4, False), start, rows(4, 1).expand(4, 3))


def test_loops():
    def loops(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        c, ys = scan_p(lambda c, x, k: (torch.tanh(c + x) * k, c * x), (x,), (y,), (x,), 7, False)
        d, zs = scan_p(lambda c, x: (torch.sin(c) * x, c.sum()), (c,), (y,), (), 7, True)
        count = torch.zeros((), dtype=torch.int64)
        w, n = while_p(lambda a, n: a.sum() < 50.0, lambda a, n: (a * 1.5 + 1, n + 1), (d.abs(), count), ())
        (s,) = switch_p(n % 3, (lambda a: (a + 1,), lambda a: (a * 2,), lambda a: (a - 5,)), (w,))
        return c, ys, d, zs, w, n, s

    check(loops, rows(5), rows(7, 5))


def test_nested_loops_and_loops_without_iterations():
    def outer(c: Tensor) -> tuple[Tensor, ...]:
        inner, ys = scan_p(lambda d, e: (d * 0.9 + e, d + 0), (c * 0,), (), (c,), 4, False)
        last, zs = scan_p(lambda d, e: (d * 2, d + e), (inner,), (), (c,), 3, True)
        return torch.sin(c) + last * 0.1, ys.sum() + zs[0].sum()

    check(lambda x: scan_p(outer, (x,), (), (), 6, False), rows(5))
    check(lambda x: scan_p(lambda c: (c * 2, c + 1), (x,), (), (), 0, False), rows(5))


def test_a_loop_that_swaps_its_carries():
    check(lambda a, b: scan_p(lambda a, b: (b + 0, a + 1), (a, b), (), (), 5, False), rows(4), rows(4, seed=1))


def _turns(body, *carry, xs=()):
    return lambda *given: scan_p(body, given[: len(carry)], given[len(carry) :], (), 5, False)


IN_PLACE_CARRIES = {  # body of a loop, carry, number of carries that are updated in place
    "by itself": (lambda c: (torch.sin(c) + c * 2,), [A], 1),
    "with what it was": (lambda c, d: (c + d, torch.cos(c) * d), [A, A * 2], 2),
    "changing places": (lambda c, d: (d * 2, c + 1), [A, A * 2], 1),
    "one behind the other": (lambda c, d: (c.sin(), c), [A, A * 2], 2),
    "from other places": (lambda c: (c.flip(0) + c,), [A], 0),
    "from the sum": (lambda c: (c - c.mean(0),), [A], 1),
    "by a product": (lambda c: (c + c @ c,), [S / 20], 0),
    "and its former self": (lambda c: (c * 0.5, c.exp()), [A], 1),
    "from places": (lambda c, n: (c[n % 6], n + 1), [V, torch.arange(6)], 1),
    "in a loop": (lambda c: scan_p(lambda d, c: (d * 0.9 + c,), (c,), (), (c,), 3, False), [A], 1),
    "in a branch": (lambda c: switch_p((c.sum() > 0).long(), (lambda c: (c + 1,), lambda c: (c.sin(),)), (c,)), [A], 1),
}


@pytest.mark.parametrize("name", IN_PLACE_CARRIES)
def test_law_a_carry_updated_in_place_is_the_same(name):
    body, carry, count = IN_PLACE_CARRIES[name]
    check(_turns(body, *carry), *carry)
    source = native(_turns(body, *carry), *carry).source
    offsets = dict(re.findall(r"\*(b\d+) = \(\w+ \*\)\(work \+ (\d+)\);", source))
    swaps = re.findall(r"auto \*other = (b\d+); b\d+ = (b\d+);", source)
    assert sum(offsets[a] == offsets[b] for a, b in swaps[-len(carry) :]) == count


COLLAPSED = {  # kernel, inputs, number of loops after collapsing
    "all": (lambda w: torch.sin(w) * 2, [W], 1),
    "rows": (lambda w: w[:, :, :3] + 1, [W], 2),
    "transposed": (lambda w: w.transpose(0, 2) * 2, [W], 1),  # the result lies as its argument does
    "row by row": (lambda w: (w.transpose(0, 2) * 2).contiguous(), [W], 3),
    "broadcast": (lambda w: w * w[0, 0], [W], 2),
    "sums": (lambda w: (w * 2).sum((1, 2)), [W], 2),
    "counted": (lambda w: w.tril(), [W], 3),
}


@pytest.mark.parametrize("name", COLLAPSED)
def test_law_a_collapsed_kernel_computes_what_the_kernel_does(name, monkeypatch):
    fn, given, loops = COLLAPSED[name]
    check(fn, *given)
    together = native(fn, *given)
    kernel = together.source[together.source.index("int run(") :].split("\n   }\n")[0]
    assert kernel.count("for (int64_t i") == loops
    monkeypatch.setattr(
        import_module("torchpure.jit.native.codegen._statements"), "collapse_loops", lambda kernel: kernel
    )
    apart = native(fn, *given)
    torch.testing.assert_close(together(*given), apart(*given), rtol=1e-14, atol=0)


PICTURE = rows(2, 8, 6, 10).contiguous(memory_format=torch.channels_last)
KERNELS = rows(8, 8, 3, 3, seed=1).contiguous(memory_format=torch.channels_last)
LAYOUTS = {
    "transposed": (lambda a: ((a * 2).T, a.T.sin(), (a @ a.T)[:, None].permute(2, 1, 0)), A),
    "channels last": (lambda x, w: (torch.conv2d(x.relu(), w), torch.conv2d(x, w).tanh() + 1), PICTURE, KERNELS),
    "normalized": (lambda x, w: (functional.group_norm(x * 2, 2), x.flatten(1) * 2, functional.avg_pool2d(x, 2)), PICTURE, KERNELS),
    "repeated": (lambda a: ((a[:1] * 2).expand(3, 6).contiguous(), a.sum(1, keepdim=True)), A),
}  # fmt: skip


@pytest.mark.compile
@pytest.mark.parametrize("name", LAYOUTS)
def test_law_results_have_the_strides_that_eager_gives_them(name):
    fn, *tensors = LAYOUTS[name]
    for one, two in zip(native(fn, *tensors)(*tensors), fn(*tensors), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-13)
        assert one.stride() == two.stride()


def test_parts_of_a_result_are_written_where_the_whole_would_be_copied():
    source = native(lambda a, b: torch.cat([a * 2, b], 1), A, rows(4, 3, seed=1)).source
    assert "char *work" in source and not re.search(r"\*b\d+ = ", source)


L, R, BIAS = rows(72, 80), rows(80, 96, seed=1), rows(72, 96, seed=2)


def _doubled(product):
    return product + product


def _twice(c, product):
    return c + product, product.sin()


SUMS = {  # sums that take a product, and whether the product accumulates into the other term
    "plus": (lambda c, a, b: c + a @ b, True),
    "before": (lambda c, a, b: a @ b + c.sin(), True),
    "minus": (lambda c, a, b: c - 0.1 * (a @ b), True),
    "from": (lambda c, a, b: a @ b - c, False),
    "two": (lambda c, a, b: (c + a @ b) + (a * 2) @ b, True),
    "itself": (lambda c, a, b: _doubled(a @ b), False),
    "used again": (lambda c, a, b: _twice(c, a @ b), False),
    "sum used again": (lambda c, a, b: (c + a @ b).sin(), False),
    "across": (lambda c, a, b: c.T + (a @ b).T, True),
    "across, row by row": (lambda c, a, b: (c.T + (a @ b).T).contiguous(), False),
    "row": (lambda c, a, b: c[0] + a @ b, True),
    "by a number of the program": (lambda c, a, b: c + c[0, 0] * (a @ b), None),
    "by zero": (lambda c, a, b: c + 0.0 * (a @ (b / 0)), None),
}


@pytest.mark.parametrize("size", [40, 72])  # a product in registers, and one by BLAS
@pytest.mark.parametrize("name", SUMS)
def test_law_accumulation_changes_no_result_by_more_than_a_rounding(name, size):
    fn, adds = SUMS[name]
    given = BIAS[:size], L[:size], R
    check(fn, *given)
    source = native(fn, *given).source
    expected = size == 40 if adds is None else adds
    if adds is not None or name != "by zero":
        assert ("+= factor *" in source or "kept = 1;" in source) == expected


def test_callbacks_run_in_order_with_their_values():
    seen = []

    def body(c: Tensor) -> tuple[Tensor, ...]:
        callback_p(lambda v: seen.append(v), (c.T,), "")
        return (c * 2,)

    program = native(lambda x: scan_p(body, (x,), (), (), 3, False), torch.ones(2, 3))
    program(torch.arange(6.0).reshape(2, 3))
    assert [leaf.tolist() for leaf in seen[:2]] == [
        [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]],
        [[0.0, 6.0], [2.0, 8.0], [4.0, 10.0]],
    ]
    assert len(seen) == 3


def test_an_exception_of_a_callback_ends_the_program():
    def fail(_: Tensor) -> None:
        raise KeyError("mine")

    def run(x: Tensor) -> Tensor:
        callback_p(fail, (x,), "")
        return x * 2

    program = native(run, torch.ones(2))
    with pytest.raises(KeyError, match="mine"):
        program(torch.ones(2))


def test_a_callback_may_run_the_same_program():
    seen = []

    def again(x: Tensor) -> None:
        if len(seen) < 2:
            seen.append(x.clone())
            program(x + 1)

    def run(x: Tensor) -> tuple[Tensor, ...]:
        def body(c: Tensor) -> tuple[Tensor, ...]:
            callback_p(again, (c,), "")
            return (c * 2 + 1,)

        return scan_p(body, (x,), (), (), 4, False)

    program = native(run, torch.ones(3))
    assert program(torch.ones(3))[0].tolist() == [31.0, 31.0, 31.0]


def test_a_check_that_does_not_hold():
    import torchpure as tp

    def root(x: Tensor) -> Tensor:
        tp.check(x >= 0, "the root of a negative number")
        return x.sqrt()

    program = native(root, torch.ones(2))
    assert program(torch.full((2,), 4.0))[0].tolist() == [2.0, 2.0]
    with pytest.raises(CheckError, match=r"^the root of a negative number, line \d+ of test_native.py$"):
        program(-torch.ones(2))


def test_an_index_out_of_range():
    program = native(lambda x, i: x[i], rows(4), torch.tensor([0, 1]))
    assert torch.equal(program(rows(4), torch.tensor([-1, 3]))[0], rows(4)[[-1, 3]])
    with pytest.raises(IndexError, match="out of range in a compiled program"):
        program(rows(4), torch.tensor([0, 4]))


_TWO, _ROW = rows(2, 6), torch.tensor([[0, 1, 2, 0, 1, 3]])
_PLACES = {  # operations whose indices may not be negative, unlike those of `x[i]`
    "cross entropy": (lambda a, i: functional.cross_entropy(a[:2], i), torch.tensor([5, 2])),
    "nll_loss": (lambda a, i: functional.nll_loss(a[:2], i), torch.tensor([5, -100])),
    "nll_loss of pixels": (lambda a, i: functional.nll_loss(a[None], i), torch.tensor([[1, 3, 2, 0, -100, 3]])),
    "embedding": (lambda a, i: functional.embedding(i, a), _ROW),
    "a dead embedding": (
        torch.func.grad(lambda a, i: functional.embedding(i, a, padding_idx=1).sum()),
        torch.tensor([2, 1, 2]),
    ),
    "gather": (lambda a, i: a.gather(0, i), _ROW),
    "index_select": (lambda a, i: a.index_select(0, i), torch.tensor([3, 0], dtype=torch.int32)),
    "scatter": (lambda a, i: a.scatter(0, i, a.exp()), _ROW),
    "scatter_add": (lambda a, i: a.scatter_add(0, i, a), _ROW),
    "index_add": (lambda a, i: a.index_add(0, i, _TWO, alpha=2), torch.tensor([3, 1])),
    "index_copy": (lambda a, i: a.index_copy(0, i, _TWO), torch.tensor([3, 1])),
}


@pytest.mark.parametrize("name", _PLACES)
def test_an_index_that_may_not_be_negative(name):
    fn, places = _PLACES[name]
    check(fn, A, places)
    program = native(fn, A, places)
    for wrong in (-1, 6):
        bad = torch.where(torch.arange(places.numel()).reshape(places.shape) == 0, wrong, places)
        with pytest.raises((IndexError, RuntimeError)):
            fn(A, bad)
        with pytest.raises(IndexError, match="out of range in a compiled program"):
            program(A, bad)


def test_indices_that_count_from_the_end():
    places = torch.tensor([-1, 1])
    check(lambda a, i: (a.index_fill(0, i, 5.0), a[i], a.index_put((i,), a[0]), a.take(i)), A, places)


def test_an_integer_divided_by_zero():
    program = native(lambda a, b: (a // b, a % b), N, N + 7)
    assert torch.equal(program(N, N + 7)[0], N // (N + 7))
    with pytest.raises(ZeroDivisionError, match="an integer is divided by zero"):
        program(N, N)


def test_integers_wrap():
    large = torch.tensor([2**62, -(2**63), 5])
    check(lambda n: (n * 3, n + n, n * n, n // -1), large)


def test_unsupported_programs_are_left_to_other_backends():
    for fn, leaf in (
        (torch.bernoulli, A.abs() / 9),
        (lambda x: x.histc(4), A),
        (lambda x: torch.linalg.eigvals(x[:, :4]).abs(), A),
        (lambda x: x.to(torch.complex128) * 1j, A),
        (lambda x: (x * 1j).imag, A),
        (lambda x: x == 1j, A),
        (lambda x: scan_p(lambda c, row: (c, row == 1j), (x[0],), (x,), (), 4, False), A),
        (lambda x: x[:0].index_put((torch.tensor([0]),), x[0]), A),
        (lambda x: scan_p(lambda c, row: (c, row[:0].max(0)[0]), (x[0],), (x,), (), 4, False), A),
        (lambda x: x.to(torch.bfloat16) + 1, A),
    ):
        with pytest.raises(UnsupportedError):
            compile_cpp(trace(lambda x, fn=fn: tuple(as_tuple(fn(x))), (leaf,)), (leaf,), load_library)


SUMS_OF_MANY = {  # functions whose results are wrong if a sum of float32 loses digits, and their inputs
    "rows": (lambda z: (z.var(0), z.mean(0), ((z - z.mean(0)) / z.std(0)).square().mean()), rows(30_000, 4)),
    "more rows": (lambda z: (z.var(0), z.sum(0)), rows(300_000, 3)),
    "flat": (lambda z: (z.var(), z.mean(), z.sum()), rows(1_000_003)),
    "columns": (lambda z: (z.var(1), z.sum(1)), rows(3, 200_000)),
    "running": (lambda z: (z.cumsum(0)[-1],), rows(500_000)),
}


@pytest.mark.compile
@pytest.mark.parametrize("name", SUMS_OF_MANY)
def test_sums_of_many_numbers_keep_their_digits(name):
    fn, z = SUMS_OF_MANY[name]
    z = (z.sigmoid() + 1000).float()
    for found, wanted in zip(native(fn, z)(z), fn(z.double()), strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=2e-5, atol=1e-6)


def test_fusion_changes_no_result_and_writes_no_memory_that_is_not_read():
    program = native(lambda a: (torch.tanh(a * 2 + 1).exp() / 3).sum(1), A)
    kernel = program.source[program.source.index("int run(") :]
    assert kernel.count("for (int64_t") == 2  # rows, and the sum over columns
    assert "work +" not in kernel


def test_kernels_are_fused_over_a_reshape():
    """A layer adds its bias to rows, and the next operation works on batches of rows."""

    def layer(x, bias):
        rows_with_bias = (x * 2).reshape(8, 6) + bias
        return rows_with_bias.reshape(2, 4, 6).relu().reshape(48).exp()

    program = native(layer, rows(2, 4, 6), V)
    kernel = program.source[program.source.index("int run(") :]
    assert kernel.count("for (int64_t") == 2 and "work +" not in kernel  # rows and columns


def _deep(x, depth):
    for _ in range(depth):
        x = torch.tanh(x).cumsum(0).sort(-1)[0]  # neither sums nor sorts can be fused
    return x, x.sum()


@pytest.mark.compile
def test_kernels_of_one_structure_share_a_function(monkeypatch):
    inline = jit(_deep, static=1)(A, 4)
    monkeypatch.setattr(_translation_unit, "MAX_INLINE_KERNELS", 0)
    shared = [jit(_deep, static=1).lower(A, depth).source.count("noinline") for depth in (4, 12)]
    assert shared[0] == shared[1] > 0  # a deeper program has no more functions
    in_functions = jit(_deep, static=1)(A, 4)
    assert all(map(torch.equal, inline, in_functions))


def _batched_products(small, large):
    """Multiply in tiles, after a transposition, and by BLAS: each loops over the batch."""
    return torch.bmm(small, small).tanh(), torch.bmm(small, small.mT), torch.bmm(large, large.mT)


@pytest.mark.compile
@pytest.mark.parametrize(
    "name", ["gathered", "extremes", "put", "bools", "factors", "sorted", "in a loop", "batched products"]
)
def test_a_program_equals_its_function_with_kernels_in_functions(name, monkeypatch):
    monkeypatch.setattr(_translation_unit, "MAX_INLINE_KERNELS", 0)
    fn, *tensors = (PROGRAMS | BY_TORCH | {"batched products": (_batched_products, rows(3, 24, 24), rows(2, 96, 96))})[
        name
    ]
    check(fn, *tensors)
