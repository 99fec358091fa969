"""Tests of single transformations and combinators, beyond the laws of all optimizers."""

import pytest
import torch

from torchpure import functional, grad, optim, random, testing, tree, vmap
from torchpure.errors import StructureError

D = torch.float64
PARAMS = {
    "body": {"w": torch.tensor([1.0, -2.0], dtype=D), "bias": torch.tensor([0.5], dtype=D)},
    "head": torch.ones(1, dtype=D),
}


def gradient(params):
    return tree.map(lambda p: 2 * p + p**3, params)


def run(optimizer, steps=5, params=PARAMS, **extra):
    state = optimizer.init(params)
    for _ in range(steps):
        params, state = optimizer.step(gradient(params), state, params, **extra)
    return params, state


needs_value = optim.Optimizer(
    lambda params: (), lambda grads, state, params, *, value: (tree.scale(grads, -value), state), extra=("value",)
)


def test_every_combinator_passes_keywords_to_optimizers_that_name_them():
    grads = gradient(PARAMS)
    wanted = tree.scale(grads, -0.25)
    inner = optim.chain(optim.identity(), optim.named_chain(("one", needs_value)))
    wrapped = [
        inner,
        optim.masked(inner, "*"),
        optim.partition({"*": inner}),
        optim.selective_transform(inner, freeze_mask=False),
        optim.multi_steps(inner, 1),
        optim.apply_if_finite(inner, 2),
        optim.conditionally_transform(inner, lambda step: step >= 0),
        optim.split_real_and_imaginary(inner),
        optim.lookahead(inner, sync_period=5),
    ]
    for optimizer in wrapped:
        assert optimizer.extra == ("value",)
        updates, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS, value=torch.tensor(0.25), other="ignored")
        testing.assert_trees_close(updates, wanted)
    updates, _ = optim.adam(0.1).update(grads, optim.adam(0.1).init(PARAMS), PARAMS, value=1.0)
    assert tree.structure(updates) == tree.structure(PARAMS)


def test_error_for_a_missing_keyword_shows_the_call():
    for call in (optim.reduce_on_plateau().update, optim.chain(optim.sgd(0.1), optim.reduce_on_plateau()).step):
        state = optim.chain(optim.sgd(0.1), optim.reduce_on_plateau()).init(PARAMS)
        with pytest.raises(TypeError, match=r": wanted value: call step\(grads, state, params, value=…\)"):
            call(gradient(PARAMS), state, PARAMS)


def test_a_condition_may_take_keywords():
    optimizer = optim.conditionally_mask(optim.sgd(1.0), lambda step, *, value: value < 1, extra=("value",))
    for value, moves in ((0.5, True), (2.0, False)):
        moved, _ = run(optimizer, 1, value=torch.tensor(value))
        assert torch.equal(moved["head"], PARAMS["head"]) is not moves


def test_masks_as_tree_prefix_function_and_glob_are_equal():
    masks = [
        {"body": {"w": True, "bias": False}, "head": False},
        lambda params: tree.map(lambda p: p.shape == (2,), params),
        "*.w",
        ["body.w", "nothing"],
    ]
    results = [run(optim.chain(optim.masked(optim.trace(0.9), mask), optim.sgd(0.1)))[0] for mask in masks]
    for result in results[1:]:
        testing.assert_trees_close(result, results[0], rtol=0.0)
    by_prefix = run(optim.chain(optim.masked(optim.trace(0.9), {"body": True, "head": False}), optim.sgd(0.1)))[0]
    by_glob = run(optim.chain(optim.masked(optim.trace(0.9), "body.*"), optim.sgd(0.1)))[0]
    testing.assert_trees_close(by_prefix, by_glob, rtol=0.0)


def test_error_for_a_wrong_mask_names_the_path():
    with pytest.raises(StructureError, match=r"masked: trees differ at `body`: wanted keys 'v', got 'w', 'bias'"):
        optim.masked(optim.trace(0.9), {"body": {"v": True}, "head": True}).init(PARAMS)


def test_partition_equals_torchs_parameter_groups():
    ours, _ = run(
        optim.partition({"*.bias": optim.sgd(0.1, momentum=0.5), "body.*": optim.sgd(0.05), "*": optim.adam(0.2)}), 50
    )
    leaves = [torch.nn.Parameter(leaf.clone()) for leaf in tree.leaves(PARAMS)]
    torch_sgd = torch.optim.SGD(
        [{"params": [leaves[1]], "lr": 0.1, "momentum": 0.5}, {"params": [leaves[0]], "lr": 0.05}]
    )
    torch_adam = torch.optim.Adam([leaves[2]], lr=0.2)
    for _ in range(50):
        for leaf in leaves:
            leaf.grad = gradient(leaf.detach())
        torch_sgd.step()
        torch_adam.step()
    for got, wanted in zip(tree.leaves(ours), leaves, strict=True):
        torch.testing.assert_close(got, wanted.detach(), rtol=1e-12, atol=1e-14)


def test_partition_by_labels_and_by_a_function():
    groups = {"slow": optim.sgd(0.01), "fast": optim.sgd(0.1)}
    by_tree = optim.partition(groups, {"body": "slow", "head": "fast"})
    by_function = optim.partition(groups, lambda params: {"body": {"w": "slow", "bias": "slow"}, "head": "fast"})
    testing.assert_trees_close(run(by_tree)[0], run(by_function)[0], rtol=0.0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: optim.partition({}), ValueError, "partition: wanted at least one optimizer"),
        (
            lambda: optim.partition({"a": optim.sgd(0.1)}, {"body": "a", "head": "b"}),
            StructureError,
            r"partition: `head` has the label 'b', wanted one of \['a'\]",
        ),
        (
            lambda: optim.partition({"body.*": optim.sgd(0.1)}),
            StructureError,
            r"partition: no pattern of \['body.\*'\] matches the parameter `head`: add '\*' as the last one",
        ),
        (
            lambda: optim.chain(optim.sgd),
            TypeError,
            "chain: at 0: wanted an optimizer of tp.optim, got the function sgd: call it first",
        ),
        (
            lambda: optim.named_chain(("a", optim.sgd(0.1)), ("a", optim.sgd(0.1))),
            ValueError,
            "each name must come once",
        ),
        (lambda: optim.named_chain(("a", 3)), TypeError, "named_chain: at 'a': wanted an optimizer of tp.optim, got 3"),
        (lambda: optim.named_chain(), ValueError, "chain: wanted at least one optimizer"),
        (
            lambda: optim.multi_steps(optim.sgd(0.1), 0),
            ValueError,
            "every_k_schedule must be a whole number, at least 1",
        ),
        (lambda: optim.apply_every(1.5), ValueError, "apply_every: k must be a whole number, at least 1, got 1.5"),
        (lambda: optim.apply_if_finite(optim.sgd(0.1), -1), ValueError, "max_consecutive_errors must be finite"),
        (lambda: optim.lookahead(optim.sgd(0.1), sync_period=0), ValueError, "lookahead: sync_period must be"),
        (
            lambda: optim.inject_hyperparams(optim.sgd, "speed"),
            ValueError,
            r"static_args \['speed'\] are not in \['learning_rate'",
        ),
        (lambda: optim.reduce_on_plateau(1.0), ValueError, r"factor must be in \(0, 1\), got 1.0"),
        (lambda: optim.reduce_on_plateau(rtol=0.0), ValueError, "rtol or atol positive, got 0.0 and 0.0"),
        (lambda: optim.reduce_on_plateau(patience=0), ValueError, "patience must be a whole number"),
        (lambda: optim.reduce_on_plateau(cooldown=-1), ValueError, "cooldown must be finite and at least 0"),
        (lambda: optim.add_decayed_weights(-0.1), ValueError, "add_decayed_weights: weight_decay must be finite"),
        (lambda: optim.add_noise(-1.0, 0.5, random.key(0)), ValueError, "add_noise: eta must be finite"),
        (lambda: optim.trace(-0.1), ValueError, "trace: decay must be finite"),
        (lambda: optim.ema(1.0), ValueError, r"ema: decay must be in \[0, 1\)"),
        (lambda: optim.measure_with_ema(tree.norm, 1.0), ValueError, r"ema: decay must be in \[0, 1\)"),
        (lambda: optim.clip(-1.0), ValueError, "clip: max_delta must be finite"),
        (lambda: optim.clip_by_block_rms(-1.0), ValueError, "clip_by_block_rms: threshold must be"),
        (lambda: optim.adaptive_grad_clip(-1.0), ValueError, "adaptive_grad_clip: clipping must be"),
        (lambda: optim.normalize_by_update_norm(eps=-1.0), ValueError, "normalize_by_update_norm: eps must be"),
        (
            lambda: optim.scale_by_learning_rate(-1.0),
            ValueError,
            "scale_by_learning_rate: learning_rate must be finite",
        ),
        (lambda: optim.scale_by_adam(b1=1.0), ValueError, r"scale_by_adam: b1 must be in \[0, 1\)"),
        (lambda: optim.per_example_global_norm_clip(torch.ones(2, 2), -1.0), ValueError, "l2_norm_clip must be"),
        (
            lambda: optim.per_example_global_norm_clip({"w": torch.ones(3, 2), "b": torch.ones(2)}, 1.0),
            StructureError,
            "at `b`: wanted 3 examples in the first dimension, got a float32 tensor of shape",
        ),
        (lambda: optim.per_example_layer_norm_clip((torch.ones(()),), 1.0), StructureError, "wanted a first dimension"),
        (lambda: optim.per_example_global_norm_clip({}, 1.0), StructureError, "wanted at least one gradient, got none"),
    ],
)
def test_error_message(make, error, message):
    with pytest.raises(error, match=message):
        result = make()
        result.init(PARAMS)


@pytest.mark.parametrize("use_grad_mean", [True, False])
def test_law_multi_steps_of_k_equals_the_whole_batch(use_grad_mean):
    inputs = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=D)
    params = {"w": torch.tensor([0.3, -0.2, 0.9], dtype=D)}
    reduced = torch.mean if use_grad_mean else torch.sum

    def slope(p, x):
        return grad(lambda q: reduced((x @ q["w"]).sin()))(p)

    small = optim.multi_steps(optim.adam(0.1), 4, use_grad_mean=use_grad_mean)
    one, two = (params, small.init(params)), (params, optim.adam(0.1).init(params))
    for _ in range(3):
        for part in inputs.split(3):
            one = small.step(slope(one[0], part), one[1], one[0])
        assert bool(optim.has_updated(one[1]))
        two = optim.adam(0.1).step(slope(two[0], inputs), two[1], two[0])
    testing.assert_trees_close(one[0], two[0], rtol=1e-12)


def test_multi_steps_skips_gradients_and_follows_a_schedule():
    optimizer = optim.multi_steps(
        optim.sgd(1.0), lambda step: 1 + step, should_skip_update_fn=optim.skip_not_finite, accumulator_dtype=D
    )
    params = torch.zeros(1)
    state, seen = optimizer.init(params), []
    for value in (1.0, float("nan"), 2.0, float("inf"), 4.0, 5.0):
        params, state = optimizer.step(torch.tensor([value]), state, params)
        seen.append(params.item())
    assert seen == [-1.0, -1.0, -1.0, -1.0, -4.0, -4.0]
    assert state.gathered.dtype == D and state.gathered.item() == 5.0
    limit = lambda g, s, p: optim.skip_large_updates(g, s, p, 10.0)  # noqa: E731
    optimizer = optim.multi_steps(optim.sgd(1.0), 1, should_skip_update_fn=limit)
    params, state = optimizer.step(torch.tensor([4.0]), optimizer.init(torch.zeros(1)), torch.zeros(1))
    assert params.item() == 0 and state.skip_state["norm_squared"].item() == pytest.approx(16.0)


def test_apply_if_finite_skips_up_to_its_limit_with_finite_derivatives():
    optimizer, params = optim.apply_if_finite(optim.adam(0.1), 1), torch.ones(1, dtype=D)
    state = optimizer.init(params)
    bad = torch.full((1,), float("nan"), dtype=D)
    moved, state = optimizer.step(bad, state, params)
    assert torch.equal(moved, params) and state.total_notfinite == 1 and not state.last_finite
    moved, state = optimizer.step(params, state, params)
    assert moved.isfinite().all() and state.notfinite_count == 0
    _, state = optimizer.step(bad, state, params)
    assert optimizer.step(bad, state, params)[0].isnan().all()

    def unrolled(learning_rate):
        opt = optim.apply_if_finite(optim.adam(learning_rate), 3)
        p, s = opt.step(params, opt.init(params), params)
        return opt.step(bad, s, p)[0].sum()

    assert grad(unrolled)(torch.tensor(0.1, dtype=D)).item() == pytest.approx(-1.0, rel=1e-6)


def test_conditions_may_be_batched():
    optimizer = optim.apply_if_finite(optim.sgd(1.0), 3)
    grads = torch.tensor([[1.0], [float("nan")]])
    moved, state = vmap(lambda g: optimizer.step(g, optimizer.init(torch.zeros(1)), torch.zeros(1)))(grads)
    assert moved.tolist() == [[-1.0], [0.0]] and state.last_finite.tolist() == [True, False]


def test_injected_hyper_parameters_can_be_read_changed_and_scheduled():
    make = optim.inject_hyperparams(optim.adam)
    optimizer = make(optim.exponential_decay(0.1, 1, 0.5), b1=0.8)
    params, state = run(optimizer, 3)
    assert set(state.hyperparams) == {"learning_rate", "b1", "b2", "eps", "eps_root"}
    assert state.hyperparams["learning_rate"].item() == pytest.approx(0.1 * 0.5**2, rel=1e-15)
    testing.assert_trees_close(params, run(optim.adam(optim.exponential_decay(0.1, 1, 0.5), b1=0.8), 3)[0], rtol=1e-12)

    optimizer = make(0.1)
    state = optimizer.init(PARAMS)
    stopped = state._replace(hyperparams={**state.hyperparams, "learning_rate": torch.tensor(0.0, dtype=D)})
    testing.assert_trees_close(optimizer.step(gradient(PARAMS), stopped, PARAMS)[0], PARAMS, rtol=0.0)


def test_injected_hyper_parameters_can_be_differentiated_and_batched():
    optimizer = optim.inject_hyperparams(optim.sgd)(0.1)
    state, params = optimizer.init(torch.ones((), dtype=D)), torch.ones((), dtype=D)

    def reached(learning_rate):
        changed = state._replace(hyperparams={**state.hyperparams, "learning_rate": learning_rate})
        return optimizer.step(3 * params, changed, params)[0]

    assert grad(reached)(torch.tensor(0.1, dtype=D)).item() == -3.0
    assert vmap(reached)(torch.tensor([0.1, 0.2], dtype=D)).tolist() == pytest.approx([0.7, 0.4])


def test_inject_does_not_change_counts_flags_and_static_arguments():
    def factory(learning_rate, *, size: int = 3, weight_decay=0.1, nesterov=True):
        assert isinstance(size, int) and nesterov is True and isinstance(learning_rate, torch.Tensor | float)
        return optim.sgd(learning_rate, momentum=weight_decay)

    state = optim.inject_hyperparams(factory, "weight_decay")(0.5).init(torch.ones(1))
    assert set(state.hyperparams) == {"learning_rate"}


def test_lookahead_follows_the_paper():
    optimizer = optim.lookahead(optim.sgd(0.1), sync_period=3, slow_step_size=0.4)
    fast = slow = 1.0
    for step in range(1, 10):
        fast -= 0.1 * (2 * fast + fast**3)
        if step % 3 == 0:
            slow += 0.4 * (fast - slow)
            fast = slow
        params, state = run(optimizer, step, torch.tensor(1.0, dtype=D))
        assert params.item() == pytest.approx(fast, rel=1e-13)
        assert state.slow.item() == pytest.approx(slow, rel=1e-13)


def test_noise_has_the_variance_of_its_step_and_depends_on_its_key():
    optimizer, zeros = optim.add_noise(0.5, 0.55, random.key(3)), torch.zeros(200_00, dtype=D)
    state = optimizer.init(zeros)
    for step in (1, 2, 3):
        noise, state = optimizer.update(zeros, state, zeros)
        assert noise.square().mean().item() == pytest.approx(0.5 / step**0.55, rel=0.05)
    first = optimizer.update(zeros, optimizer.init(zeros), zeros)[0]
    assert torch.equal(first, optimizer.update(zeros, optimizer.init(zeros), zeros)[0])
    assert not torch.equal(first, noise)
    pair = optimizer.update((zeros, zeros), optimizer.init((zeros, zeros)), (zeros, zeros))[0]
    assert not torch.equal(*pair)


def test_clips_equal_optax():
    import jax
    import jax.numpy as jnp
    import optax

    grads = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=D)
    params = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=D)
    with jax.enable_x64(True):
        theirs = optax.adaptive_grad_clip(0.3, axis=1).update(
            *(jnp.asarray(x.numpy()) if x is not None else () for x in (grads, None, params))
        )[0]
        per_example = optax.per_example_global_norm_clip({"w": jnp.asarray(grads.numpy())}, 1.5)
        per_layer = optax.per_example_layer_norm_clip({"w": jnp.asarray(grads.numpy())}, 1.5)
        wanted = [torch.tensor(jax.device_get(x)) for x in (theirs, per_example[0]["w"], per_layer[0]["w"])]
        counts = int(per_example[1]), int(per_layer[1]["w"])
    clip = optim.adaptive_grad_clip(0.3)
    torch.testing.assert_close(clip.update(grads, clip.init(params), params)[0], wanted[0], rtol=1e-12, atol=0)
    sums, count = optim.per_example_global_norm_clip({"w": grads}, 1.5)
    torch.testing.assert_close(sums["w"], wanted[1], rtol=1e-12, atol=1e-15)
    layer_sums, layer_counts = optim.per_example_layer_norm_clip({"w": grads}, 1.5, uniform=False)
    torch.testing.assert_close(layer_sums["w"], wanted[2], rtol=1e-12, atol=1e-15)
    assert (count.item(), layer_counts["w"].item()) == counts


def test_zero_nans_records_where_a_nan_was():
    zero = optim.zero_nans()
    grads = {"a": torch.tensor([float("nan"), 1.0]), "b": torch.tensor([2.0]), "n": None}
    params = {"a": torch.zeros(2), "b": torch.zeros(1), "n": 3}
    updates, state = zero.update(grads, zero.init(params), params)
    assert updates["a"].tolist() == [0.0, 1.0] and updates["n"] is None
    assert state.found_nan["a"].item() and not state.found_nan["b"].item() and state.found_nan["n"] is None


def test_monitors_store_measurements_and_do_not_change_updates():
    watch = optim.chain(
        optim.monitor({"norm": tree.norm, "smooth": optim.measure_with_ema(tree.norm, 0.5, debias=False)}),
        optim.snapshot(
            "largest", lambda updates: torch.stack([leaf.abs().max() for leaf in tree.leaves(updates)]).max()
        ),
        optim.sgd(0.1),
    )
    moved, (monitored, shot, _) = run(watch, 1)
    testing.assert_trees_close(moved, run(optim.sgd(0.1), 1)[0], rtol=0.0)
    norm = tree.norm(gradient(PARAMS))
    assert monitored.measurements["norm"] == norm and shot.measurement["largest"] == 12.0
    torch.testing.assert_close(monitored.measurements["smooth"], 0.5 * norm, rtol=1e-12, atol=0)
    assert tree.structure(watch.init(PARAMS)) == tree.structure((monitored, shot, optim.sgd(0.1).init(PARAMS)))


def test_half_precision_computes_in_float32_and_has_the_asked_dtypes():
    params = {"w": torch.ones(3, dtype=torch.bfloat16)}
    optimizer = optim.adam(1e-3, mu_dtype=torch.float32, accumulator_dtype=torch.bfloat16)
    state = optimizer.init(params)
    assert state.mean["w"].dtype == torch.float32 and state.square["w"].dtype == torch.bfloat16
    grads = {"w": torch.tensor([1.0, 1e-3, 0.0], dtype=torch.bfloat16)}
    updates, state = optimizer.update(grads, state, params)
    assert updates["w"].dtype == torch.float32 and state.square["w"].dtype == torch.bfloat16
    torch.testing.assert_close(updates["w"][:2], torch.full((2,), -1e-3), rtol=1e-2, atol=0)
    assert optimizer.step(grads, state, params)[0]["w"].dtype == torch.bfloat16


@pytest.mark.compile
def test_globs_can_be_compiled():
    optimizer = optim.partition({"*.bias": optim.sgd(0.1), "*": optim.masked(optim.sgd(0.2), "head")})
    compiled = torch.compile(lambda g, s, p: optimizer.step(g, s, p)[0], fullgraph=True, backend="eager")
    state = optimizer.init(PARAMS)
    testing.assert_trees_close(
        compiled(gradient(PARAMS), state, PARAMS), optimizer.step(gradient(PARAMS), state, PARAMS)[0]
    )


def test_law_partition_equals_torchs_param_groups():
    x = torch.linspace(-1, 1, 12, dtype=D).reshape(4, 3)
    net = functional(
        lambda: torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    )

    def loss(params):
        return (net(params, x) - x.prod(1, keepdim=True)).square().sum()

    groups = {
        "0.*": optim.adamw(0.02, b1=0.8, weight_decay=0.1),
        "*.bias": optim.adamw(0.1, weight_decay=0.0),
        "*": optim.adamw(0.05, b2=0.9, weight_decay=0.01),
    }
    opt, params = optim.partition(groups), net.params
    module, state = net.to_module(params), opt.init(params)
    theirs = torch.optim.AdamW(
        [
            {"params": list(module[0].parameters()), "lr": 0.02, "betas": (0.8, 0.999), "weight_decay": 0.1},
            {"params": [module[2].bias], "lr": 0.1, "weight_decay": 0.0},
            {"params": [module[2].weight], "lr": 0.05, "betas": (0.9, 0.9), "weight_decay": 0.01},
        ]
    )
    for _ in range(50):
        params, state = opt.step(grad(loss)(params), state, params)
        theirs.zero_grad()
        (module(x) - x.prod(1, keepdim=True)).square().sum().backward()
        theirs.step()
    there = {name: value.detach() for name, value in module.named_parameters()}
    testing.assert_trees_close(params, there, rtol=1e-12, atol=1e-12)
