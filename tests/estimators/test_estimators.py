"""Estimators: trees, transforms, programs, and errors."""

import pytest
import torch

import torchpure as tp
from torchpure import estimators as es
from torchpure.errors import TransformError

KEY = tp.random.key(0)
PARAMS = {"w": torch.tensor([1.0, -2.0]), "b": (torch.tensor(0.5),), "n": torch.tensor(3)}
ONE_HOT = lambda s: (torch.arange(s.shape[-1]) == s.argmax(-1, keepdim=True)).to(s.dtype)  # noqa: E731


def loss(params, factor=1.0):
    return factor * ((params["w"] ** 2).sum() * params["n"] + params["b"][0])


ZERO_ORDER = {
    "forward_difference": es.forward_difference(loss, 1e-2, 4),
    "central_difference": es.central_difference(loss, 1e-2, 4),
    "two_point": es.two_point(loss, 1e-2, 4),
    "spsa": es.spsa(loss, 1e-2, 4),
    "evolution_strategy": es.evolution_strategy(loss, 1e-2, 4),
}


@pytest.mark.parametrize("name", ZERO_ORDER)
def test_parameters_are_trees_and_integers_have_no_gradient(name):
    grads = ZERO_ORDER[name](PARAMS, key=KEY)
    assert grads["n"] is None and grads["w"].shape == (2,) and grads["b"][0].shape == ()
    twice = ZERO_ORDER[name](PARAMS, 2.0, key=KEY)
    torch.testing.assert_close(twice["w"], 2 * grads["w"], rtol=1e-3, atol=1e-3)
    assert torch.equal(ZERO_ORDER[name](PARAMS, key=KEY)["w"], grads["w"])


@pytest.mark.parametrize("name", ZERO_ORDER)
def test_the_size_of_a_perturbation_may_be_a_tensor_with_members(name):
    factory = getattr(es, name)
    sizes = torch.tensor([1e-2, 1e-1])
    members = tp.vmap(lambda size: factory(loss, size, 4)(PARAMS, key=KEY)["w"])(sizes)
    alone = torch.stack([factory(loss, size, 4)(PARAMS, key=KEY)["w"] for size in sizes])
    torch.testing.assert_close(members, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.compile
def test_estimates_are_the_same_in_programs():
    perturbed = es.perturbed(ONE_HOT, 1.0, 8)
    pes = es.persistent_es(lambda p, x: ((x - p) ** 2, x - p), 0.1, 4)

    def everything(scores, key):
        state = pes.init(scores[0], scores[1])
        return (
            perturbed(scores, key=key),
            tp.jacrev(perturbed)(scores, key=key),
            pes.estimate(scores[0], state, key=key),
        )

    scores = torch.tensor([0.1, 0.4, -0.2])
    torch.testing.assert_close(tp.jit(everything)(scores, KEY), everything(scores, KEY))


def test_shaped_fitness_does_not_depend_on_the_scale():
    shaped = lambda scale: es.evolution_strategy(lambda p: scale * p**3, 0.1, 16, shape_fitness=es.centered_ranks)  # noqa: E731
    found = [shaped(scale)(torch.tensor(1.0), key=KEY) for scale in (1.0, 1e6)]
    assert found[0] == found[1] > 0


def test_persistent_members_go_on_from_their_own_states():
    pes = es.persistent_es(lambda p, x: (x["a"].sum() * p, {"a": x["a"] + p}), 0.5, 2)
    rate = torch.tensor(2.0)
    state = pes.init(rate, {"a": torch.zeros(3)})
    assert state.inner["a"].shape == (4, 3) and state.perturbations.shape == (2,)
    _, state, mean = pes.estimate(rate, state, key=KEY)
    torch.testing.assert_close(state.inner["a"][:2, 0], 2 + state.perturbations)
    torch.testing.assert_close(state.inner["a"][2:, 0], 2 - state.perturbations)
    assert mean == 0


def test_the_straight_through_estimator_has_exact_values():
    x = torch.tensor([1e8 + 1, 0.3, -1e-9])
    rounded = es.straight_through(torch.round, lambda x: 3 * x)
    assert torch.equal(rounded(x), x.round())
    assert torch.equal(tp.grad(lambda x: rounded(x).sum())(x), torch.full((3,), 3.0))
    assert torch.equal(tp.jvp(rounded, (x,), (torch.ones(3),))[1], torch.full((3,), 3.0))
    assert torch.equal(tp.vmap(tp.grad(rounded))(x), torch.full((3,), 3.0))


NORMAL = (lambda x: x**2, lambda mean, z: mean + z, tp.random.normal)
ERRORS = {
    "score_function: num_samples must be an int of at least 2, got 1": lambda: es.score_function(abs, abs, abs, 1),
    "score_function: baseline must be a number, None or 'leave_one_out', got 'mean'": lambda: es.score_function(
        abs, abs, abs, baseline="mean"
    ),
    r"pathwise: fn must return a tensor of shape \(\), got .* shape \(2,\)": lambda: es.pathwise(
        lambda x: x.expand(2), *NORMAL[1:]
    )(torch.tensor(0.0), key=KEY),
    "pathwise: num_samples must be an int of at least 1, got 0": lambda: es.pathwise(*NORMAL, 0),
    "antithetic: num_pairs must be an int of at least 1, got 0.5": lambda: es.antithetic(*NORMAL, 0.5),
    "forward_difference: std must be above 0, got 0": lambda: es.forward_difference(loss, 0),
    "two_point: radius must be above 0, got -1": lambda: es.two_point(loss, -1),
    "spsa: step must be above 0, got 0": lambda: es.spsa(loss, 0),
    r"spsa: fn must return a tensor of shape \(\), got a float32 tensor of shape \(2,\)": lambda: es.spsa(
        lambda p: p["w"]
    )(PARAMS, key=KEY),
    r"persistent_es: unroll must return \(loss, inner state\), got a float32": lambda: es.persistent_es(
        lambda p, x: p
    ).estimate(torch.tensor(1.0), es.persistent_es(abs).init(torch.tensor(1.0), None), key=KEY),
    "spsa: the parameters have no floating point tensor to be perturbed, got an int64": lambda: es.spsa(torch.sum)(
        torch.arange(3), key=KEY
    ),
    "evolution_strategy: the parameters have no floating point tensor": lambda: es.evolution_strategy(abs)({}, key=KEY),
    "perturbed: noise must be 'normal' or 'gumbel', got 'uniform'": lambda: es.perturbed(ONE_HOT, noise="uniform"),
    "fenchel_young_loss: std must be above 0": lambda: es.fenchel_young_loss(ONE_HOT, 0.0),
    r"straight_through: fn returned shape \(\), the surrogate \(2,\)": lambda: es.straight_through(torch.sum)(
        torch.ones(2)
    ),
    "gumbel_softmax: temperature must be above 0, got 0": lambda: es.gumbel_softmax(torch.zeros(2), 0, key=KEY),
    "control_variate": lambda: es.control_variate(1, 2, 3),
}


@pytest.mark.parametrize("message", ERRORS)
def test_wrong_arguments_are_refused(message):
    with pytest.raises(TransformError, match=message):
        ERRORS[message]()


def test_a_key_is_needed():
    for estimate in (*ZERO_ORDER.values(), es.pathwise(*NORMAL), es.antithetic(*NORMAL), es.perturbed(ONE_HOT)):
        with pytest.raises(TypeError, match="key"):
            estimate(PARAMS, key=3)


def test_estimates_from_values_can_be_differentiated_themselves():
    for name in ("central_difference", "spsa", "evolution_strategy"):
        estimate = getattr(es, name)(lambda p: (p**3).sum(), 0.1, 4)
        point = torch.tensor([1.0], dtype=torch.float64)
        step = torch.tensor([1e-5], dtype=torch.float64)
        exact = (estimate(point + step, key=KEY) - estimate(point - step, key=KEY)) / 2e-5
        torch.testing.assert_close(
            tp.jacrev(lambda p, f=estimate: f(p, key=KEY))(point)[0], exact, rtol=1e-6, atol=1e-6
        )


def test_parameters_that_are_no_floating_point_numbers_stay_in_persistent_runs():
    pes = es.persistent_es(lambda p, x: (p["a"] * p["n"] * x, x), 0.1, 3)
    params = {"a": torch.tensor(1.0), "n": torch.tensor(2)}
    grads, state, _ = pes.estimate(params, pes.init(params, torch.tensor(1.0)), key=KEY)
    grads, _, _ = pes.estimate(params, state, key=KEY)
    assert grads["n"] is None and grads["a"].shape == ()
