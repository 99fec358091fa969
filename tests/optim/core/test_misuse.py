"""Arguments of another kind are refused: no parameters, states of other parameters, modules, factories."""

import pytest
import torch
from torch import nn

from torchpure import optim
from torchpure.errors import StructureError

PARAMS, GRADS = {"w": torch.tensor([1.0, 2.0, 3.0])}, {"w": torch.tensor([3.0, 4.0, 5.0])}
MODULE = nn.Linear(2, 2)

READERS = {
    "add_decayed_weights": lambda: optim.add_decayed_weights(0.1),
    "scheduled decay": lambda: optim.add_decayed_weights(lambda step: 0.1 + 0 * step),
    "masked": lambda: optim.masked(optim.add_decayed_weights(0.1), "w"),
    "partition": lambda: optim.partition({"*": optim.add_decayed_weights(0.1)}),
    "keep_params_nonnegative": optim.keep_params_nonnegative,
    "scale_by_trust_ratio": optim.scale_by_trust_ratio,
    "scale_by_param_block_rms": optim.scale_by_param_block_rms,
    "adaptive_grad_clip": lambda: optim.adaptive_grad_clip(0.1),
    "flatten": lambda: optim.flatten(optim.sgd(0.1)),
    "lookahead": lambda: optim.lookahead(optim.sgd(0.1)),
    "schedule_free": lambda: optim.schedule_free_sgd(0.1),
    "mechanize": lambda: optim.mechanize(optim.sgd(0.1)),
    "sam": lambda: optim.sam(optim.sgd(0.1), optim.sgd(0.1)),
    "adamw": lambda: optim.adamw(0.1),
} | {
    name: (lambda name=name: getattr(optim, name)(0.1))
    for name in ("novograd", "lars", "fromage", "lamb", "adafactor", "dog", "dowg", "asgd", "madgrad", "cocob", "lion")
}


@pytest.mark.parametrize("name", READERS)
def test_an_update_that_reads_parameters_needs_them(name):
    opt = READERS[name]()
    with pytest.raises(StructureError, match=r"the parameters are None: pass them, as in update"):
        opt.update(GRADS, opt.init(PARAMS), None)


@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop", "adagrad", "yogi", "radam", "sm3", "adabelief"])
def test_an_update_that_reads_no_parameters_equals_that_with_parameters(name):
    opt = getattr(optim, name)(0.1)
    with_params, _ = opt.update(GRADS, opt.init(PARAMS), PARAMS)
    torch.testing.assert_close(opt.update(GRADS, opt.init(PARAMS), None)[0], with_params)


def test_a_step_without_parameters():
    opt = optim.adam(0.1)
    with pytest.raises(StructureError, match="adam: the parameters are None"):
        opt.step(GRADS, opt.init(PARAMS), None)


OPTIMIZERS = {
    name: (lambda name=name: getattr(optim, name)(0.1))
    for name in (
        "adam",
        "adamw",
        "lion",
        "rmsprop",
        "adagrad",
        "adadelta",
        "novograd",
        "sm3",
        "adafactor",
        "soap",
        "dog",
    )
} | {
    "sgd": lambda: optim.sgd(0.1, momentum=0.9),
    "chain": lambda: optim.chain(optim.clip(1.0), optim.adam(0.1)),
    "masked": lambda: optim.masked(optim.adam(0.1), "w"),
    "partition": lambda: optim.partition({"*": optim.adam(0.1)}),
    "flatten": lambda: optim.flatten(optim.adam(0.1)),
    "multi_steps": lambda: optim.multi_steps(optim.adam(0.1), 2),
    "inject_hyperparams": lambda: optim.inject_hyperparams(optim.adam)(0.1),
}


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_of_other_parameters_is_refused_with_its_path(name, size):
    opt = OPTIMIZERS[name]()
    state = opt.init({"w": torch.ones(size)})
    with pytest.raises(StructureError, match=r"(state does not fit: at `[^`]+`|at `w` is .*make a new state)"):
        opt.step(GRADS, state, PARAMS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_of_another_optimizer_is_refused(name):
    opt = OPTIMIZERS[name]()
    for state in (optim.radam(0.1).init(PARAMS), optim.EmptyState(), PARAMS, None):
        with pytest.raises(StructureError, match="Pass \\(grads, state, params\\), with the state that"):
            opt.step(GRADS, state, PARAMS)
        with pytest.raises(StructureError, match="Pass \\(grads, state, params\\), with the state that"):
            opt.update(GRADS, state, PARAMS)


def test_swapped_arguments():
    opt = optim.adam(0.1)
    with pytest.raises(StructureError, match="adam: the state does not fit: at `.`: wanted AdamState, got dict of 1"):
        opt.step(opt.init(PARAMS), GRADS, PARAMS)


def test_an_error_of_the_users_function_stays_as_it_is():
    def fail(params):
        raise ValueError("mine")

    opt = optim.lbfgs()
    with pytest.raises(ValueError, match="^mine$"):
        opt.step(GRADS, opt.init(PARAMS), PARAMS, value=torch.tensor(1.0), grad=GRADS, value_fn=fail)


@pytest.mark.parametrize("params", [MODULE, MODULE.parameters(), {"a": MODULE}])
def test_a_module_as_parameters(params):
    with pytest.raises(TypeError, match=r"adam: .* pass tp\.functional\(module\)\.params"):
        optim.adam(0.1).init(params)
    state = optim.adam(0.1).init(PARAMS)
    for grads, given in ((params, params), (GRADS, params)):
        with pytest.raises(TypeError, match=r"adam: .* pass tp\.functional\(module\)\.params"):
            optim.adam(0.1).step(grads, state, given)


@pytest.mark.parametrize("value", [MODULE, MODULE.parameters(), dict(MODULE.named_parameters()), [torch.ones(1)]])
def test_parameters_as_the_learning_rate(value):
    with pytest.raises(TypeError, match=r"adam: learning_rate must be .*: pass parameters to init"):
        optim.adam(value)


WRONG_OPTIMIZERS = {
    "factory": (optim.adam, "the function adam: call it first, as in adam"),
    "torch.optim": (
        torch.optim.SGD(MODULE.parameters(), lr=0.1),
        r"use the optimizer of tp.optim, or tp.optim.lift\(torch",
    ),
    "class": (torch.optim.Adam, r"use the optimizer of tp.optim, or tp.optim.lift\(torch.optim.Adam"),
    "list": ([optim.sgd(0.1)], "pass each optimizer as an argument"),
    "number": (0.1, "0.1"),
}
TAKES_OPTIMIZERS = {
    "chain": optim.chain,
    "masked": lambda o: optim.masked(o, "w"),
    "partition": lambda o: optim.partition({"*": o}),
    "multi_steps": lambda o: optim.multi_steps(o, 2),
    "apply_if_finite": lambda o: optim.apply_if_finite(o, 2),
    "lookahead": optim.lookahead,
    "flatten": optim.flatten,
    "schedule_free": lambda o: optim.schedule_free(o, 0.1),
    "donate": optim.donate,
}


@pytest.mark.parametrize("kind", WRONG_OPTIMIZERS)
@pytest.mark.parametrize("name", TAKES_OPTIMIZERS)
def test_what_is_no_optimizer_is_refused(name, kind):
    wrong, message = WRONG_OPTIMIZERS[kind]
    with pytest.raises(TypeError, match=f"{name}: .*wanted an optimizer of tp.optim, got .*{message}"):
        TAKES_OPTIMIZERS[name](wrong)
