"""The laws of models, each a function that raises AssertionError when a net breaks it.

Every check takes `net`, as `tp.functional` makes it, and `inputs`, the tuple that one call takes after the parameters
and the state. A net that draws is called with keys; whether it does is found out.
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

from ._assert import assert_trees_close

Inputs = tuple[Any, ...]


def check_model(net: Functional, inputs: Inputs, *, skip: Sequence[str] = ()) -> None:
    """Check every law of a model on one set of inputs, but those whose names are in `skip`.

    In float64 rounding is told from mistakes; derivatives are only compared with finite differences there.

    Raises:
        AssertionError: the model breaks a law.

    >>> from torch import nn
    >>> check_model(functional(nn.Sequential(nn.Linear(2, 3), nn.Dropout()).double()), (torch.ones(4, 2).double(),))
    """
    for name, law in MODEL_LAWS.items():
        if name not in skip:
            law(net, inputs)


def apply_is_pure(net: Functional, inputs: Inputs) -> None:
    """`apply` leaves its arguments and the global generator bitwise as they are, and gives the same twice."""
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
    """One key gives one result, another key another; without one, a module that draws raises and others do not."""
    one, two = _apply(net, inputs, key=random.key(1)), _apply(net, inputs, key=random.key(2))
    alike = all(_same(a, b) for a, b in zip(_tensors(one), _tensors(two), strict=True))
    assert alike != draws(net, inputs), "it draws, and two keys give the same" if alike else "it draws without a key"


def state_is_threaded(net: Functional, inputs: Inputs) -> None:
    """The new state has the old one's structure, shapes and dtypes; two calls in a row are those of the module."""
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
            _assert_close((output, state), (expected, dict(module.named_buffers())), "the module itself")


def modules_go_and_come(net: Functional, inputs: Inputs) -> None:
    """`functional(net.to_module(p, s))` has the values p and s, and gives what net gives."""
    twin = functional(net.to_module(net.params, net.state))
    _assert_equal((twin.params, twin.state), (net.params, net.state), "values after to_module")
    assert twin.trainable == net.trainable
    _assert_equal(_apply(twin, inputs), _apply(net, inputs), "a call after to_module")


def traced_equals_eager(net: Functional, inputs: Inputs) -> None:
    """A trace of `apply` gives for other parameters and another key what `apply` gives."""
    key = _key(net, inputs)
    data = [leaf for leaf in inputs if type(leaf) is Tensor and leaf.is_floating_point()]

    def run(params: Any, state: Any, key: Key | None, *data: Tensor) -> list[Tensor]:
        rest = iter(data)
        given = [next(rest) if type(leaf) is Tensor and leaf.is_floating_point() else leaf for leaf in inputs]
        return _tensors(net.apply(params, state, *given, key=key))

    graph = make_fx(run)(net.params, net.state, key, *data)
    other = None if key is None else random.fold_in(key, 1)
    params, moved = _members(net.params, 2)[1], [leaf * 0.9 for leaf in data]
    _assert_close(graph(params, net.state, other, *moved), run(params, net.state, other, *moved), "a trace")


def batched_equals_looped(net: Functional, inputs: Inputs) -> None:
    """`vmap` over parameters, state and keys gives each member what it gets alone."""
    key, num = _key(net, inputs), 3
    params, states = _members(net.params, num), _members(net.state, num)
    keys = None if key is None else random.split(key, num)
    if not tree.leaves((params, states)) and keys is None:
        return  # nothing differs between members

    def run(params: Any, state: Any, key: Key | None) -> list[Tensor]:
        return _tensors(net.apply(params, state, *inputs, key=key))

    dims = (0, 0, None if keys is None else 0)
    together = vmap(run, dims)(_stack(params), _stack(states), keys)
    for i in range(num):
        alone = run(params[i], states[i], None if keys is None else keys[i])
        _assert_close([leaf[i] for leaf in together], alone, f"member {i} of vmap")
    shared = vmap(run, (0, None, dims[2]))(_stack(params), net.state, keys) if net.params else []
    for i in range(num if shared else 0):
        alone = run(params[i], net.state, None if keys is None else keys[i])
        _assert_close([leaf[i] for leaf in shared], alone, f"member {i} of vmap with one state for all")


def gradients_are_the_modules(net: Functional, inputs: Inputs) -> None:
    """`grad` gives what the module's own backward pass gives, and `vmap(grad)` gives it for each member."""
    params, loss = _differentiable(net, inputs)
    if not params:
        return
    if not draws(net, inputs):
        _assert_close(grad(loss)(params), _backward(net, inputs, list(params)), "the module's backward pass")
    members = _members(params, 2)
    together = vmap(grad(loss))(_stack(members))
    for i, member in enumerate(members):
        _assert_close([leaf[i] for leaf in together.values()], list(grad(loss)(member).values()), "vmap(grad)")


def gradients_are_finite_differences(net: Functional, inputs: Inputs) -> None:
    """`grad` agrees with central differences, and `jvp` with `grad`; in float64 only."""
    params, loss = _differentiable(net, inputs)
    if not params or any(leaf.dtype not in (torch.float64, torch.complex128) for leaf in params.values()):
        return
    leaves = tuple(leaf.clone().requires_grad_() for leaf in params.values())
    torch.autograd.gradcheck(lambda *values: loss(dict(zip(params, values, strict=True))), leaves, fast_mode=True)
    _, slope = jvp(loss, (params,), (params,))
    _assert_close(slope, tree.dot(grad(loss)(params), params).real, "jvp")


def _differentiable(net: Functional, inputs: Inputs) -> tuple[dict[str, Tensor], Callable[[Any], Tensor]]:
    """Return the parameters that can have a gradient, and a loss of them that uses every output."""
    key = _key(net, inputs)
    params = {name: leaf for name, leaf in net.params.items() if leaf.is_floating_point() or leaf.is_complex()}

    def loss(params: Any) -> Tensor:
        return _number(net.apply({**net.params, **params}, net.state, *inputs, key=key)[0])

    return params, loss


def init_is_a_function_of_the_key(net: Functional, inputs: Inputs) -> None:
    """`init` gives values of the net's structure, the same for the same key, and each member of a vmap its own."""
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
        _assert_equal(tree.map(lambda leaf: leaf[i], together), values, f"member {i} of vmap(init)")  # noqa: B023


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
    """Tell whether a call draws random numbers, by calling it without a key."""
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


def _members(values: dict[str, Tensor], num: int) -> list[dict[str, Tensor]]:
    """Make values that differ between members; integers, such as counts, move by whole numbers."""
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


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree.leaves(value) if isinstance(leaf, Tensor)]


def _number(output: Any) -> Tensor:
    """Reduce an output to one real number in which each entry has its own weight."""
    total = torch.zeros((), dtype=torch.float64)
    for leaf in _tensors(output):
        if leaf.is_floating_point() or leaf.is_complex():
            flat = (torch.view_as_real(leaf) if leaf.is_complex() else leaf).reshape(-1)
            total = total + (flat * torch.linspace(0.5, 1.5, flat.numel(), dtype=flat.dtype)).sum()
    return total


def _backward(net: Functional, inputs: Inputs, names: list[str]) -> dict[str, Tensor]:
    module = net.to_module()
    parameters = dict(module.named_parameters())
    for name in names:
        parameters[name].requires_grad_()
    given = [parameters[name] for name in names]
    grads = torch.autograd.grad(_number(module(*inputs)), given, allow_unused=True, materialize_grads=True)
    return dict(zip(names, grads, strict=True))


def _same(one: Tensor, two: Tensor) -> bool:
    return torch.equal(one, two) or bool(((one == two) | (one.isnan() & two.isnan())).all())


def _assert_equal(one: Any, two: Any, what: str) -> None:
    for a, b in zip(_tensors(one), _tensors(two), strict=True):
        assert _same(a, b), f"{what}: {tree.describe(a)} differs from what it was by {(a - b).abs().max():.3g}"


def _assert_close(one: Any, two: Any, what: str) -> None:
    for a, b in zip(_tensors(one), _tensors(two), strict=True):
        real = a.dtype if a.dtype.is_floating_point else a.dtype.to_real() if a.is_complex() else torch.float64
        rtol = 2e-10 if real == torch.float64 else 100 * torch.finfo(real).eps
        try:
            assert_trees_close(a, b, rtol=rtol, atol=rtol)
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from error
