"""Shapes without values, programs, scopes, checks, constants, and choices with finite derivatives."""

from itertools import product

import pytest
import torch
from daily import daily
from stacks import STACKS, XS, D, U, V
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import CheckError, StructureError, TransformError
from torchpure.testing import assert_trees_close_to_rounding


def f(x):
    return torch.sin(x).prod() + x.sum() ** 2


@pytest.mark.parametrize("stack", [name for name in STACKS if "autograd" not in name and "graph" not in name])
def test_law_a_graph_computes_what_the_function_does(stack):
    graph = tp.make_graph(lambda scale: STACKS[stack](lambda x: f(x) * scale))(torch.ones((), dtype=D))
    two = torch.tensor(2.0, dtype=D)
    assert_close(graph(two), STACKS[stack](lambda x: f(x) * two), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("stack", [name for name in STACKS if "autograd" not in name and "graph" not in name])
def test_law_eval_shape_is_the_shape_of_the_value(stack):
    wanted = STACKS[stack](f)
    shape = tp.eval_shape(lambda scale: STACKS[stack](lambda x: f(x) * scale), torch.ones((), dtype=D))
    assert shape == tp.ShapeDtype(tuple(wanted.shape), D)


def test_eval_shape_of_a_model_that_would_not_fit():
    net = tp.functional(lambda: torch.nn.Linear(30_000, 30_000, device="meta"))
    like = tp.tree.map(lambda leaf: tp.ShapeDtype(tuple(leaf.shape), leaf.dtype), net.params)
    x = tp.ShapeDtype((7, 30_000), torch.float32)
    out = tp.eval_shape(lambda p, x: {"grads": tp.grad(lambda p: net(p, x).sum())(p), "n": 3}, like, x)
    assert out["n"] == 3 and out["grads"] == like


def test_a_graph_prints_and_names_its_scopes():
    def layer(x):
        with tp.named_scope("square"):
            y = x**2
        return {"y": y + 1}

    graph = tp.make_graph(tp.vmap(layer))(XS)
    assert "aten.pow.Tensor_Scalar" in str(graph) and "def forward" in str(graph)
    scopes = {str(node.target): node.meta.get("custom") for node in graph.module.graph.nodes}
    assert scopes["aten.pow.Tensor_Scalar"] == {"scope": "square"} and scopes["aten.add.Tensor"] is None
    assert_close(graph(XS + 1)["y"], (XS + 1) ** 2 + 1)
    with torch.autograd.profiler.profile() as profile:
        layer(U)
    assert "square" in {event.key for event in profile.key_averages()}


BRANCHES = {
    "branch": lambda x: x if x.sum() > 0 else -x,
    "item": lambda x: x * x.sum().item() if x.sum().item() > 0 else x,
}


@pytest.mark.parametrize("name", BRANCHES)
@pytest.mark.parametrize("who", ["eval_shape", "make_graph"])
def test_a_function_that_needs_numbers_is_an_error_that_names_the_line(who, name):
    run = {"eval_shape": tp.eval_shape, "make_graph": lambda fn, x: tp.make_graph(fn)(x)}[who]
    with pytest.raises(TransformError, match=rf"{who}: `.*, line \d+ of test_graph_and_checks.py, needs the number"):
        run(BRANCHES[name], U)


def root(x):
    tp.check(x >= 0, "a root of a negative number")
    return torch.sqrt(x).sum()


SEVEN = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, -1.0, 1.0])
SEVEN_BY_FOUR = torch.where(torch.arange(28) == 23, -1.0, 1.0).reshape(7, 4)  # of row 5 the last
CHECKS = {
    "eager": (lambda: root(-U), r"^a root of a negative number, line \d+ of test_graph_and_checks.py$"),
    "grad": (lambda: tp.grad(root)(-U), "^a root of a negative number, line"),
    "jvp": (lambda: tp.jvp(root, (-U,), (U,)), "^a root of a negative number, line"),
    "vmap": (lambda: tp.vmap(root)(XS), "number: members 1, 2 of vmap, line"),
    "vmap of numbers": (lambda: tp.vmap(root)(V), "number: member 1 of vmap"),
    "vmap grad": (lambda: tp.vmap(tp.grad(root))(XS), "number: members 1, 2 of vmap"),
    "grad vmap": (lambda: tp.grad(lambda x: tp.vmap(root)(x).sum())(XS), "number: members 1, 2 of vmap"),
    "vmap vmap": (lambda: tp.vmap(tp.vmap(root), in_dims=1)(XS), r"number: members \(1, 1\), \(1, 2\) of vmap"),
    "vmap hessian": (lambda: tp.vmap(tp.hessian(root))(XS), "number: members"),
    "many": (lambda: tp.vmap(root)(-torch.ones(9)), "number: members 0, 1, 2, 3, 4 and 4 more of vmap"),
    "bool": (lambda: tp.check(False, "no"), "^no, line"),
    "chunks": (lambda: tp.vmap(root, chunk_size=3)(SEVEN), "number: member 5 of vmap"),
    "chunks, from the end": (
        lambda: tp.vmap(root, in_dims=-1, chunk_size=3)(SEVEN.expand(2, 7)),
        "number: member 5 of vmap",
    ),
    "devices": (lambda: tp.vmap(root, devices=["cpu"] * 3)(SEVEN), "number: member 5 of vmap"),
    "devices and chunks": (lambda: tp.vmap(root, devices=["cpu"] * 2, chunk_size=2)(SEVEN), "number: member 5 of vmap"),
    "chunks, traced": (
        lambda: tp.make_graph(tp.vmap(root, chunk_size=3))(SEVEN.abs())(SEVEN),
        "number: member 5 of vmap",
    ),
    "chunks, jit": (lambda: tp.jit(tp.vmap(root, chunk_size=3))(SEVEN), "number: member 5 of vmap"),
    "chunks, grad": (lambda: tp.vmap(tp.grad(root), chunk_size=3)(SEVEN), "number: member 5 of vmap"),
    "grad, chunks": (
        lambda: tp.grad(lambda x: tp.vmap(root, chunk_size=3)(x).sum())(SEVEN),
        "number: member 5 of vmap",
    ),
    "chunks, jacrev": (lambda: tp.vmap(tp.jacrev(root), chunk_size=3)(SEVEN), "number: member 5 of vmap"),
    "chunks in chunks": (
        lambda: tp.vmap(tp.vmap(root, chunk_size=3), chunk_size=2)(SEVEN_BY_FOUR),
        r"number: member \(5, 3\) of vmap",
    ),
    "chunks in members": (
        lambda: tp.vmap(tp.vmap(root, chunk_size=3))(SEVEN_BY_FOUR),
        r"number: member \(5, 3\) of vmap",
    ),
    "members in chunks": (
        lambda: tp.vmap(tp.vmap(root), chunk_size=3)(SEVEN_BY_FOUR),
        r"number: member \(5, 3\) of vmap",
    ),
    "chunks in members, jit": (
        lambda: tp.jit(tp.vmap(tp.vmap(root, chunk_size=3)))(torch.cat([SEVEN_BY_FOUR.abs()] * 3 + [SEVEN_BY_FOUR])),
        r"number: member \(26, 3\) of vmap",
    ),
    "members after chunks": (
        lambda: (tp.vmap(root, chunk_size=3)(SEVEN.abs()), tp.vmap(root)(SEVEN)),
        "number: member 5 of vmap",
    ),
    "map in batches": (lambda: tp.map(root, SEVEN, batch_size=2), "number: member 5 of vmap"),
    "map in batches, the last": (lambda: tp.map(root, SEVEN, batch_size=4), "number: member 5 of vmap"),
    "map in batches, traced": (
        lambda: tp.make_graph(lambda x: tp.map(root, x, batch_size=2))(SEVEN.abs())(SEVEN),
        "number: member 5 of vmap",
    ),
    "map in batches, jit": (lambda: tp.jit(lambda x: tp.map(root, x, batch_size=2))(SEVEN), "number: member 5 of vmap"),
    "map in batches, jit vmap": (
        lambda: tp.jit(tp.vmap(lambda x: tp.map(root, x, batch_size=2)))(SEVEN.expand(2, 7)),
        r"number: members \(0, 5\), \(1, 5\) of vmap",
    ),
    "map in batches, jit grad": (
        lambda: tp.jit(tp.grad(lambda x: tp.map(root, x, batch_size=2).sum()))(SEVEN),
        "number: member 5 of vmap",
    ),
    "chunks, jit loop": (
        lambda: tp.jit(tp.vmap(_steps, chunk_size=2))(torch.tensor([3.0, 2.0, 2.0, 0.0])),
        "member 3 of vmap",
    ),
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_names_the_member(name):
    call, message = CHECKS[name]
    with pytest.raises(CheckError, match=message):
        call()


def positive(x):
    tp.check(x > 0, "not positive")
    return torch.sqrt(x)


def counted(c):
    tp.check(c < 3, "ran past the end")
    return c + 1


def below(c):
    return c < 3


def never(x):
    tp.check(False, "never")
    return x


def unchanged(x):
    return x


SOME = {  # what some members do, or do no longer
    "cond": lambda x: tp.cond(x > 0, positive, unchanged, x),
    "captured": lambda x: tp.cond(x > 0, lambda: positive(x), lambda: x),
    "switch": lambda x: tp.switch((x < 0).long(), [positive, torch.sin], x),
    "bool": lambda x: tp.cond(x > 9, never, unchanged, x),
    "cond in cond": lambda x: tp.cond(x > -9, lambda x: tp.cond(x > 0, positive, unchanged, x), never, x),
    "remat in cond": lambda x: tp.cond(x > 0, tp.remat(positive), unchanged, x),
    "cond in remat": tp.remat(lambda x: tp.cond(x > 0, positive, unchanged, x)),
    "vmap in cond": lambda x: tp.cond(x > 0, lambda x: tp.vmap(positive)(torch.stack([x, x])).sum(), unchanged, x),
    "scan in cond": lambda x: tp.cond(
        x > 0, lambda x: tp.scan(lambda c, _: (positive(c), None), x, None, 3, remat=1)[0], unchanged, x
    ),
    "cond in scan": lambda x: tp.scan(lambda c, _: (tp.cond(c > 0, positive, unchanged, c), None), x, None, 3, remat=1)[
        0
    ],
    "while": lambda x: tp.while_loop(below, counted, x),
    "while, bounded": lambda x: tp.while_loop(below, counted, x, max_steps=6),
    "while in cond": lambda x: tp.cond(x > 0, lambda x: tp.while_loop(below, counted, positive(x)), unchanged, x),
}
MAPPED = {
    "vmap": tp.vmap,
    "vmap vmap": lambda f: lambda x: tp.vmap(tp.vmap(f))(x[None]),
    "jvp vmap": lambda f: lambda x: tp.jvp(tp.vmap(f), (x,), (x,))[1],
    "vmap jacfwd": lambda f: tp.vmap(tp.jacfwd(f)),
    "grad vmap": lambda f: tp.grad(lambda x: tp.vmap(f)(x).sum()),
    "vmap grad": lambda f: tp.vmap(tp.grad(f)),
    "vmap hessian": lambda f: tp.vmap(tp.hessian(f)),
}
BACK = {"grad vmap", "vmap grad", "vmap hessian"}


@pytest.mark.parametrize(("name", "stack"), daily(product(SOME, MAPPED), every=2))
def test_a_check_applies_to_active_members(name, stack):
    if name in {"while", "while in cond"} and stack in BACK:
        return  # no backward pass
    f, x = MAPPED[stack](SOME[name]), torch.tensor([1.0, -1.0, 4.0], dtype=D)
    assert torch.isfinite(f(x)).all()
    assert torch.isfinite(tp.make_graph(f)(x)(x)).all()


def too_small(x):
    tp.check(x > 2, "too small")
    return x * x


MISSED = {
    "cond": (lambda x: tp.cond(x > 0, too_small, unchanged, x), 0),
    "remat": (lambda x: tp.cond(x > 0, tp.remat(too_small), unchanged, x), 0),
    "the other": (lambda x: tp.cond(x > 0, unchanged, too_small, x), 1),
    "bool": (lambda x: tp.cond(x > 3, never, unchanged, x), 2),
    "while": (
        lambda x: tp.while_loop(below, lambda c: (tp.check(c > -0.5, "too small"), c + 1)[1], x, max_steps=6),
        1,
    ),
    "after the first turn": (
        lambda x: tp.while_loop(below, lambda c: (tp.check(c != 2, "too small"), c + 1)[1], x, max_steps=6),
        0,
    ),
}


@pytest.mark.parametrize("stack", MAPPED)
@pytest.mark.parametrize("name", MISSED)
def test_a_check_fails_for_an_active_member(name, stack):
    f, member = MISSED[name]
    f, x = MAPPED[stack](f), torch.tensor([1.0, -1.0, 4.0], dtype=D)
    where = rf"(too small|never): members? (\(0, )?{member}\b"
    with pytest.raises(CheckError, match=where):
        f(x)
    graph = tp.make_graph(f)(x)
    with pytest.raises(CheckError, match=where):
        graph(x)


def test_a_check_in_a_branch_that_does_not_run_is_skipped_in_a_program():
    f = tp.make_graph(lambda x: tp.cond(x.sum() > 2, never, unchanged, x))(U)
    assert_close(f(U), U)
    with pytest.raises(CheckError, match="never, line"):
        f(U * 9)


def test_a_check_in_a_traced_program_is_an_operation():
    for graph in (tp.make_graph(root)(U), tp.make_graph(tp.vmap(root))(U)):
        assert_close(graph(U), graph.module(U)[0])
        with pytest.raises(CheckError, match="a root of a negative number"):
            graph(-U)
    with pytest.raises(CheckError, match=r"number: members 1, 2 of vmap, line \d+ of test_graph_and_checks.py$"):
        tp.make_graph(tp.vmap(root))(XS.abs())(XS)
    tp.check(True, "yes")
    tp.check(U > 0, "yes")
    with pytest.raises(TransformError, match="check: the condition must be a bool or a tensor of bools, got a float64"):
        tp.check(U, "no")


def _steps(x):
    def body(c, _):
        tp.check(c > -2.5, "the carry is too small")
        return c - 1, c

    return tp.scan(body, x, None, length=4)[1]


def test_a_compiled_check_names_the_member_among_all():
    assert_close(tp.jit(root)(U), root(U))
    with pytest.raises(CheckError, match=r"^a root of a negative number, line \d+ of test_graph_and_checks.py$"):
        tp.jit(root)(-U)
    x = torch.ones(150, 4)
    program = tp.jit(tp.vmap(root))
    for failing in ([3], [3, 149], [70]):
        spoiled = x.clone()
        spoiled[failing] = -1
        for _ in range(2):  # the first call measures
            with pytest.raises(CheckError) as caught:
                program(spoiled)
            named = [index[0] for index in caught.value.members]
            assert named
            assert set(named) <= set(failing)  # those of the first chunk that failed
    with pytest.raises(CheckError, match="the carry is too small: member 2 of vmap, line"):
        tp.jit(tp.vmap(_steps))(torch.tensor([3.0, 2.0, 0.0]))
    with pytest.raises(CheckError, match="the carry is too small: member 2 of vmap, line"):
        tp.jit(tp.vmap(tp.grad(lambda x: _steps(x).sum())))(torch.tensor([3.0, 2.0, 0.0]))


@pytest.mark.compile
def test_a_check_in_a_compiled_program():
    compiled = torch.compile(root, fullgraph=True, backend="aot_eager")
    assert_close(compiled(U), root(U))
    with pytest.raises(RuntimeError, match="a root of a negative number"):
        compiled(-U)


CONSTANT = {"grad", "jvp", "jacfwd", "jacrev", "vjp", "vmap grad", "grad vmap", "vmap jvp", "hessian", "jvp jvp", "linearize", "vmap hessian"}  # fmt: skip


@pytest.mark.parametrize("stack", sorted(CONSTANT))
def test_law_stop_gradient_is_a_constant_everywhere(stack):
    out = STACKS[stack](lambda x: tp.stop_gradient({"x": f(x), "n": 1})["x"] + 0 * x.sum())
    assert torch.equal(out, torch.zeros_like(out))


def safe_root(x):
    return tp.where(x > 0, torch.sqrt, 0.0, x)


def test_law_the_branch_that_where_does_not_choose_has_derivative_zero():
    x = torch.tensor([0.0, 4.0, -1.0], dtype=D)
    wanted = torch.tensor([0.0, 0.25, 0.0], dtype=D)
    assert tp.grad(lambda x: torch.where(x > 0, torch.sqrt(x), 0.0).sum())(x).isnan().any()  # torch's own
    for out in (
        tp.grad(lambda x: safe_root(x).sum())(x),
        tp.vmap(tp.grad(safe_root))(x),
        tp.jvp(safe_root, (x,), (torch.ones_like(x),))[1],
        tp.grad(lambda x: tp.vmap(safe_root)(x).sum())(x),
        tp.make_graph(tp.vmap(tp.grad(safe_root)))(x)(x),
    ):
        assert_close(out, wanted)
    assert_close(tp.hessian(lambda x: safe_root(x).sum())(x).diagonal(), torch.tensor([0, -1 / 32, 0], dtype=D))
    both = tp.where(x > 0, torch.log, torch.abs, x, safe=2.0)
    assert_close(both, torch.tensor([0.0, 1.3862943611198906, 1.0], dtype=D))
    tree = tp.where(x > 0, {"a": x, "b": 1.0}, {"a": -x, "b": x})
    assert_close(tree["a"], x.abs())
    assert_close(tree["b"], torch.tensor([0.0, 1.0, -1.0], dtype=D))


def test_linear_transpose():
    a = torch.arange(6.0, dtype=D).reshape(3, 2)
    y = torch.tensor([1.0, -1.0, 0.5], dtype=D)
    pull = tp.linear_transpose(lambda p: {"y": a @ p["x"] + p["z"].sum()}, {"x": U, "z": V, "n": 3})
    (back,) = pull({"y": y})
    assert_close(back["x"], a.T @ y)
    assert_close(back["z"], y.sum().expand(2))
    assert back["n"] is None
    x = {"x": U, "z": V}
    assert_close((a @ U + V.sum()) @ y, sum((x[name] * back[name]).sum() for name in x))  # ⟨f(x), y⟩ = ⟨x, fᵀ(y)⟩
    assert_close(tp.vmap(lambda a: tp.linear_transpose(lambda x: a @ x, U)(y)[0])(torch.stack([a, -a]))[1], -a.T @ y)
    assert_close(tp.grad(lambda a: tp.linear_transpose(lambda x: a @ x, U)(y)[0].prod())(a), tp.grad(lambda a: (a.T @ y).prod())(a))  # fmt: skip


NOT_LINEAR = {
    "small": lambda x: 1e-4 * x**2,
    "tiny": lambda x: 1e-30 * torch.sin(x),
    "nearly": lambda x: x + 1e-6 * x**2,
    "at small numbers alone": torch.round,
    "at large numbers alone": lambda x: x.clamp(-1e6, 1e6),
    "but multiples": torch.relu,
    "but positive multiples": lambda x: x.norm(),
    "an affine trifle": lambda x: x + 1e-12,
    "a product of all": lambda x: x.prod(),
}
LINEAR = {
    "through float": lambda x: x.float().to(x.dtype),
    "through bfloat16": lambda x: x.bfloat16().to(x.dtype),
    "what cancels": lambda x: torch.fft.ifft(torch.fft.fft(x)).imag,
    "centred twice": lambda x: (x - x.mean()).mean(),
    "tiny": lambda x: 1e-20 * x,
    "nothing": lambda x: 0 * x,
    "infinite": lambda x: x * torch.tensor(float("inf")),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_function_that_is_not_linear_is_refused_at_any_magnitude(dtype):
    x = torch.linspace(-1, 1, 12, dtype=dtype)
    for f in NOT_LINEAR.values():
        with pytest.raises(TransformError, match="is not linear"):
            tp.linear_transpose(f, x)
    for f in LINEAR.values():
        assert tp.linear_transpose(f, x)(torch.ones_like(f(x)))[0].shape == x.shape


def test_a_function_that_is_not_linear_is_refused_inside_transforms_and_for_other_dtypes():
    def through(f):
        return lambda x: tp.linear_transpose(lambda y: f(y, x), x)(x)[0].sum()

    for outer in (tp.vmap, tp.grad, lambda f: tp.vmap(tp.grad(f)), tp.jacfwd, tp.hessian):
        given = XS if outer is not tp.grad else U
        with pytest.raises(TransformError, match="is not linear"):
            outer(through(lambda y, x: y**2 * x))(given)
    assert_close(tp.vmap(through(lambda y, x: y * x))(XS), (XS**2).sum(1))
    z = torch.complex(U, V)
    with pytest.raises(TransformError, match="is not linear"):
        tp.linear_transpose(lambda z: z.imag**2, z)
    assert_close(tp.linear_transpose(torch.conj, z)(z)[0], z.conj())
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(TransformError, match="is not linear"):
            tp.linear_transpose(torch.relu, U.to(dtype))
        assert_close(tp.linear_transpose(lambda x: x.float(), U.to(dtype))(U.float())[0], U.to(dtype))


def test_linearize_runs_the_function_once_and_takes_trees():
    runs = []

    def g(p):
        runs.append(1)
        return {"y": torch.sin(p["x"]) * p["z"].sum()}

    p, t = {"x": U, "z": V, "n": 3}, {"x": V, "z": None, "n": None}
    value, push = tp.linearize(g, p)
    for _ in range(3):
        assert_close(push(t)["y"], tp.jvp(g, (p,), (t,))[1]["y"])
    assert len(runs) == 1 + 3
    assert_trees_close_to_rounding(value, g(p))
    assert_close(tp.vmap(lambda v: push({"x": v, "z": v, "n": None}))(XS)["y"][1], tp.jvp(g, (p,), ({"x": V, "z": V, "n": None},))[1]["y"])  # fmt: skip


def test_linearize_of_rules_that_torch_transposes_badly():
    x = torch.tensor([0.5, -1.0, 2.0], dtype=D)
    for f in (lambda x: torch.logcumsumexp(x, 0), lambda x: torch.nn.functional.layer_norm(x, (3,))):
        assert_close(tp.linearize(f, x)[1](x), tp.jvp(f, (x,), (x,))[1])
        many = torch.stack([x, -x, x**2])
        wanted = torch.stack([tp.jvp(f, (one,), (x,))[1] for one in many])
        assert_close(tp.vmap(lambda one, f=f: tp.linearize(f, one)[1](x))(many), wanted)  # the tangent is not mapped
    hardsigmoid = torch.nn.functional.hardsigmoid
    try:
        pushed = tp.linearize(hardsigmoid, x)[1](x)
    except TransformError as error:  # torch has a rule only once it has loaded its decompositions
        assert "linearize: `hardsigmoid`" in str(error) and "needs the derivative of `aten::hardsigmoid_" in str(error)
    else:
        assert_close(pushed, tp.jvp(hardsigmoid, (x,), (x,))[1])


def test_torch_linearize_inside_grad_is_silently_wrong_and_ours_is_right():
    def ours(x):
        return tp.linearize(torch.sin, x)[1](x).sum()

    wanted = torch.cos(U) - U * torch.sin(U)  # d/dx of x cos x
    assert_close(tp.grad(ours)(U), wanted)
    try:
        theirs = torch.func.grad(lambda x: torch.func.linearize(torch.sin, x)[1](x).sum())(U)
    except Exception as error:  # garbage that varies from run to run
        theirs = torch.full_like(U, float("nan")) if error else None
    assert not torch.allclose(theirs, wanted)


def test_where_keeps_the_dtype_of_operands():
    condition, ints = torch.tensor([True, False]), torch.tensor([16777217, 5])
    out = tp.where(condition, lambda i: i * 2, 0, ints)
    assert out.dtype == torch.int64 and out.tolist() == [33554434, 0]
    assert tp.where(condition, torch.logical_not, False, ints > 9).tolist() == [False, False]
    assert tp.where(condition, torch.neg, 0, ints.to(torch.int16)).dtype == torch.int16


@pytest.mark.parametrize(("x", "y"), [(0.0, {"a": U}), ({"a": U}, 0.0), ({"a": U}, {"b": U}), (U, None)])
def test_where_refuses_branches_of_different_structures(x, y):
    with pytest.raises(StructureError, match=r"where: the branches: trees differ at `\.`: wanted "):
        tp.where(U > 0, x, y)


def dot(p):
    return (p["a"] * p["b"]).sum()


ERRORS = {
    "where: condition": (lambda: tp.where(U, U, V), "where: the condition must be a tensor of bools, got a float64 tensor"),
    "where: operands": (lambda: tp.where(U > 0, U, V, U), "operands are for branches that are functions"),
    "where: no operands": (lambda: tp.where(U > 0, torch.sin, V), "functions need operands"),
    "where: leaf": (lambda: tp.where(U > 0, {"a": U, "b": "one"}, {"a": U, "b": "two"}), "where: at `b` wanted tensors or numbers, got str 'one'"),
    "where: safe": (lambda: tp.where(U > 0, torch.neg, 0, torch.arange(2), safe=0.5), r"where: safe=0.5 cannot stand in an operand that is an int64 tensor of shape \(2,\)"),
    "where: operand": (lambda: tp.where(U > 0, lambda p: p["a"], 0, {"a": U}), "where: operands must be tensors, got dict of 1"),
    "not linear": (lambda: tp.linear_transpose(torch.sin, U), "linear_transpose: `sin` is not linear. Use vjp"),
    "a bool is not linear": (lambda: tp.linear_transpose(lambda x: x > 0, U), "linear_transpose: .* must return floating point"),
    "affine": (lambda: tp.linear_transpose(lambda x: x + 1, U), "is not linear"),
    "linearize: count": (lambda: tp.linearize(torch.sin, U)[1](U, U), "linearize: wanted 1 tangents, one a primal, got 2"),
    "linearize: shape": (lambda: tp.linearize(torch.sin, U)[1](U[:1]), r"linearize: tangent of argument 0: wanted a float64 tensor of shape \(2,\), got"),
    "linearize: output": (lambda: tp.linearize(lambda x: (x, 3), U), "linearize: .* must return floating point or complex tensors"),
    "graph: shape": (lambda: tp.make_graph(tp.grad(lambda x: x.mean()))(torch.ones(3))(torch.ones(6)), r"make_graph: the program of `<lambda>` .*: argument 0: wanted a float32 tensor of shape \(3,\) on cpu, got a float32 tensor of shape \(6,\) on cpu. Trace it again"),
    "graph: dtype": (lambda: tp.make_graph(dot)({"b": U, "a": V})({"a": V.float(), "b": U}), r"argument 0 at `a`: wanted a float64 tensor of shape \(2,\) on cpu, got a float32"),
    "graph: number": (lambda: tp.make_graph(torch.mul)(U, 2.0)(U, 3.0), "argument 1: wanted float 2.0, got float 3.0"),
    "graph: tensor": (lambda: tp.make_graph(torch.mul)(U, 2.0)(U, V), "argument 1: wanted float 2.0, got a float64 tensor"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, message = ERRORS[name]
    with pytest.raises(TransformError, match=message):
        call()


def test_a_graph_refuses_another_structure_than_the_traced_one():
    with pytest.raises(
        StructureError, match="make_graph: the arguments .* `dot` .* at `0`: wanted keys 'a', 'b', got 'a'"
    ):
        tp.make_graph(dot)({"a": U, "b": V})({"a": U})
    with pytest.raises(StructureError, match=r"make_graph: .* at `\.`: wanted 1 items, got 2"):
        tp.make_graph(torch.sin)(U)(U, U)


WEIGHTS = torch.ones(3)


def _filled(x):
    out = torch.zeros_like(WEIGHTS)
    out[0] = x.sum()
    out[1:].add_(x[:2])
    return out * 2, out


def _normalized(x):
    """Normalise in training mode: torch writes the running mean, though the signature of the operation hides it."""
    mean, variance = torch.zeros_like(WEIGHTS), torch.ones_like(WEIGHTS)
    out = torch.nn.functional.batch_norm(x.outer(x), mean, variance, training=True)
    return out, mean, variance


@pytest.mark.parametrize("fn", [_filled, _normalized])
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.compile)])
def test_a_write_to_a_constant_is_part_of_the_program_and_undone_before_the_next_run(fn, compiled):
    x = torch.arange(1.0, 4.0)
    program = tp.jit(fn) if compiled else tp.make_graph(fn)(x)
    for given in (x, x + 1, x):
        for one, two in zip(program(given), fn(given), strict=True):
            assert_close(one, two)


def _bumped(x, *index):
    out = x.clone()
    out[index if len(index) > 1 else index[0]] = 7.0
    return out


PLACES = {
    "one": lambda x, i, j: x[i],
    "last": lambda x, i, j: x[..., j],
    "two": lambda x, i, j: x[i, :, j] + x[i, 1, j],
    "between": lambda x, i, j: x[1:, None, j],
    "with a number": lambda x, i, j: x[0, i],
    "negative": lambda x, i, j: x[i - 2, ..., -1],
    "written": lambda x, i, j: _bumped(x, i) + _bumped(x, i, j) + _bumped(x, slice(None), j) + _bumped(x, ..., i, 0),
    "row": lambda x, i, j: _bumped(x, i, slice(1, 3)) * 2,
}


@pytest.mark.parametrize("name", PLACES)
def test_programs_index_with_computed_integers(name):
    fn, x = PLACES[name], torch.arange(24.0, dtype=torch.float64).reshape(2, 3, 4)
    for i, j in ((0, 2), (1, 0)):
        i, j = torch.tensor(i), torch.tensor(j)
        wanted = fn(x, i, j)
        assert_close(tp.make_graph(fn)(x, torch.tensor(0), torch.tensor(0))(x, i, j), wanted)
        assert_close(tp.jit(fn)(x, i, j), wanted)
        assert tp.eval_shape(fn, x, i, j).shape == wanted.shape
    many = torch.tensor([0, 1, 1])
    scaled = lambda k: fn(x * (k + 1) / (k + 1), k, k)  # noqa: E731 members write to what is their own
    assert_close(tp.jit(tp.vmap(scaled))(many), torch.stack([fn(x, k, k) for k in many]))
    total = tp.jit(lambda x: tp.fori_loop(0, 2, lambda i, c: c + fn(x, i, i).sum(), torch.zeros((), dtype=x.dtype)))
    assert_close(
        total(x), fn(x, torch.tensor(0), torch.tensor(0)).sum() + fn(x, torch.tensor(1), torch.tensor(1)).sum()
    )


MASK = torch.tensor([True, False, True, False])


def _masked(x, mask):
    out = x.clone()
    out[:, mask] = 7.0
    return out + x[:, mask].sum()


def _masked_steps(x):
    def step(c, _):
        return c * torch.arange(4.0).sum().item() - c[:, MASK].sum(), c[:, torch.arange(4) > 1]

    return tp.scan(step, x, None, length=2)


KNOWN = {
    "mask": lambda x: _masked(x, MASK),
    "mask of sizes": lambda x: _masked(x, torch.arange(4) % 3 == 0),
    "mask in the middle": lambda x: x[None, [0, 1], MASK],
    "number": lambda x: x * (MASK.sum().item() + torch.ones(3).cumsum(0)[-1].item()),
    "branch": lambda x: x.sin() if torch.equal(torch.eye(2)[:1], torch.ones(1, 2).triu()) else x.cos(),
    "places": lambda x: x[:, MASK.nonzero()[:, 0]] + x[:, torch.arange(4).nonzero().shape[0] :].sum(),
    "loop": _masked_steps,
}


@pytest.mark.parametrize("name", KNOWN)
def test_values_that_depend_on_no_argument_have_numbers(name):
    fn, xs = KNOWN[name], torch.arange(24.0, dtype=torch.float64).reshape(3, 2, 4) / 10
    wanted = fn(xs[0])
    assert_close(tp.make_graph(fn)(xs[0])(xs[0]), wanted)
    assert_close(tp.jit(fn)(xs[0]), wanted)
    assert tp.tree.map(lambda leaf: leaf.shape, tp.eval_shape(fn, xs[0])) == tp.tree.map(
        lambda leaf: leaf.shape, wanted
    )
    members = tp.tree.map(lambda *leaves: torch.stack(leaves), *map(fn, xs))
    assert_close(tp.jit(tp.vmap(fn))(xs), members)


@pytest.mark.parametrize("size", [2, 5])
def test_a_mask_of_another_size_is_an_error(size):
    mask, x = torch.ones(size, dtype=torch.bool), torch.ones(2, 3)
    for run in (tp.make_graph(lambda x: x[:, mask]), tp.jit(lambda x: _masked(x, mask))):
        # from 2.15 on torch itself refuses it
        with pytest.raises(
            IndexError, match=rf"mask (of shape \({size},\) .* dimensions 1 to 1 .* shape \(2, 3\)|\[{size}\] at)"
        ):
            run(x)


def test_numbers_of_mutated_memory_are_unknown():
    def fn(x):
        memory = torch.zeros(3)
        row = memory[:1]
        row.copy_(x.sum())
        return x * (memory + 1).sum().item()

    with pytest.raises(TransformError, match="needs the number of a tensor"):
        tp.make_graph(fn)(U)


def test_a_size_that_depends_on_numbers_is_an_error_that_names_the_line():
    for who, run in (("make_graph", lambda fn: tp.make_graph(fn)(U)), ("eval_shape", lambda fn: tp.eval_shape(fn, U))):
        with pytest.raises(
            TransformError, match=rf"{who}: `.*`.*, line \d+ of test_graph_and_checks.py, makes a tensor"
        ):
            run(lambda x: x[x > 0])


def test_a_causal_mask_that_torch_reads_is_known():
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    net = tp.functional(torch.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False))
    mask, x = torch.nn.Transformer.generate_square_subsequent_mask(5), torch.ones(2, 5, 8)
    assert_close(tp.make_graph(lambda p: net(p, x, mask=mask))(net.params)(net.params), net(net.params, x, mask=mask))


def test_computed_indices_under_vmap_of_grad():
    table = torch.linspace(0, 1, 5, dtype=torch.float64) ** 2

    def between(x):
        i = torch.floor(x * 4).long()  # of shape (): torch would make a number of it
        t = x * 4 - i
        return table[i] * (1 - t) + table[i + 1] * t

    x = torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64)
    wanted = torch.stack([tp.grad(between)(one) for one in x])
    for run in (
        tp.vmap(tp.grad(between)),
        tp.jit(tp.vmap(tp.grad(between))),
        tp.grad(lambda x: tp.vmap(between)(x).sum()),
    ):
        assert_close(run(x), wanted)


def test_an_index_that_is_cast_to_its_own_dtype_is_traced():
    def f(x):
        return tp.fori_loop(0, 2, lambda i, p: tp.fori_loop(0, 3, lambda j, c: c + p[j], p), x)

    x = torch.ones(4)
    assert_close(tp.make_graph(f)(x)(x), torch.full((4,), 16.0))
