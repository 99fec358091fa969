"""Errors name the function, the line, what was wrong and what to do. Also: machines without a compiler."""

import warnings

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure.errors import ImpureError, TransformError
from torchpure.jit import _executable

D = torch.float64
X = torch.linspace(-1, 1, 6, dtype=D)
KEPT = []
TOTALS = torch.zeros(6, dtype=D)


def _add_to_totals(x):
    TOTALS.add_(1)
    return x


def _add_traced(x):
    TOTALS.add_(x)
    return x


def _write(x):
    x.mul_(2)
    return x


def _write_view(x):
    x[1:] = 0
    return x


def _keep(x):
    KEPT.append(x * 2)
    return x


LINE = r"jit: `[\w<>]+` \(test_errors.py:\d+\), line \d+ of test_errors.py,"
ADVICE = (
    r"choose with tp.where, or tp.cond for a branch, keep values as tensors instead of .item\(\), or name .* in static="
)
NUMBERS = {
    "branch": lambda x: x if x.sum() > 0 else -x,
    "item": lambda x: x[: int(x.sum().item())],
    "float": lambda x: x * float(x[0]),
    "int": lambda x: x[int(x[0]) :],
    "bool": lambda x: bool(x[0]),
    "while": lambda x: [x for _ in range(x.argmax())],
    "under grad": lambda x: tp.grad(lambda x: (x if x.sum() > 0 else -x).sum())(x),
    "under vmap": lambda x: x if tp.vmap(torch.sin)(x).sum() > 0 else -x,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_reading_a_number_while_tracing_names_the_line_and_what_to_do(name):
    with pytest.raises(TransformError, match=rf"{LINE} needs the number of a tensor that has none here: {ADVICE}"):
        tp.jit(NUMBERS[name])(X)


SIZES = {"mask": lambda x: x[x > 0], "nonzero": lambda x: x.nonzero(), "unique": lambda x: x.unique()}


@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_depends_on_numbers_names_the_line_and_what_to_do(name):
    with pytest.raises(TransformError, match=rf"{LINE} makes a tensor whose size depends on numbers, .* tp.where"):
        tp.jit(SIZES[name])(X)


ONE = torch.ones(3, 3)
ROWS = torch.tensor([0, 2])
DTYPES = {
    "matmul": (torch.matmul, ONE, ONE.double()),
    "integers": (torch.matmul, ONE.long(), ONE),
    "linear": (nn.functional.linear, ONE, ONE.double()),
    "bias": (torch.addmm, ONE.double(), ONE, ONE),
    "mv": (torch.mv, ONE, ONE[0].double()),
    "dot": (torch.dot, ONE[0], ONE[0].double()),
    "bmm": (torch.bmm, ONE[None], ONE[None].double()),
    "conv": (nn.functional.conv1d, ONE[None], ONE[None].double()),
    "index_put": (lambda x, y: x.index_put((ROWS,), y), ONE, ONE[0].double()),
    "index_add": (lambda x, y: x.index_add(0, ROWS, y), ONE, ONE[:2].double()),
    "layer_norm": (lambda x, w: nn.functional.layer_norm(x, (3,), w), ONE, ONE[0].double()),
    "layer_norm of halves": (lambda x, w: nn.functional.layer_norm(x, (3,), w, x[0]), ONE.bfloat16(), ONE[0]),
    "group_norm": (lambda x, w: nn.functional.group_norm(x, 3, w), ONE, ONE[0].double()),
    "batch_norm": (lambda x, w: nn.functional.batch_norm(x, None, None, w, training=True), ONE, ONE[0].double()),
    "nll_loss": (lambda x, w: nn.functional.nll_loss(x[:2], ROWS, w), ONE, ONE[0].double()),
    "under grad": (lambda x, y: tp.grad(lambda x: (x @ y).sum())(x), ONE, ONE.double()),
}


@pytest.mark.parametrize("name", DTYPES)
def test_dtypes_that_torch_does_not_mix_are_refused(name):
    fn, *given = DTYPES[name]
    with pytest.raises(RuntimeError):
        fn(*given)
    for transform in (tp.jit, tp.make_graph, tp.eval_shape):
        with pytest.raises(
            TransformError, match=r"gives a \w+ tensor and a \w+ tensor to `aten.*needs one dtype: cast"
        ):
            tp.eval_shape(fn, *given) if transform is tp.eval_shape else transform(fn)(*given)


MIXED = {
    "layer_norm": (lambda x, w: nn.functional.layer_norm(x, (3,), w, w), ONE.bfloat16(), ONE[0]),
    "batch_norm": (lambda x, w: nn.functional.batch_norm(x, w, w, w, w), ONE.bfloat16(), ONE[0]),
    "sums": (torch.add, ONE, ONE.double()),
    "autocast": (lambda x, y: _under_autocast(x, y), ONE, ONE.bfloat16()),
    "members": (tp.vmap(lambda x, w: nn.functional.layer_norm(x, (3,), w)), ONE, ONE.double()),
}


def _under_autocast(x, y):
    with torch.autocast("cpu", torch.bfloat16):
        return nn.functional.linear(x, y)


@pytest.mark.parametrize("name", MIXED)
def test_dtypes_that_torch_mixes_stay_legal(name):
    fn, *given = MIXED[name]
    wanted = fn(*given)
    torch.testing.assert_close(tp.make_graph(fn)(*given)(*given), wanted)
    torch.testing.assert_close(tp.jit(fn)(*given), wanted)


DROP = nn.Dropout()
DRAWS = {
    "rand": lambda x: x + torch.rand(6),
    "randn_like": lambda x: x + torch.randn_like(x),
    "dropout": lambda x: nn.functional.dropout(x),
    "randperm": lambda x: x[torch.randperm(6)],
    "under grad": lambda x: tp.grad(lambda x: (x * torch.rand(6)).sum())(x),
    "module": lambda x: DROP(x),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_from_the_global_generator_is_refused(name):
    before = torch.get_rng_state()
    with pytest.raises(
        TransformError, match=rf"{LINE} draws from the global generator, .*Pass a key, and draw with tp"
    ):
        tp.jit(DRAWS[name])(X)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_change_of_an_input_is_refused():
    x = X.clone()
    for f in (_write, _write_view):
        with pytest.raises(ImpureError, match=r"jit: `_write.*changes argument 0 in place"):
            tp.jit(f)(x)
        with pytest.raises(ImpureError, match="changes a keyword argument in place"):
            tp.jit(f)(x=x)
    assert torch.equal(x, X)


@pytest.mark.parametrize("f", [_add_to_totals, _add_traced])
def test_a_change_of_a_captured_tensor_is_refused_before_it_happens(f):
    with pytest.raises(ImpureError, match="float64 tensor of shape .*`TOTALS`"):
        tp.jit(f)(X)
    assert not TOTALS.any()


def test_running_statistics_of_a_captured_module_are_not_changed():
    net = nn.BatchNorm1d(3).double()
    before = {name: leaf.clone() for name, leaf in net.state_dict().items()}
    with torch.no_grad(), pytest.raises(ImpureError):
        tp.jit(lambda x: net(x))(X.reshape(2, 3))
    assert all(map(torch.equal, net.state_dict().values(), before.values()))


def test_storing_a_traced_tensor_outside_is_refused():
    with pytest.raises(ImpureError, match="lets a traced tensor out, .*`KEPT.0`: it has no meaning there"):
        tp.jit(_keep)(X)


MISUSES = {
    "static": (lambda: tp.jit(_keep, static="n"), r"static='n' must hold positions or names of arguments: `_keep` .* \(it has: x\)"),
    "static list": (lambda: tp.jit(lambda x, n: x, static=1)(X, [1]), r"the static argument 1 cannot be compared, it is list of 1: pass .* a tuple"),
    "static name": (lambda: tp.jit(lambda x, n: x, static=1)(X, n={}), "the static argument 'n' cannot be compared"),
    "numpy": (lambda: tp.jit(lambda x, n: x)(X, {"a": X.numpy()}), r"argument `1.a` is ndarray .*torch.as_tensor"),
    "not a function": (lambda: tp.jit(3), "jit: wanted a function, got int 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISUSES)
def test_misuse(name):
    call, message = MISUSES[name]
    with pytest.raises(TransformError, match=message):
        call()


def test_errors_of_the_function_are_its_own():
    def f(x):
        raise KeyError("mine")

    for _ in range(2):
        with pytest.raises(KeyError, match="mine"):
            tp.jit(f)(X)
    with pytest.raises(RuntimeError, match="size"):
        tp.jit(lambda x: x @ torch.ones(2, dtype=D))(X)


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_functions_run_uncompiled_and_say_so_once(
    compiler, compiler_of_environment, monkeypatch, tmp_path
):
    compiler_of_environment(compiler)
    monkeypatch.setenv("TORCHPURE_CACHE", str(tmp_path))
    _executable._warn.cache_clear()
    f, g = tp.jit(lambda x: torch.sin(x) * 3), tp.jit(lambda x: torch.cos(x) * 3, donate=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            given = X.clone()
            assert torch.equal(f(X), torch.sin(X) * 3) and torch.equal(g(given), torch.cos(X) * 3)
            with pytest.raises(ImpureError, match="donated"):
                given + 1
    same = tp.jit(lambda x: (x, torch.sin(x)), donate=0)(X.clone())[0]
    assert torch.equal(same + 1, X + 1)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert "run uncompiled" in str(caught[0].message) and "apt-get install g++" in str(caught[0].message)
    _executable._warn.cache_clear()
