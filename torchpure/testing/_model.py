"""The laws of models: each is a function that raises AssertionError if a net breaks it.

Every law takes `net`, a result of `tp.functional`, and `inputs`, the tuple of arguments of one call after the
parameters and the state. A law finds out whether the net draws, and then calls it with a key.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure import random, tree
from torchpure._torch import make_fx
from torchpure._types import Key
from torchpure.errors import ImpureError
from torchpure.model import Functional, functional
from torchpure.transforms import grad, jvp, vmap

from ._assert import assert_tensors_close, assert_trees_close_to_rounding, check_skip, tensors, weighted_sum

Inputs = tuple[Any, ...]


def check_model(net: Functional, inputs: Inputs, *, skip: Sequence[str] = ()) -> None:
    """Check every law of a model on one set of inputs, except the laws named in `skip`.

    Use float64: only there derivatives are compared with finite differences, and tolerances are small.

    Raises:
        AssertionError: the model breaks a law.
        TypeError: `net` is not a functional module.
        ValueError: `skip` names something else than a law.

    >>> from torch import nn
    >>> check_model(functional(nn.Sequential(nn.Linear(2, 3), nn.Dropout()).double()), (torch.ones(4, 2).double(),))
    """
    if not isinstance(net, Functional):
        raise TypeError(
            f"check_model: wanted a functional module, got {tree.describe(net)}: pass tp.functional(module)"
        )
    check_skip("check_model", skip, MODEL_LAWS)
    for name, law in MODEL_LAWS.items():
        if name not in skip:
            law(net, inputs)


def apply_is_pure(net: Functional, inputs: Inputs) -> None:
    """`apply` changes neither its arguments nor the global generator, and gives the same result twice."""
    arguments = [leaf for leaf in tree.leaves((net.params, net.state, inputs)) if isinstance(leaf, Tensor)]
    before = [leaf.clone() for leaf in arguments]
    generator = torch.get_rng_state()
    one, two = _apply(net, inputs), _apply(net, inputs)
    assert torch.equal(generator, torch.get_rng_state()), "the global generator moved"
    for old, new in zip(before, arguments, strict=True):
        assert _same(old, new), f"an argument was changed: {tree.describe(new)}"
    _assert_equal(one, two, "called twice")
    memory = {leaf.untyped_storage().data_ptr() for leaf in tree.leaves(net.state)}
    shared = [leaf for leaf in tree.leaves(one[1]) if leaf.untyped_storage().data_ptr() in memory]
    assert not shared, f"the new state shares memory with the old: {tree.describe(shared[0])}"


def keys_decide_draws(net: Functional, inputs: Inputs) -> None:
    """Different keys give different results if and only if the module draws; then a call without a key raises."""
    one, two = _apply(net, inputs, key=random.key(1)), _apply(net, inputs, key=random.key(2))
    equal = all(_same(a, b) for a, b in zip(tensors(one), tensors(two), strict=True))
    assert equal != draws(net, inputs), (
        "it draws, but two keys give the same result" if equal else "it draws without a key"
    )


def state_is_threaded(net: Functional, inputs: Inputs) -> None:
    """The new state keeps structure, shapes and dtypes; two calls in a row equal two calls of the module."""
    state, key = net.state, _key(net, inputs)
    module = net.to_module()
    for _ in range(2):
        output, new = net.apply(net.params, state, *inputs, key=key)
        news = tree.ordered(tree.structure(state), new, "the new state")
        for old, leaf in zip(tree.leaves(state), news, strict=True):
            assert (old.shape, old.dtype) == (leaf.shape, leaf.dtype), f"{tree.describe(old)}: {tree.describe(leaf)}"
        state = new
        if key is None:
            with torch.no_grad():
                expected = module(*inputs)
            assert_tensors_close((output, state), (expected, dict(module.named_buffers())), "the module itself")


def modules_go_and_come(net: Functional, inputs: Inputs) -> None:
    """`functional(net.to_module(p, s))` has the values p and s, and the same results as net."""
    rebuilt = functional(net.to_module(net.params, net.state))
    _assert_equal((rebuilt.params, rebuilt.state), (net.params, net.state), "values after to_module")
    assert rebuilt.trainable == net.trainable
    _assert_equal(_apply(rebuilt, inputs), _apply(net, inputs), "a call after to_module")


def traced_equals_eager(net: Functional, inputs: Inputs) -> None:
    """A trace of `apply` equals `apply` for other parameters and another key."""
    key = _key(net, inputs)
    data = [leaf for leaf in inputs if type(leaf) is Tensor and leaf.is_floating_point()]

    def run(params: Any, state: Any, key: Key | None, *data: Tensor) -> list[Tensor]:
        rest = iter(data)
        given = [next(rest) if type(leaf) is Tensor and leaf.is_floating_point() else leaf for leaf in inputs]
        return tensors(net.apply(params, state, *given, key=key))

    graph = make_fx(run)(net.params, net.state, key, *data)
    other = None if key is None else random.fold_in(key, 1)
    params, changed = _make_members(net.params, 2)[1], [leaf * 0.9 for leaf in data]
    assert_tensors_close(graph(params, net.state, other, *changed), run(params, net.state, other, *changed), "a trace")


def batched_equals_looped(net: Functional, inputs: Inputs) -> None:
    """`vmap` over parameters, state and keys gives each member the result that it has alone."""
    key, num = _key(net, inputs), 3
    params, states = _make_members(net.params, num), _make_members(net.state, num)
    keys = None if key is None else random.split(key, num)
    if not tree.leaves((params, states)) and keys is None:
        return  # the members are identical

    def run(params: Any, state: Any, key: Key | None) -> list[Tensor]:
        return tensors(net.apply(params, state, *inputs, key=key))

    dims = (0, 0, None if keys is None else 0)
    together = vmap(run, dims)(_stack(params), _stack(states), keys)
    for i in range(num):
        alone = run(params[i], states[i], None if keys is None else keys[i])
        assert_tensors_close([leaf[i] for leaf in together], alone, f"member {i} of vmap")
    shared = vmap(run, (0, None, dims[2]))(_stack(params), net.state, keys) if net.params else []
    for i in range(num if shared else 0):
        alone = run(params[i], net.state, None if keys is None else keys[i])
        assert_tensors_close([leaf[i] for leaf in shared], alone, f"member {i} of vmap with one state for all")


def gradients_are_the_modules(net: Functional, inputs: Inputs) -> None:
    """`grad` equals the module's own backward pass, and `vmap(grad)` equals `grad` for each member."""
    params, loss = _differentiable(net, inputs)
    if not params:
        return
    if not draws(net, inputs):
        assert_tensors_close(grad(loss)(params), _backward(net, inputs, list(params)), "the module's backward pass")
    members = _make_members(params, 2)
    together = vmap(grad(loss))(_stack(members))
    for i, member in enumerate(members):
        assert_tensors_close([leaf[i] for leaf in together.values()], list(grad(loss)(member).values()), "vmap(grad)")


def gradients_are_finite_differences(net: Functional, inputs: Inputs) -> None:
    """`grad` agrees with central differences, and `jvp` agrees with `grad`; checked in float64 only."""
    params, loss = _differentiable(net, inputs)
    if not params or any(leaf.dtype not in (torch.float64, torch.complex128) for leaf in params.values()):
        return
    leaves = tuple(leaf.clone().requires_grad_() for leaf in params.values())
    torch.autograd.gradcheck(lambda *values: loss(dict(zip(params, values, strict=True))), leaves, fast_mode=True)
    _, slope = jvp(loss, (params,), (params,))
    assert_tensors_close(slope, tree.dot(grad(loss)(params), params).real, "jvp")


def _differentiable(net: Functional, inputs: Inputs) -> tuple[dict[str, Tensor], Callable[[Any], Tensor]]:
    """Return the parameters that can have a gradient, and a loss of these that uses every output."""
    key = _key(net, inputs)
    params = {name: leaf for name, leaf in net.params.items() if leaf.is_floating_point() or leaf.is_complex()}

    def loss(params: Any) -> Tensor:
        return weighted_sum(net.apply({**net.params, **params}, net.state, *inputs, key=key)[0])

    return params, loss


def init_is_a_function_of_the_key(net: Functional, inputs: Inputs) -> None:
    """`init` gives the net's structure and the same values for the same key; vmap gives each member its own.

    A member equals its own `init` up to rounding: an `init` may compute, as that of a spectral norm does.
    """
    generator = torch.get_rng_state()
    keys = random.split(random.key(3), 2)
    alone = [net.init(key) for key in keys]
    assert torch.equal(generator, torch.get_rng_state()), "the global generator moved"
    _assert_equal(net.init(keys[0]), alone[0], "init called twice")
    news = tree.ordered(tree.structure((net.params, net.state)), alone[0], "init")
    for old, new in zip(tree.leaves((net.params, net.state)), news, strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype), f"{tree.describe(old)} became {tree.describe(new)}"
    if not tree.leaves(alone[0]):
        return
    together = vmap(net.init)(keys)
    for i, values in enumerate(alone):
        member = [leaf[i] for leaf in tensors(together)]
        try:
            assert_trees_close_to_rounding(member, tensors(values))
        except AssertionError as error:
            raise AssertionError(f"member {i} of vmap(init): {error}") from error


MODEL_LAWS: dict[str, Callable[[Functional, Inputs], None]] = {
    law.__name__: law
    for law in (
        apply_is_pure,
        keys_decide_draws,
        state_is_threaded,
        modules_go_and_come,
        traced_equals_eager,
        batched_equals_looped,
        gradients_are_the_modules,
        gradients_are_finite_differences,
        init_is_a_function_of_the_key,
    )
}


def draws(net: Functional, inputs: Inputs) -> bool:
    """Return whether a call draws random numbers, by a call without a key."""
    try:
        net.apply(net.params, net.state, *inputs)
    except ImpureError as error:
        if "draws random numbers" not in str(error):
            raise
        return True
    return False


def _key(net: Functional, inputs: Inputs) -> Key | None:
    return random.key(0) if draws(net, inputs) else None


def _apply(net: Functional, inputs: Inputs, key: Key | None = None) -> Any:
    return net.apply(net.params, net.state, *inputs, key=random.key(0) if key is None else key)


def _make_members(values: dict[str, Tensor], num: int) -> list[dict[str, Tensor]]:
    """Make values that differ between members; integers, such as counts, change by integers."""
    return [
        {
            name: leaf * (1 + 0.05 * i)
            if leaf.is_floating_point() or leaf.is_complex()
            else leaf + i * (leaf.ndim == 0)
            for name, leaf in values.items()
        }
        for i in range(num)
    ]


def _stack(members: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([member[name] for member in members]) for name in members[0]}


def _backward(net: Functional, inputs: Inputs, names: list[str]) -> dict[str, Tensor]:
    module = net.to_module()
    parameters = dict(module.named_parameters())
    for name in names:
        parameters[name].requires_grad_()
    given = [parameters[name] for name in names]
    grads = torch.autograd.grad(weighted_sum(module(*inputs)), given, allow_unused=True, materialize_grads=True)
    return dict(zip(names, grads, strict=True))


def _same(one: Tensor, two: Tensor) -> bool:
    return torch.equal(one, two) or bool(((one == two) | (one.isnan() & two.isnan())).all())


def _assert_equal(one: Any, two: Any, what: str) -> None:
    for a, b in zip(tensors(one), tensors(two), strict=True):
        assert _same(a, b), f"{what}: {tree.describe(a)} differs from what it was by {(a - b).abs().max():.3g}"
