"""The table of transformations and combinators: each is part of an optimizer, so that the laws apply to it."""

import inspect
from collections.abc import Callable
from typing import Any

from torchpure import optim, random, tree
from torchpure.testing import Case


def _then_descend(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Chain a transformation with plain gradient descent."""

    def whole(learning_rate, **given):
        return optim.chain(factory(**given), optim.scale_by_learning_rate(learning_rate))

    own = inspect.signature(factory).parameters.values()
    keywords = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    rate = [*inspect.signature(whole).parameters.values()][:1]
    setattr(whole, "__signature__", inspect.Signature(rate + keywords))  # noqa: B010 functions have no such attribute for type checkers
    return whole


def _transform(factory, **expected):
    """Make the case of a transformation; the oracle is optax's transformation of the same name and numbers."""
    given = {**expected.get("hyper", {}), **expected.get("options", {})}
    oracle = expected.pop("oracle", factory.__name__)

    def optax():
        return _optax(lambda ox: ox.chain(getattr(ox, oracle)(**given), ox.scale_by_learning_rate(0.05)))

    defaults: dict[str, Any] = {"rosenbrock": None, "optax": optax if oracle else None}
    return Case(factory=_then_descend(factory), **{**defaults, **expected})


KEY = random.key(0)
GENTLE = {"rosenbrock": None}
# one leaf of the laws' problems, and the other leaf
W_ONLY = {"w": True, "b": False}


def _is_w(params):
    """Select all leaves except the one named b in optax's runs and the laws' problems; other trees occur too."""
    return {name: name != "b" for name in params} if isinstance(params, dict) else True


TRANSFORMS: dict[str, Case] = {
    "adaptive_grad_clip": _transform(optim.adaptive_grad_clip, hyper={"clipping": 0.7}, oracle=None, parabola=None),
    "add_decayed_weights": _transform(
        optim.add_decayed_weights, hyper={"weight_decay": 0.1}, optax=lambda: _with_decay()
    ),
    "add_decayed_weights, mask": _transform(
        optim.add_decayed_weights,
        hyper={"weight_decay": 0.1},
        options={"mask": _is_w},
        optax=lambda: _with_decay({"w": True, "b": False}),
    ),
    "add_noise": _transform(optim.add_noise, hyper={"eta": 1e-6, "gamma": 0.5}, options={"key": KEY}, oracle=None),
    "apply_every": _transform(optim.apply_every, options={"k": 3}),
    "centralize": _transform(optim.centralize, entrywise=False, parabola=None),
    "clip": _transform(optim.clip, hyper={"max_delta": 0.7}),
    "clip_by_block_rms": _transform(optim.clip_by_block_rms, hyper={"threshold": 0.7}),
    "clip_by_global_norm": _transform(optim.clip_by_global_norm, hyper={"max_norm": 0.7}),
    "ema": _transform(optim.ema, hyper={"decay": 0.9}),
    "identity": _transform(optim.identity),
    "keep_params_nonnegative": Case(
        factory=lambda learning_rate: optim.chain(optim.sgd(learning_rate), optim.keep_params_nonnegative()),
        optax=lambda: _optax(lambda ox: ox.chain(ox.sgd(0.05), ox.keep_params_nonnegative())),
        parabola=None,
        rosenbrock=None,
    ),
    "normalize_by_update_norm": _transform(optim.normalize_by_update_norm, hyper={"scale_factor": 0.5}, parabola=None),
    "scale": _transform(optim.scale, hyper={"step_size": 0.5}),
    "scale_by_adam": _transform(optim.scale_by_adam),
    "scale_by_adam, nesterov": _transform(optim.scale_by_adam, options={"nesterov": True}),
    "scale_by_learning_rate": Case(factory=optim.scale_by_learning_rate, optax="scale_by_learning_rate", **GENTLE),
    "scale_by_schedule": _transform(
        lambda *, start=0.9: optim.scale_by_schedule(lambda step: start * 0.99**step),
        optax=lambda: _optax(lambda ox: ox.chain(ox.scale_by_schedule(lambda t: 0.9 * 0.99**t), ox.scale(-0.05))),
    ),
    "scale_by_adan": _transform(optim.scale_by_adan),
    "scale_by_novograd": _transform(optim.scale_by_novograd),
    "scale_by_yogi": _transform(optim.scale_by_yogi),
    "scale_by_adadelta": _transform(optim.scale_by_adadelta, parabola=None),
    "scale_by_belief": _transform(optim.scale_by_belief),
    "scale_by_rss": _transform(optim.scale_by_rss, parabola=None),
    "scale_by_trust_ratio": _transform(optim.scale_by_trust_ratio, parabola=None),
    "scale_by_optimistic_gradient": _transform(optim.scale_by_optimistic_gradient),
    "scale_by_rms": _transform(optim.scale_by_rms, parabola=None),
    "scale_by_stddev": _transform(optim.scale_by_stddev, parabola=None),
    "scale_by_sign": _transform(optim.scale_by_sign, parabola=None),
    "scale_by_sm3": _transform(optim.scale_by_sm3, hyper={"b2": 0.9}, entrywise=False, oracle=None, parabola=None),
    "scale_by_adamax": _transform(optim.scale_by_adamax),
    "scale_by_ademamix": _transform(optim.scale_by_ademamix, oracle=None, parabola=None),
    "scale_by_adopt": _transform(optim.scale_by_adopt, oracle=None),
    "scale_by_amsgrad": _transform(optim.scale_by_amsgrad),
    "scale_by_cocob": _transform(optim.scale_by_cocob, fixed=("eps",), oracle=None, parabola=None),
    "scale_by_radam": _transform(optim.scale_by_radam, fixed=("threshold",)),
    "scale_by_dog": _transform(
        optim.scale_by_dog, options={"init_step": ("distance", 0.1)}, oracle=None, parabola=None
    ),
    "scale_by_dowg": _transform(optim.scale_by_dowg, hyper={"init_estim_sq_dist": 0.1}, oracle=None, parabola=None),
    "scale_by_polyak": _transform(
        optim.scale_by_polyak, hyper={"max_learning_rate": 10.0}, fixed=("f_min",), oracle=None, parabola=None
    ),
    "scale_by_factored_rms": _transform(
        optim.scale_by_factored_rms,
        hyper={"decay_rate": 0.7, "epsilon": 1e-3},
        options={"min_dim_size_to_factor": 1},
        oracle=None,  # see adafactor
        entrywise=False,
        parabola=None,
    ),
    "scale_by_param_block_rms": _transform(optim.scale_by_param_block_rms, entrywise=False, parabola=None),
    "scale_by_muon": _transform(optim.scale_by_muon, oracle=None, entrywise=False, parabola=None),
    "scale_by_shape": _transform(optim.scale_by_shape, oracle=None, entrywise=False),
    "scale_by_galore": _transform(
        optim.scale_by_galore,
        options={"rank": 1, "update_proj_gap": 3},
        oracle=None,
        entrywise=False,
        parabola=None,
    ),
    "scale_by_soap": _transform(
        optim.scale_by_soap,
        options={"precondition_frequency": 3, "precondition_1d": True},
        oracle=None,
        entrywise=False,
        parabola=None,
    ),
    "scale_by_sophia": _transform(
        optim.scale_by_sophia,
        options={"key": KEY, "update_interval": 2, "clip_threshold": None},
        hyper={"gamma": 0.5, "eps": 0.1},
        oracle=None,
        entrywise=False,
        parabola=None,
    ),
    "scale_by_lbfgs": _transform(optim.scale_by_lbfgs, options={"memory_size": 3}, oracle=None, parabola=None),
    "scale_by_kron": _transform(optim.scale_by_kron, options={"key": KEY}, oracle=None, entrywise=False, parabola=None),
    "scale_by_nadam": _transform(optim.scale_by_nadam, hyper={"momentum_decay": 0.1}, oracle=None),
    "scale_by_lion": _transform(optim.scale_by_lion),
    "set_to_zero": _transform(optim.set_to_zero, parabola=None),
    "stateless": _transform(
        lambda *, power=1.5: optim.stateless(lambda g, p: tree.map(lambda x: power * x, g)), optax=None
    ),
    "trace": _transform(optim.trace, hyper={"decay": 0.9}),
    "trace, nesterov": _transform(optim.trace, hyper={"decay": 0.9}, options={"nesterov": True}),
    "zero_nans": _transform(optim.zero_nans),
}


def _optax(make):
    import optax

    return make(optax)


def _without_extras(ox, transformation):
    return ox.GradientTransformation(transformation.init, lambda g, state, p: transformation.update(g, state, p))


def _with_decay(mask=None):
    return _optax(lambda ox: ox.chain(ox.add_decayed_weights(0.1, mask), ox.scale(-0.05)))


def _wrapper(make, oracle=None, **expected):
    """Make the case of a combinator: `make(learning_rate, …)`, and `oracle(optax)` at the learning rate 0.05."""
    defaults: dict[str, Any] = {"rosenbrock": None, "optax": (lambda: _optax(oracle)) if oracle else None}
    return Case(factory=make, **{**defaults, **expected})


def _chained(learning_rate, *, max_norm=0.5, b1=0.9):
    return optim.chain(optim.clip_by_global_norm(max_norm), optim.adam(learning_rate, b1=b1))


def _named_chained(learning_rate, *, max_norm=0.5, b1=0.9):
    return optim.named_chain(("clip", optim.clip_by_global_norm(max_norm)), ("adam", optim.adam(learning_rate, b1=b1)))


def _two_groups(learning_rate, *, momentum=0.9, b1=0.8):
    groups = {"*b": optim.sgd(learning_rate, momentum=momentum), "*": optim.adam(learning_rate, b1=b1)}
    return optim.partition(groups)


COMBINATORS: dict[str, Case] = {
    "apply_if_finite": _wrapper(
        lambda learning_rate, *, b1=0.9: optim.apply_if_finite(optim.adam(learning_rate, b1=b1), 3),
        lambda ox: ox.apply_if_finite(ox.adam(0.05), 3),
    ),
    "chain": _wrapper(_chained, lambda ox: ox.chain(ox.clip_by_global_norm(0.5), ox.adam(0.05))),
    "conditionally_mask": _wrapper(
        lambda learning_rate, *, b1=0.9: optim.conditionally_mask(
            optim.adam(learning_rate, b1=b1), lambda step: step % 3 > 0
        ),
        lambda ox: ox.conditionally_mask(ox.adam(0.05), lambda step: step % 3 > 0),
    ),
    "conditionally_transform": _wrapper(
        lambda learning_rate, *, b1=0.9: optim.chain(
            optim.sgd(learning_rate), optim.conditionally_transform(optim.ema(b1), lambda step: step % 3 > 0)
        ),
        lambda ox: ox.chain(ox.sgd(0.05), ox.conditionally_transform(ox.ema(0.9), lambda step: step % 3 > 0)),
    ),
    "flatten": _wrapper(
        lambda learning_rate, *, b1=0.9: optim.flatten(optim.adam(learning_rate, b1=b1)),
        lambda ox: ox.flatten(ox.adam(0.05)),
    ),
    "freeze": _wrapper(
        lambda learning_rate: optim.chain(optim.sgd(learning_rate), optim.freeze("*b")),
        lambda ox: ox.chain(ox.sgd(0.05), ox.freeze({"w": False, "b": True})),
        parabola=None,
    ),
    "inject_hyperparams": _wrapper(
        optim.inject_hyperparams(optim.adam), lambda ox: ox.inject_hyperparams(ox.adam)(0.05)
    ),
    "lookahead": _wrapper(
        lambda learning_rate, *, slow_step_size=0.5, b1=0.9: optim.lookahead(
            optim.adam(learning_rate, b1=b1), sync_period=3, slow_step_size=slow_step_size
        ),
    ),
    "lookahead, reset": _wrapper(
        lambda learning_rate, *, slow_step_size=0.5: optim.lookahead(
            optim.sgd(learning_rate, momentum=0.9), sync_period=3, slow_step_size=slow_step_size, reset_state=True
        ),
    ),
    "masked": _wrapper(
        lambda learning_rate, *, decay=0.9: optim.chain(
            optim.masked(optim.trace(decay), _is_w), optim.sgd(learning_rate)
        ),
        lambda ox: ox.chain(ox.masked(ox.trace(0.9), W_ONLY), ox.sgd(0.05)),
    ),
    "monitor": _wrapper(
        lambda learning_rate: optim.chain(
            optim.monitor({"norm": tree.norm, "smooth": optim.measure_with_ema(tree.norm, 0.9)}),
            optim.sgd(learning_rate),
        ),
        lambda ox: ox.sgd(0.05),
    ),
    "multi_steps": _wrapper(
        lambda learning_rate, *, b1=0.9: optim.multi_steps(optim.adam(learning_rate, b1=b1), 3),
        lambda ox: ox.MultiSteps(ox.adam(0.05), 3, accumulator_dtype="float64").gradient_transformation(),
    ),
    "named_chain": _wrapper(
        _named_chained, lambda ox: ox.named_chain(("clip", ox.clip_by_global_norm(0.5)), ("adam", ox.adam(0.05)))
    ),
    "partition": _wrapper(
        _two_groups,
        lambda ox: ox.partition({"b": ox.sgd(0.05, 0.9), "w": ox.adam(0.05, b1=0.8)}, {"w": "w", "b": "b"}),
    ),
    "reduce_on_plateau": _wrapper(
        lambda learning_rate, *, factor=0.9, rtol=1e-3: optim.chain(
            optim.sgd(learning_rate),
            optim.reduce_on_plateau(factor, patience=3, rtol=rtol, cooldown=2, accumulation_size=2),
        ),
        lambda ox: ox.chain(
            ox.sgd(0.05),
            ox.contrib.reduce_on_plateau(0.9, patience=3, rtol=1e-3, cooldown=2, accumulation_size=2),
        ),
    ),
    "selective_transform": _wrapper(
        lambda learning_rate, *, b1=0.9: optim.selective_transform(optim.adam(learning_rate, b1=b1), freeze_mask="*b"),
        lambda ox: ox.selective_transform(ox.adam(0.05), freeze_mask={"w": False, "b": True}),
        parabola=None,
    ),
    "snapshot": _wrapper(
        lambda learning_rate: optim.chain(optim.snapshot("norm", tree.norm), optim.sgd(learning_rate)),
        lambda ox: ox.sgd(0.05),
    ),
    "split_real_and_imaginary": _wrapper(
        lambda learning_rate, *, b1=0.9: optim.split_real_and_imaginary(optim.adam(learning_rate, b1=b1)),
        lambda ox: ox.contrib.split_real_and_imaginary(ox.adam(0.05)),
    ),
    "mechanize": _wrapper(
        lambda learning_rate, *, weight_decay=1e-2, s_init=1e-2, b1=0.9: optim.mechanize(
            optim.adam(learning_rate, b1=b1), weight_decay=weight_decay, s_init=s_init
        ),
        lambda ox: ox.contrib.mechanize(ox.adam(0.05), s_init=1e-2),
        parabola=None,
    ),
    "sam": _wrapper(
        lambda learning_rate, *, rho=0.01, b1=0.9: optim.sam(
            optim.adam(learning_rate, b1=b1), optim.chain(optim.normalize_by_update_norm(), optim.sgd(rho))
        ),
        lambda ox: _without_extras(
            ox, ox.contrib.sam(ox.adam(0.05), ox.chain(ox.normalize_by_update_norm(), ox.sgd(0.01)))
        ),
        parabola=None,  # it circles at the radius of its ascent
    ),
    "sam, opaque": _wrapper(
        lambda learning_rate, *, rho=0.01, b1=0.9: optim.sam(
            optim.adam(learning_rate, b1=b1),
            optim.sgd(rho, momentum=0.9),
            sync_period=3,
            reset_state=False,
            opaque_mode=True,
        ),
    ),
    "schedule_free": _wrapper(
        # a falling schedule, because at the largest learning rate so far a maximum has a kink
        lambda learning_rate, *, b1=0.9, weight_lr_power=2.0: optim.schedule_free(
            optim.sgd(learning_rate), lambda step: learning_rate * 0.999**step, b1=b1, weight_lr_power=weight_lr_power
        ),
        lambda ox: ox.contrib.schedule_free(ox.sgd(0.05), lambda step: 0.05 * 0.999 ** (step - 1)),
        scheduled=False,
    ),
    "scale_by_backtracking_linesearch": _wrapper(
        lambda learning_rate, *, slope_rtol=1e-4, decrease_factor=0.8, increase_factor=1.5: optim.chain(
            optim.sgd(learning_rate),
            optim.scale_by_backtracking_linesearch(
                5,
                slope_rtol=slope_rtol,
                decrease_factor=decrease_factor,
                increase_factor=increase_factor,
                max_learning_rate=100.0,
                store_grad=True,
            ),
        ),
        parabola=60,
    ),
    "scale_by_zoom_linesearch": _wrapper(
        lambda learning_rate, *, increase_factor=2.0, slope_rtol=1e-4, curv_rtol=0.5: optim.chain(
            optim.sgd(learning_rate),
            optim.scale_by_zoom_linesearch(
                6, increase_factor=increase_factor, slope_rtol=slope_rtol, curv_rtol=curv_rtol
            ),
        ),
        parabola=20,
    ),
    "scale_by_strong_wolfe_linesearch": _wrapper(
        lambda learning_rate, *, slope_rtol=1e-4, curv_rtol=0.2: optim.chain(
            optim.sgd(learning_rate),
            optim.scale_by_strong_wolfe_linesearch(4, slope_rtol=slope_rtol, curv_rtol=curv_rtol),
        ),
        parabola=20,
    ),
    "scale_by_more_thuente_linesearch": _wrapper(
        lambda learning_rate, *, slope_rtol=1e-3, curv_rtol=0.2: optim.chain(
            optim.sgd(learning_rate),
            optim.scale_by_more_thuente_linesearch(5, slope_rtol=slope_rtol, curv_rtol=curv_rtol),
        ),
        parabola=20,
    ),
}
