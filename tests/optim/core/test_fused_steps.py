"""The fast ways of a step: what they give, what they leave alone, and where they give way."""

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure import optim, testing, tree, vmap

MAKERS = {
    "sgd": lambda: optim.sgd(0.1),
    "momentum": lambda: optim.sgd(0.1, momentum=0.9),
    "nesterov": lambda: optim.sgd(0.1, momentum=0.9, nesterov=True),
    "schedule": lambda: optim.sgd(optim.linear_schedule(0.1, 0.01, 5), momentum=0.9),
    "adam": lambda: optim.adam(0.1),
    "adamw": lambda: optim.adamw(0.1, weight_decay=0.1),
}


def _problem(dtype=torch.float64):
    keys = tp.random.split(tp.random.key(0), 4)
    params = {"w": tp.random.normal(keys[0], (3, 2), dtype=dtype), "b": tp.random.normal(keys[1], (2,), dtype=dtype)}
    return params, [{name: tp.random.normal(k, leaf.shape, dtype=dtype) for name, leaf in params.items()} for k in keys]


def _run(optimizer, params, grads, state=None):
    state = optimizer.init(params) if state is None else state
    for one in grads:
        params, state = optimizer.step(one, state, params)
    return params, state


@pytest.mark.parametrize("name", MAKERS)
def test_the_kernel_the_donated_one_and_the_formula_agree(name):
    params, grads = _problem()
    optimizer = MAKERS[name]()
    assert optimizer.kernel is not None and optimizer.donated is not None
    formula = optim.Optimizer(optimizer.init, optimizer.rule)
    expected = _run(formula, params, grads)
    testing.assert_trees_close(_run(optimizer, params, grads), expected, rtol=1e-13, atol=1e-15)
    copies = tp.tree.map(torch.clone, params)
    testing.assert_trees_close(_run(optim.donate(optimizer), copies, grads), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", MAKERS)
def test_a_donated_tensor_is_empty_afterwards(name):
    params, grads = _problem()
    optimizer = optim.donate(MAKERS[name]())
    state = optimizer.init(params)
    memory = params["w"].data_ptr()
    moved, new_state = optimizer.step(grads[0], state, params)
    assert moved["w"].data_ptr() == memory and moved["w"].shape == (3, 2)
    old = [*params.values(), *(leaf for leaf in tp.tree.leaves(state) if leaf.ndim)]
    assert all(leaf.numel() == 0 for leaf in old)
    with pytest.raises(RuntimeError):
        params["w"] @ torch.ones(2, dtype=torch.float64)
    assert all(leaf.numel() for leaf in tp.tree.leaves((moved, new_state, grads[0])))


def _loss(params, x):
    return ((x @ params["w"] + params["b"]) ** 2).sum()


X = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)


@pytest.mark.parametrize("donated", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_kernels_give_way_to_the_formula_under_every_transform(name, donated):
    """A kernel's in-place change would be seen, or lost, by each of these: so it must not run."""
    params, grads = _problem()
    optimizer = MAKERS[name]()
    formula = optim.Optimizer(optimizer.init, optimizer.rule)
    optimizer = optim.donate(optimizer) if donated else optimizer

    def run(optimizer):
        def final(params):
            return _loss(_run(optimizer, params, grads[:2])[0], X)

        stacked = tp.stack([params, tp.tree.scale(params, 2.0)])
        shared = _run(formula, params, grads[:1])
        return (
            tp.grad(final)(params),
            tp.jvp(final, (params,), (grads[0],)),
            tp.vmap(final)(stacked),
            tp.vmap(tp.grad(final))(stacked),
            tp.grad(lambda g: _loss(optimizer.step(g, shared[1], shared[0])[0], X))(grads[1]),
            tp.grad(lambda s: _loss(optimizer.step(grads[1], s, shared[0])[0], X))(shared[1]),
        )

    testing.assert_trees_close(run(optimizer), run(formula), rtol=1e-11, atol=1e-13)
    leaf = {path: value.clone().requires_grad_() for path, value in params.items()}
    _loss(_run(optimizer, leaf, grads[:2])[0], X).backward()
    expected = tp.grad(lambda p: _loss(_run(formula, p, grads[:2])[0], X))(params)
    testing.assert_trees_close({path: value.grad for path, value in leaf.items()}, expected, rtol=1e-11, atol=1e-13)


ODD = {
    "transposed": lambda leaf: leaf.mT.contiguous().mT if leaf.ndim == 2 else leaf,
    "complex": lambda leaf: torch.complex(leaf, -leaf),
    "half": lambda leaf: leaf.to(torch.bfloat16),
}


@pytest.mark.parametrize("kind", [*ODD, "mixed", "frozen", "integer"])
@pytest.mark.parametrize("name", MAKERS)
def test_kernels_give_way_or_are_right_for_odd_leaves(name, kind):
    params, grads = _problem()
    if kind in ODD:
        params, grads = tp.tree.map(ODD[kind], params), [tp.tree.map(ODD[kind], one) for one in grads]
    elif kind == "mixed":
        params = {**params, "b": params["b"].float()}
        grads = [{**one, "b": one["b"].float()} for one in grads]
    elif kind == "frozen":
        grads = [{**one, "b": None} for one in grads]
    else:
        params = {**params, "n": torch.tensor(3)}
        grads = [{**one, "n": None} for one in grads]
    optimizer = MAKERS[name]()
    expected = _run(optim.Optimizer(optimizer.init, optimizer.rule), params, grads)
    rtol = 0.05 if kind == "half" else 1e-6
    testing.assert_trees_close(_run(optimizer, params, grads), expected, rtol=rtol, atol=rtol)
    copies = tp.tree.map(lambda leaf: leaf.clone(), params)
    testing.assert_trees_close(_run(optim.donate(optimizer), copies, grads), expected, rtol=rtol, atol=rtol)


def test_a_donated_training_run():
    net = tp.functional(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double())
    y = X.prod(1, keepdim=True)
    results = []
    for optimizer in (optim.adam(0.01), optim.donate(optim.adam(0.01))):
        params = tp.tree.map(torch.clone, net.params)
        state = optimizer.init(params)
        for _ in range(50):
            _, grads = tp.value_and_grad(lambda p: nn.functional.mse_loss(net(p, X), y))(params)
            params, state = optimizer.step(grads, state, params)
        results.append(params)
    testing.assert_trees_close(*results, rtol=1e-12)


@pytest.mark.compile
def test_a_compiled_donated_step_writes_over_its_inputs_and_under_vmap_does_not():
    plain, params = optim.adam(0.1), (torch.ones(3), torch.ones(2))
    donated, grads = optim.donate(plain), (torch.arange(3.0) + 1, torch.ones(2))
    wanted, got = (params, plain.init(params)), (tuple(map(torch.clone, params)), plain.init(params))
    memory = [leaf.data_ptr() for leaf in tree.leaves(got)]
    step = torch.compile(lambda g, s, p: donated.step(g, s, p), fullgraph=True, backend="aot_eager")
    for _ in range(3):
        wanted, got = plain.step(grads, wanted[1], wanted[0]), step(grads, got[1], got[0])
    testing.assert_trees_close(got, wanted, rtol=1e-6)
    assert [leaf.data_ptr() for leaf in tree.leaves(got)] == memory
    stacked = torch.ones(4, 3)
    states = vmap(plain.init)(stacked)
    batched = torch.compile(lambda g, s, p: vmap(donated.step)(g, s, p), fullgraph=True, backend="aot_eager")
    testing.assert_trees_close(batched(stacked, states, stacked), vmap(plain.step)(stacked, states, stacked), rtol=1e-6)
    assert bool((stacked == 1).all()) and bool((states.step == 0).all())


@pytest.mark.compile
def test_a_compiled_donated_step_whose_states_keys_turn():
    def update(grads, state, params):
        state = {"b": state["b"] + 1, "a": 2 * state["a"]}
        return tree.scale(grads, -state["a"]), state

    turning = optim.Optimizer(lambda params: {"a": torch.tensor(0.01), "b": torch.tensor(0.0)}, update)
    donated, grads, params = optim.donate(turning), {"w": torch.arange(3.0)}, {"w": torch.ones(3)}
    wanted = turning.step(grads, turning.init(params), params)
    step = torch.compile(lambda g, s, p: donated.step(g, s, p), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(step(grads, turning.init(params), tree.map(torch.clone, params)), wanted)


def test_a_compiled_donated_step_of_something_that_requires_a_gradient_is_differentiable():
    plain, x = optim.adam(0.1), torch.tensor([1.0, 2.0], requires_grad=True)

    def loss(make):
        return lambda p: make.step(p * p, plain.init(p), p)[0].sum()

    compiled = torch.compile(loss(optim.donate(plain)), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(x), x), torch.autograd.grad(loss(plain)(x), x))
    assert x.tolist() == [1.0, 2.0]
