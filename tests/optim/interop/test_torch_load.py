"""States and keys go through torch.save and torch.load, with its default `weights_only=True`."""

import inspect
import io

import pytest
import torch
from cases import OPTIMIZERS
from cases_transforms import COMBINATORS, TRANSFORMS

import torchpure as tp
from torchpure import optim, testing, tree
from torchpure.optim.interop import STATE_TYPES
from torchpure.testing._case import BOWL, advance

CASES = OPTIMIZERS | TRANSFORMS | COMBINATORS


def _through_file(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file)


@pytest.mark.parametrize("name", CASES)
def test_a_state_is_the_same_after_torch_load(name):
    opt, params = CASES[name].make(), BOWL.start()
    _, state = advance(opt, BOWL, params, opt.init(params))
    loaded = _through_file({"state": state, "params": params})["state"]
    tree.check_same(state, loaded)
    testing.assert_trees_close(loaded, state, rtol=0.0)
    testing.assert_trees_close(advance(opt, BOWL, params, loaded), advance(opt, BOWL, params, state), rtol=0.0)


def test_other_states_and_keys():
    params = {"w": torch.tensor([1 + 2j])}
    lifted = optim.lift(torch.optim.Adam, lr=0.1)
    for value in (
        optim.split_real_and_imaginary(optim.adam(0.1)).init(params),
        lifted.step(params, lifted.init(params), params)[1],
        tp.random.key(0),
        tp.random.split(tp.random.key(1), 3),
    ):
        testing.assert_trees_close(_through_file(value), value, rtol=0.0)


def test_every_state_of_the_library_is_known_to_torch():
    states = {value for value in vars(optim).values() if inspect.isclass(value) and hasattr(value, "_fields")}
    assert states <= set(STATE_TYPES) <= set(torch.serialization.get_safe_globals())


def test_a_class_of_the_user_stays_refused():
    with pytest.raises(Exception, match="Unsupported global|weights_only"):
        _through_file(testing.Case(factory=optim.sgd))
