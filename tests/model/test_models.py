"""Check every law of models on every module of the table."""

import dataclasses
import functools

import pytest
import torch
from daily import daily
from models import MODELS, net_of

import torchpure as tp
from torchpure import testing

TRACED = "traced_equals_eager"  # takes most of the time
LAWS = [(law, name) for law in testing.MODEL_LAWS for name in MODELS if law not in MODELS[name].skip]


@pytest.mark.parametrize(
    ("law", "name"),
    [
        *(row for row in LAWS if row[0] != TRACED),
        *daily((row for row in LAWS if row[0] == TRACED), 3),
    ],
)
def test_law(law, name):
    model = MODELS[name]
    testing.MODEL_LAWS[law](net_of(tp.functional, model), model.inputs())


COMPUTED = {
    "orthogonal",
    "spectral norm",
    "older spectral norm",
    "weight norm",
    "older weight norm",
    "drawn parameters",
}


@pytest.mark.parametrize("name", [name for name in MODELS if name not in COMPUTED])
def test_members_that_are_only_drawn_have_the_bits_that_they_have_alone(name):
    net, keys = net_of(tp.functional, MODELS[name]), tp.random.split(tp.random.key(3), 2)
    together = tp.tree.leaves(tp.vmap(net.init)(keys)) if tp.tree.leaves((net.params, net.state)) else []
    for i, key in enumerate(keys):
        for leaf, alone in zip(together, tp.tree.leaves(net.init(key)), strict=bool(together)):
            assert torch.equal(leaf[i], alone)


def _impure(net, params, state, *inputs, **options):
    output, state = net.apply(params, state, *inputs, **options)
    next(iter(params.values())).add_(1e-3)
    return output, state


def _unkeyed(net, params, state, *inputs, key=None, **options):
    return net.apply(params, state, *inputs, key=None if key is None else tp.random.key(7), **options)


def _drops_state(net, params, state, *inputs, **options):
    return net.apply(params, state, *inputs, **options)[0], state


def _wrong_dtype(net, params, state, *inputs, **options):
    output, after = net.apply(params, state, *inputs, **options)
    return output, {name: leaf.float() if leaf.is_floating_point() else leaf for name, leaf in after.items()}


def _detached(net, params, state, *inputs, **options):
    return net.apply({name: leaf.detach() for name, leaf in params.items()}, state, *inputs, **options)


BROKEN = {
    "impure": (_impure, "mlp", "apply_is_pure", "an argument was changed"),
    "one key for all": (_unkeyed, "dropout", "keys_decide_draws", "it draws, but two keys give the same result"),
    "forgets its state": (_drops_state, "batch norm", "state_is_threaded", "the module itself"),
    "changes its state's dtype": (_wrong_dtype, "batch norm", "state_is_threaded", "float64 tensor .*float32 tensor"),
    "no gradient": (_detached, "mlp", "gradients_are_the_modules", "the module's backward pass"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_fails_its_law(name):
    apply, model, law, message = BROKEN[name]
    net = net_of(tp.functional, MODELS[model])
    broken = dataclasses.replace(net, apply=functools.partial(apply, net))
    with pytest.raises(AssertionError, match=message):
        testing.MODEL_LAWS[law](broken, MODELS[model].inputs())
    with pytest.raises(AssertionError):
        testing.check_model(broken, MODELS[model].inputs())
    net = net_of(tp.functional, MODELS[model])
    testing.check_model(net, MODELS[model].inputs(), skip=["gradients_are_finite_differences"])


def test_members_of_init_that_differ_by_more_than_rounding_are_caught():
    net = net_of(tp.functional, MODELS["spectral norm"])

    def init(key):
        off = 1e-12 if torch._C._functorch.is_batchedtensor(key) else 0.0
        params, state = net.init(key)
        return tp.tree.map(lambda leaf: leaf * (1 + off), params), state

    with pytest.raises(AssertionError, match=r"member 0 of vmap\(init\): at "):
        testing.MODEL_LAWS["init_is_a_function_of_the_key"](dataclasses.replace(net, init=init), ())


def test_the_table_is_broad():
    assert len(MODELS) >= 40
