"""Steps whose loss or gradient is not finite: found before the update, for each member alone."""

from operator import itemgetter

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure.errors import CheckError, NonFiniteError
from torchpure.train import _steps, loop

START = {"a": torch.tensor(3.0, dtype=torch.float64), "b": torch.tensor(2.0, dtype=torch.float64)}
GOOD = [(torch.tensor([float(i), 1.0], dtype=torch.float64),) for i in range(1, 7)]
NAN_LOSS = (torch.tensor([float("nan"), 1.0], dtype=torch.float64),)
NAN_GRADIENT = (torch.tensor([1.0, 0.0], dtype=torch.float64),)  # the root at 0: the loss is finite, the gradient not
POLICIES = ("raise", "skip", "freeze", "reduce_rate")
PLACES = {"the loss": NAN_LOSS, "b": NAN_GRADIENT}
ADAM = tp.optim.adam(0.1)
OPTIMIZERS = {
    "sgd": tp.optim.sgd(0.01),
    "adam": ADAM,
    "donated": tp.optim.donate(tp.optim.adam(0.1)),
    "line search": tp.optim.lbfgs(),
}


def loss(p, x):
    return (p["a"] * x[0] - 1) ** 2 + (p["b"] * x[1]).sqrt()


def copies(params):
    return tp.tree.map(torch.clone, params)


def run(batches, policy, optimizer=ADAM, every=None, jit=False, **options):
    return tp.fit(
        loss, batches, params=copies(START), optimizer=optimizer, steps=len(batches), on_nonfinite=policy, every=every,
        jit=jit, **options,
    )  # fmt: skip


def with_bad(bad, *places):
    batches = list(GOOD)
    for place in places:
        batches.insert(place, bad)
    return batches


def same(ours, theirs):
    tp.tree.check_same(ours, theirs)
    for one, other in zip(tp.tree.leaves(ours), tp.tree.leaves(theirs), strict=True):
        assert torch.equal(one, other)


def close(ours, theirs):
    tp.tree.check_same(ours, theirs)
    for one, other in zip(tp.tree.leaves(ours), tp.tree.leaves(theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.fixture
def compiled(monkeypatch):
    monkeypatch.setattr(_steps, "MIN_STEPS", 4)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_where_all_are_finite_the_step_is_the_optimizers_own(policy, name):
    plain, watched = run(GOOD, None, OPTIMIZERS[name]), run(GOOD, policy, OPTIMIZERS[name])
    same((watched.params, watched.opt_state, watched.history), (plain.params, plain.opt_state, plain.history))
    assert plain.divergence is None and watched.divergence.step == 0 and watched.divergence.count == 0
    assert watched.divergence.path is None and repr(watched.divergence) == "Divergence: none"


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_skip_leaves_out_the_bad_steps(path, name):
    result, wanted = run(with_bad(PLACES[path], 2, 4), "skip", OPTIMIZERS[name]), run(GOOD, None, OPTIMIZERS[name])
    same((result.params, result.opt_state), (wanted.params, wanted.opt_state))
    found = result.divergence
    assert (found.step, found.count, found.path, len(result.history)) == (3, 2, path, 8)
    what = path if path == "the loss" else f"the gradient of `{path}`"
    assert repr(found) == f"Divergence: {what} at step 3; 2 bad steps" and repr(found) in repr(result)


@pytest.mark.parametrize("path", PLACES)
def test_freeze_changes_nothing_from_then_on(path):
    result, wanted = run(with_bad(PLACES[path], 2, 4), "freeze"), run(GOOD[:2], None)
    same((result.params, result.opt_state), (wanted.params, wanted.opt_state))
    assert (result.divergence.step, result.divergence.count, len(result.history)) == (3, 1, 8)


def test_reduce_rate_halves_later_updates():
    optimizer = tp.optim.sgd(0.01)
    result = run(with_bad(NAN_LOSS, 1, 3), "reduce_rate", optimizer)
    halves = tp.optim.sgd(
        lambda step: 0.01 * 0.5 ** step.clamp(max=2)
    )  # one good step, a bad one, a good one, a bad one
    close(result.params, run(GOOD, None, halves).params)
    assert result.divergence.scale == 0.25 and repr(result.divergence).endswith("2 bad steps; updates × 0.25")


def test_reduce_rate_has_a_floor():
    assert run(with_bad(NAN_LOSS, *[0] * 30), "reduce_rate").divergence.scale == 2.0**-20


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("every", [1, 3, None])
def test_raise_has_the_last_good_values(path, every):
    with pytest.raises(
        NonFiniteError, match=r"fit: the (loss|gradient of `b`) is not finite at step 3; .*on_non"
    ) as info:
        run(with_bad(PLACES[path], 2, 4), "raise", every=every)
    wanted, error = run(GOOD[:2], None), info.value
    same((error.params, error.opt_state), (wanted.params, wanted.opt_state))
    assert (error.step, error.path, error.members, error.state, error.result) == (3, path, [], None, None)
    assert isinstance(error, FloatingPointError)


def test_buffers_and_frozen_parameters_are_those_before_the_bad_step():
    module = nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    module[0].bias.requires_grad_(False)
    net = tp.functional(module)
    x = torch.linspace(-1, 1, 6)[:, None]
    batches = [(x, x**2), (x, x), (x * float("nan"), x), (x, x)]
    options = {"optimizer": ADAM, "jit": False}
    skipped = tp.fit(net, batches, steps=4, on_nonfinite="skip", **options)
    wanted = tp.fit(net, [*batches[:2], batches[3]], steps=3, **options)
    same((skipped.params, skipped.state), (wanted.params, wanted.state))
    with pytest.raises(NonFiniteError) as info:
        tp.fit(net, batches, steps=4, on_nonfinite="raise", **options)
    wanted = tp.fit(net, batches[:2], steps=2, **options)
    same((info.value.params, info.value.state), (wanted.params, wanted.state))


def test_leaves_that_are_not_trained_do_not_shift_the_path():
    start = {"n": 3, "hole": None, "w": torch.tensor(1.0), "v": torch.tensor(1.0)}
    batches = [(torch.tensor(1.0),), (torch.tensor(0.0),)]
    result = tp.fit(
        lambda p, x: p["w"] ** 2 + (p["v"] * x).sqrt(),
        batches,
        params=start,
        optimizer=ADAM,
        steps=2,
        on_nonfinite="skip",
    )
    assert result.divergence.path == "v" and result.params["n"] == 3


@pytest.mark.parametrize("policy", POLICIES)
def test_finite_gradients_whose_sum_overflows_are_finite(policy):
    large = (torch.tensor([3e38, 3e38]),)
    result = tp.fit(lambda p, x: (p * x).sum(), [large], params=torch.zeros(2), optimizer=tp.optim.sgd(1e-38), steps=1,
                    on_nonfinite=policy)  # fmt: skip
    torch.testing.assert_close(result.params, torch.tensor([-3.0, -3.0]))
    assert result.divergence.step == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_the_loop_does_what_fit_does(policy):
    batches, seen = with_bad(NAN_GRADIENT, 2), []
    steps = loop(loss, copies(START), batches, ADAM, on_nonfinite=policy, jit=False)
    if policy == "raise":
        with pytest.raises(NonFiniteError, match="loop: the gradient of `b` is not finite at step 3"):
            seen.extend(steps)
        assert len(seen) == 2
        return
    seen.extend(steps)
    wanted = run(batches, policy)
    same((seen[-1].params, seen[-1].opt_state), (wanted.params, wanted.opt_state))
    assert [int(one.divergence.count) for one in seen[:4]] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "call", [run, lambda batches, policy: next(loop(loss, START, batches, ADAM, on_nonfinite=policy))]
)
def test_an_unknown_policy_is_an_error(call):
    with pytest.raises(
        ValueError, match="on_nonfinite must be None or one of 'raise', 'skip', 'freeze', 'reduce_rate', got 'stop'"
    ):
        call(GOOD, "stop")


@pytest.mark.parametrize("policy", POLICIES[1:])
def test_a_resumed_run_goes_on_with_what_the_guard_counted(policy, tmp_path):
    batches = with_bad(NAN_GRADIENT, 2, 6)
    whole = run(batches, policy, every=2)
    options = {"params": copies(START), "optimizer": ADAM, "on_nonfinite": policy, "every": 2, "jit": False}
    tp.fit(loss, batches, steps=4, checkpoint=tmp_path, **options)
    resumed = tp.fit(loss, batches, steps=8, checkpoint=tmp_path, resume=True, **options)
    same((resumed.params, resumed.opt_state, resumed.divergence), (whole.params, whole.opt_state, whole.divergence))
    torch.testing.assert_close(resumed.history, whole.history, rtol=0, atol=0, equal_nan=True)
    done = tp.fit(loss, batches, steps=8, checkpoint=tmp_path, resume=True, **options)
    same((done.params, done.divergence), (whole.params, whole.divergence))
    with pytest.raises(ValueError, match="on_nonfinite: saved .* got None"):
        tp.fit(loss, batches, steps=8, checkpoint=tmp_path, resume=True, **{**options, "on_nonfinite": None})


# --- compiled ---


@pytest.mark.compile
@pytest.mark.parametrize("policy", POLICIES)
def test_compiled_steps_do_what_uncompiled_steps_do(compiled, policy):
    batches = with_bad(NAN_GRADIENT, 2, 4)
    if policy == "raise":
        with pytest.raises(NonFiniteError, match="the gradient of `b` is not finite at step 3") as info:
            run(batches, policy, jit=True)
        wanted = run(GOOD[:2], None)
        close((info.value.params, info.value.opt_state), (wanted.params, wanted.opt_state))
        return
    ours, theirs = run(batches, policy, jit=True), run(batches, policy)
    close((ours.params, ours.opt_state, ours.divergence), (theirs.params, theirs.opt_state, theirs.divergence))


def test_without_a_policy_the_program_is_the_same():
    def program(**options):
        return str(
            tp.make_graph(lambda p: tp.fit(loss, GOOD, params=p, optimizer=ADAM, steps=6, **options).params)(START)
        )

    assert program() == program(on_nonfinite=None) and "isfinite" not in program()
    assert len(program(on_nonfinite="skip")) > len(program())


# --- members ---

X = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None]
NET = tp.functional(nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1)).double())


class Sizes(nn.Module):
    """Norms, whose kernel eager code chooses by their values."""

    def forward(self, x):
        return torch.nn.functional.normalize(x, dim=-1) + x.norm(dim=-1, keepdim=True)


WITH_NORMS = tp.functional(nn.Sequential(nn.Linear(1, 5), nn.Tanh(), Sizes(), nn.Linear(5, 1)).double())
NORMAL, DIVERGING = [0.01, 0.02, 0.03, 0.04], [0.01, 1e200, 0.03, 1e300]


def train(learning_rate, policy="freeze", steps=30, callback=None, net=NET):
    return tp.fit(
        net, (X, X**2), optimizer=tp.optim.sgd(learning_rate), steps=steps, on_nonfinite=policy, callback=callback
    )


def rates(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("policy", POLICIES[1:])
@pytest.mark.parametrize(
    ("net", "jit"), [(NET, False), (WITH_NORMS, False), pytest.param(NET, True, marks=pytest.mark.compile)]
)
def test_only_the_member_that_diverges_stops_and_the_others_are_bit_identical(policy, net, jit):
    mapped = tp.vmap(lambda rate: train(rate, policy, net=net))
    mapped = tp.jit(mapped) if jit else mapped
    with_bad_ones, without = mapped(rates(DIVERGING)), mapped(rates(NORMAL))
    for index in (0, 2):
        same(*(tp.tree.map(itemgetter(index), fit) for fit in (with_bad_ones, without)))
    steps = with_bad_ones.divergence.step.tolist()
    assert [step > 0 for step in steps] == [False, True, False, True]
    assert with_bad_ones.divergence.path[::2] == [None, None] and None not in with_bad_ones.divergence.path[1::2]
    assert repr(with_bad_ones.divergence) == "Divergence: 2 of 4 members"
    for leaf in tp.tree.leaves(with_bad_ones.params):
        assert leaf.isfinite().all()


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.compile)])
def test_a_sweep_reports_its_members_after_the_run_with_all_results(jit):
    space = [{"learning_rate": rate} for rate in DIVERGING]
    with pytest.raises(NonFiniteError, match="sweep: a step is not finite; first .* members 1, 3 of vmap") as info:
        tp.sweep(lambda key, learning_rate: train(learning_rate, "raise").params, space, jit=jit)
    made = info.value.result
    frozen = tp.sweep(lambda key, learning_rate: train(learning_rate, "freeze").params, space, jit=jit)
    assert info.value.members == [(1,), (3,)] and made.points == frozen.points
    close(made.results, frozen.results)
    assert all(leaf.isfinite().all() for leaf in tp.tree.leaves(made.results))


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.compile)])
def test_a_sweep_of_several_programs_names_members_by_their_number(jit):
    space = {"steps": [5, 6], "learning_rate": [0.1, 1e300]}
    with pytest.raises(NonFiniteError) as info:
        tp.sweep(lambda key, learning_rate, steps: train(learning_rate, "raise", steps).params, space, jit=jit)
    assert info.value.members == [(1,), (3,)]
    with pytest.raises(NonFiniteError) as info:  # a single member, which runs without vmap
        tp.sweep(lambda key, learning_rate: train(learning_rate, "raise").params, {"learning_rate": [1e300]}, jit=jit)
    assert info.value.members == [(0,)] and len(info.value.result.points) == 1


def test_a_vmap_of_fits_raises_with_all_results():
    with pytest.raises(
        NonFiniteError, match="fit: a step is not finite; .*error.result.*: members 1, 3 of vmap"
    ) as info:
        tp.vmap(lambda rate: train(rate, "raise").params)(rates(DIVERGING))
    wanted = tp.vmap(train)(rates(DIVERGING))
    same(info.value.result, wanted)
    assert info.value.members == [(1,), (3,)] and info.value.step == int(wanted.divergence.step[1])
    assert tp.vmap(lambda rate: train(rate, "raise").history)(rates(NORMAL)).isfinite().all()


def test_a_vmap_of_loops_raises_after_the_last_report():
    def last(rate):
        return list(loop(lambda p, x: (p - x) ** 2, torch.zeros((), dtype=torch.float64), [(X[0, 0],)] * 400,
                         tp.optim.sgd(rate), on_nonfinite="raise", every=400))[-1].params  # fmt: skip

    with pytest.raises(NonFiniteError, match="loop: .*: member 1 of vmap") as info:
        tp.vmap(last)(rates([0.1, 9.0]))
    assert info.value.result.params.isfinite().all() and info.value.result.params.shape == (2,)


@pytest.mark.compile
def test_in_a_program_raise_is_a_check():
    fast = tp.jit(tp.vmap(lambda rate: train(rate, "raise", 5).params))
    assert fast(rates([0.1, 0.2]))["0.bias"].shape == (2, 5)
    with pytest.raises(CheckError, match="fit: a step is not finite: member 1 of vmap"):
        fast(rates([0.1, 1e300]))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_derivative_through_a_guarded_run_is_that_of_the_run(policy):
    rate = rates(0.05)
    watched = tp.grad(lambda lr: train(lr, policy, 4).history[-1])(rate)
    plain = tp.grad(lambda lr: train(lr, None, 4).history[-1])(rate)
    torch.testing.assert_close(watched, plain, rtol=1e-12, atol=0)


def test_a_derivative_of_members_is_not_changed_by_one_that_diverges():
    slope = tp.vmap(tp.grad(lambda rate: train(rate, "skip", 4).history[-1]))
    ours, theirs = slope(rates([0.05, 1e300])), slope(rates([0.05, 0.06]))
    assert torch.equal(ours[0], theirs[0])
