"""The table of optimizers for the tests: one entry for each optimizer, see docs/adding.md.

The key is the factory's name, or "name, variant". See `testing.Case` for the fields.
"""

from typing import Any

import torch

from torchpure import optim, random
from torchpure.testing import Case


def _torch_adagrad(lr=1e-2, lr_decay=0.0, eps=1e-10, initial_accumulator_value=0.0):
    learning_rate = (lambda step: lr / (1 + step * lr_decay)) if lr_decay else lr
    return optim.adagrad(learning_rate, eps=eps, initial_accumulator_value=initial_accumulator_value, eps_in_sqrt=False)


def _torch_rmsprop(lr=1e-2, alpha=0.99, eps=1e-8, momentum=0.0, centered=False):
    return optim.rmsprop(lr, decay=alpha, eps=eps, momentum=momentum or None, centered=centered, eps_in_sqrt=False)


def _torch_adafactor(lr=1e-2, beta2_decay=-0.8, eps=(None, 1e-3), d=1.0, weight_decay=0.0):
    given = {"eps": eps[0], "min_scale": eps[1], "decay_rate": -beta2_decay, "clipping_threshold": d}
    return optim.adafactor(lr, weight_decay=weight_decay, form="torch", **given)


def _optax_schedule_free(base):
    """Let optax read a warm-up at the count of the base optimizer; it reads it one step later."""
    import optax

    rate = optax.warmup_constant_schedule(0.0, 0.05, 5)
    return optax.contrib.schedule_free(base(optax, rate), lambda step: rate(step - 1))


def _decay_rate(step: Any, power: Any) -> Any:
    return 1 - (step + 1.0) ** -power


def _optax_adafactor():
    """Chain the parts of optax.adafactor, because optax.adafactor rounds its decay rate to float32."""
    import optax

    return optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=1, epsilon=1e-3, decay_rate_fn=_decay_rate),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_learning_rate(0.05, flip_sign=False),
        optax.scale_by_param_block_rms(),
        optax.ema(0.9, debias=False),
        optax.add_decayed_weights(0.01),
        optax.scale(-1.0),
    )


OPTIMIZERS: dict[str, Case] = {
    "adam": Case(
        factory=optim.adam,
        optax="adam",
        torch=(
            torch.optim.Adam,
            lambda lr=1e-3, betas=(0.9, 0.999), eps=1e-8, amsgrad=False: (
                optim.amsgrad(lr, b1=betas[0], b2=betas[1], eps=eps, correct_after_max=True)
                if amsgrad
                else optim.adam(lr, b1=betas[0], b2=betas[1], eps=eps)
            ),
        ),
    ),
    "adamw": Case(
        factory=optim.adamw,
        hyper={"weight_decay": 0.1},
        optax="adamw",
        torch=(
            torch.optim.AdamW,
            lambda lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2: optim.adamw(
                lr, b1=betas[0], b2=betas[1], eps=eps, weight_decay=weight_decay
            ),
        ),
    ),
    "lion": Case(factory=optim.lion, learning_rate=0.01, rosenbrock=(0.01, 600), optax="lion"),
    "sgd": Case(
        factory=optim.sgd,
        fixed=("momentum", "dampening"),
        rosenbrock=(1e-3, 2000),
        optax="sgd",
        torch=(
            torch.optim.SGD,
            lambda lr=1e-3, momentum=0.0, nesterov=False, dampening=0.0: optim.sgd(
                lr, momentum=momentum, nesterov=nesterov, dampening=dampening
            ),
        ),
    ),
    "sgd, dampening": Case(factory=optim.sgd, hyper={"momentum": 0.9, "dampening": 0.5}, rosenbrock=(2e-3, 1000)),
    "sgd, momentum": Case(
        factory=optim.sgd, hyper={"momentum": 0.9}, fixed=("dampening",), rosenbrock=(1e-3, 1000), optax="sgd"
    ),
    "sgd, nesterov": Case(
        factory=optim.sgd,
        hyper={"momentum": 0.9},
        options={"nesterov": True},
        fixed=("dampening",),
        rosenbrock=(1e-3, 1000),
        optax="sgd",
    ),
    "adan": Case(factory=optim.adan, optax="adan"),
    "novograd": Case(factory=optim.novograd, learning_rate=0.01, optax="novograd"),
    "yogi": Case(factory=optim.yogi, optax="yogi"),
    "adabelief": Case(factory=optim.adabelief, optax="adabelief"),
    "adabelief, nesterov": Case(factory=optim.adabelief, options={"nesterov": True}, optax="adabelief"),
    "adadelta": Case(
        factory=optim.adadelta,
        learning_rate=1.0,
        parabola=None,  # its first steps have the size of √eps
        rosenbrock=None,
        optax="adadelta",
        torch=(torch.optim.Adadelta, lambda lr=1.0, rho=0.9, eps=1e-6: optim.adadelta(lr, rho=rho, eps=eps)),
    ),
    "adagrad": Case(factory=optim.adagrad, learning_rate=0.5, rosenbrock=(0.5, 600), optax="adagrad"),
    "adagrad, torch": Case(
        factory=optim.adagrad,
        learning_rate=0.5,
        hyper={"initial_accumulator_value": 0.1},
        options={"eps_in_sqrt": False},
        rosenbrock=(0.5, 600),
        torch=(torch.optim.Adagrad, _torch_adagrad),
    ),
    "fromage": Case(factory=optim.fromage, learning_rate=0.01, parabola=None, rosenbrock=None, optax="fromage"),
    "lamb": Case(factory=optim.lamb, rosenbrock=None, optax="lamb"),  # a leaf that reaches 0 stays there
    "lars": Case(
        factory=optim.lars,
        learning_rate=0.1,
        hyper={"trust_coefficient": 0.1, "momentum": 0.9},
        parabola=None,  # its steps are proportional to the parameters, so it circles the minimum
        rosenbrock=None,
        optax="lars",
    ),
    "noisy_sgd": Case(
        factory=optim.noisy_sgd,
        hyper={"eta": 1e-6},
        options={"key": random.key(0)},
        rosenbrock=(1e-3, 2000),
        entrywise=False,  # a leaf's noise depends on its shape
    ),
    "optimistic_adam": Case(factory=optim.optimistic_adam, optax="optimistic_adam_v2"),
    "optimistic_gradient_descent": Case(
        factory=optim.optimistic_gradient_descent, rosenbrock=(1e-3, 2000), optax="optimistic_gradient_descent"
    ),
    "rmsprop": Case(factory=optim.rmsprop, learning_rate=0.01, rosenbrock=(0.01, 600), optax="rmsprop"),
    "rmsprop, centered": Case(
        factory=optim.rmsprop,
        learning_rate=0.005,
        hyper={"momentum": 0.5, "eps": 1e-2},
        options={"centered": True, "nesterov": True, "bias_correction": True},
        rosenbrock=(0.005, 1200),
        optax="rmsprop",
    ),
    "rmsprop, torch": Case(
        factory=optim.rmsprop,
        learning_rate=0.01,
        options={"eps_in_sqrt": False},
        rosenbrock=(0.01, 600),
        optax="rmsprop",
        torch=(torch.optim.RMSprop, _torch_rmsprop),
    ),
    "rprop": Case(
        factory=optim.rprop,  # no oracle: optax applies the update of the previous step, and first none
        scheduled=False,  # the learning rate is the size of the first step only
        torch=(
            torch.optim.Rprop,
            lambda lr=1e-2, etas=(0.5, 1.2), step_sizes=(1e-6, 50): optim.rprop(
                lr, eta_minus=etas[0], eta_plus=etas[1], min_step_size=step_sizes[0], max_step_size=step_sizes[1]
            ),
        ),
    ),
    # in a valley it jumps from side to side by the learning rate
    "sign_sgd": Case(factory=optim.sign_sgd, learning_rate=0.01, rosenbrock=None, optax="sign_sgd"),
    "sm3": Case(
        factory=optim.sm3,
        learning_rate=0.5,
        rosenbrock=(0.5, 600),
        # optax has no SM3 for leaves of shape (): see test_sm3_equals_optax
        entrywise=False,  # its state has one number per row and column
    ),
    "adamax": Case(
        factory=optim.adamax,
        rosenbrock=(0.1, 500),
        optax="adamax",
        torch=(
            torch.optim.Adamax,
            lambda lr=2e-3, betas=(0.9, 0.999), eps=1e-8: optim.adamax(lr, b1=betas[0], b2=betas[1], eps=eps),
        ),
    ),
    "adamaxw": Case(factory=optim.adamaxw, hyper={"weight_decay": 0.1}, rosenbrock=(0.1, 1800), optax="adamaxw"),
    "ademamix": Case(factory=optim.ademamix, learning_rate=0.01, rosenbrock=(0.01, 1000), optax="ademamix"),
    "adopt": Case(factory=optim.adopt, rosenbrock=(0.1, 600), optax="adopt"),
    "adopt, nesterov": Case(
        factory=optim.adopt, rosenbrock=(0.1, 600), options={"nesterov": True, "use_clipping": False}, optax="adopt"
    ),
    "amsgrad": Case(factory=optim.amsgrad, rosenbrock=(0.1, 600), optax="amsgrad"),
    "amsgrad, torch": Case(factory=optim.amsgrad, options={"correct_after_max": True}),
    "cocob": Case(
        factory=optim.cocob,
        learning_rate=1.0,
        rosenbrock=None,  # each coordinate uses only the sign of its own gradient
        optax="cocob",
        fixed=("eps",),  # it bounds the first gradients from below, so nothing depends on it
    ),
    "nadam": Case(factory=optim.nadam, optax="nadam"),
    "nadam, torch": Case(
        factory=optim.nadam,
        hyper={"momentum_decay": 4e-3},
        fixed=("eps_root",),
        # torch keeps its product of momenta in float32: see tests/optim/algorithms/test_by_hand.py
    ),
    "nadamw, torch": Case(
        factory=optim.nadamw, hyper={"momentum_decay": 0.1, "weight_decay": 0.1}, fixed=("eps_root",), parabola=None
    ),
    "nadamw": Case(factory=optim.nadamw, hyper={"weight_decay": 0.1}, optax="nadamw"),
    "radam": Case(factory=optim.radam, fixed=("threshold",), rosenbrock=(0.005, 2000), optax="radam"),
    "radam, torch": Case(
        factory=optim.radam,
        options={"eps_on_corrected": False},
        fixed=("threshold", "eps_root"),
        rosenbrock=(0.005, 2000),
        torch=(
            torch.optim.RAdam,
            lambda lr=1e-3, betas=(0.9, 0.999), eps=1e-8: optim.radam(
                lr, b1=betas[0], b2=betas[1], eps=eps, eps_on_corrected=False
            ),
        ),
    ),
    "asgd": Case(
        factory=optim.asgd,
        fixed=("t0",),  # a number of steps
        rosenbrock=(1e-3, 2000),
        # torch keeps η in float32: see tests/optim/algorithms/test_by_hand.py
    ),
    "dog": Case(
        factory=optim.dog, learning_rate=1.0, options={"init_step": ("distance", 0.1)}, rosenbrock=None, optax="dog"
    ),
    "dowg": Case(
        factory=optim.dowg,
        learning_rate=1.0,
        hyper={"init_estim_sq_dist": 0.1, "eps": 1e-2},
        rosenbrock=None,
        optax="dowg",
    ),
    # optax takes the root of an int32 count, which jax rounds to float32
    "madgrad": Case(factory=optim.madgrad, rosenbrock=(0.02, 2000), optax="madgrad", rtol=1e-6),
    "polyak_sgd": Case(
        factory=optim.polyak_sgd,
        learning_rate=10.0,  # a bound, much larger than the steps
        options={"variant": "sps"},
        fixed=("f_min",),
        rosenbrock=None,
        parabola=None,
        scheduled=False,
    ),
    "prodigy": Case(
        factory=optim.prodigy,
        learning_rate=1.0,
        hyper={"estim_lr0": 1e-2},
        rosenbrock=None,
        parabola=None,
        optax="prodigy",
        rtol=1e-7,  # optax differs by 3e-9 after five steps; ours equals the recurrence to 1e-12: test_by_hand.py
    ),
    "adafactor": Case(
        factory=optim.adafactor,
        options={"min_dim_size_to_factor": 1, "dtype_momentum": torch.float64},
        hyper={"momentum": 0.9, "weight_decay": 0.01, "eps": 1e-3},
        entrywise=False,  # the mean squares of a matrix are factored into rows and columns
        parabola=None,  # its weights decay
        rosenbrock=None,
        optax=lambda: _optax_adafactor(),
    ),
    "adafactor, torch": Case(
        factory=optim.adafactor,
        hyper={"weight_decay": 0.01, "eps": 1e-3},
        options={"form": "torch"},
        entrywise=False,
        parabola=None,
        rosenbrock=None,
        torch=(torch.optim.Adafactor, _torch_adafactor),
    ),
    "dadapt_adamw": Case(
        factory=optim.dadapt_adamw,
        learning_rate=1.0,
        hyper={"estim_lr0": 1e-2, "weight_decay": 0.01},
        rosenbrock=None,
        parabola=None,
        optax="dadapt_adamw",
    ),
    "momo": Case(factory=optim.momo, learning_rate=1.0, rosenbrock=(0.1, 600), optax="momo"),
    "momo, adapting": Case(
        factory=optim.momo,
        learning_rate=1.0,
        hyper={"weight_decay": 0.01, "lower_bound": -20.0},
        options={"adapt_lower_bound": True},
        parabola=None,
        rosenbrock=None,
        optax="momo",
    ),
    "momo_adam": Case(factory=optim.momo_adam, learning_rate=0.5, rosenbrock=(0.05, 600), optax="momo_adam"),
    "momo_adam, adapting": Case(
        factory=optim.momo_adam,
        learning_rate=0.5,
        hyper={"weight_decay": 0.01, "lower_bound": -20.0},
        options={"adapt_lower_bound": True},
        parabola=None,
        rosenbrock=None,
        optax="momo_adam",
    ),
    "muon": Case(
        factory=optim.muon,
        hyper={"weight_decay": 0.01},
        entrywise=False,  # the update of a matrix is not entrywise
        parabola=None,  # steps have the size of the learning rate
        rosenbrock=(0.02, 900),
        # chaotic with these coefficients, so it is compared over 100 steps, see test_matrices.py
    ),
    "muon, cubic": Case(
        factory=optim.muon,
        options={"ns_coeffs": (1.5, -0.5, 0.0)},
        entrywise=False,
        parabola=None,
        rosenbrock=(0.02, 900),
        optax="muon",  # for a square matrix, because optax swaps inputs and outputs
    ),
    "muon, adaptive": Case(
        factory=optim.muon,
        options={"adaptive": True, "nesterov": False, "preconditioning": "schatten"},
        hyper={"consistent_rms": 0.2},
        entrywise=False,
        rosenbrock=(0.02, 900),
        optax="muon",
    ),
    # torch's takes only matrices, so it is compared in test_matrices.py. It rounds to bfloat16
    "galore": Case(
        factory=optim.galore,
        hyper={"weight_decay": 0.01},
        options={"rank": 1, "update_proj_gap": 2},
        entrywise=False,
        parabola=None,  # a projection of rank one
        rosenbrock=(0.02, 900),
    ),
    "soap": Case(
        factory=optim.soap,
        hyper={"weight_decay": 0.01},
        options={"precondition_frequency": 2},
        entrywise=False,
        parabola=None,
        rosenbrock=(0.02, 900),
    ),
    "schedule_free_sgd": Case(
        factory=optim.schedule_free_sgd,
        differentiable=False,  # at the largest learning rate so far a maximum has a kink
        rosenbrock=(2e-3, 2000),
        scheduled=False,  # it warms up by itself
        optax="schedule_free_sgd",
    ),
    "schedule_free_sgd, warmup": Case(
        factory=optim.schedule_free_sgd,
        hyper={"weight_decay": 0.01},
        options={"warmup_steps": 5},
        parabola=None,
        rosenbrock=None,
        scheduled=False,
        optax=lambda: _optax_schedule_free(lambda ox, rate: ox.chain(ox.add_decayed_weights(0.01), ox.sgd(rate))),
        rtol=1e-7,  # optax's warm-up is in float32
    ),
    "schedule_free_adamw": Case(
        factory=optim.schedule_free_adamw,
        differentiable=False,  # as above
        rosenbrock=(0.05, 600),
        scheduled=False,
        optax="schedule_free_adamw",
    ),
    "schedule_free_adamw, warmup": Case(
        factory=optim.schedule_free_adamw,
        hyper={"weight_decay": 0.01},
        options={"warmup_steps": 5},
        parabola=None,
        rosenbrock=None,
        scheduled=False,
        optax=lambda: _optax_schedule_free(
            lambda ox, rate: ox.chain(
                ox.scale_by_rms(decay=0.999, eps=1e-8, eps_in_sqrt=False, bias_correction=True),
                ox.add_decayed_weights(0.01),
                ox.scale_by_learning_rate(rate),
            )
        ),
        rtol=1e-7,
    ),
    "sophia": Case(
        factory=optim.sophia,
        hyper={"gamma": 0.5, "clip_threshold": 0.4, "weight_decay": 0.01},
        options={"key": random.key(0), "update_interval": 2},
        entrywise=False,  # a leaf's signs depend on its shape
        parabola=None,  # its weights decay
        rosenbrock=(0.02, 1200),
        # compared with optax, with the same diagonal, in test_by_hand.py
    ),
    "lbfgs": Case(
        factory=optim.lbfgs,
        learning_rate=1.0,
        options={"memory_size": 3, "linesearch": optim.scale_by_zoom_linesearch(4, initial_guess_strategy="one")},
        rosenbrock=(1.0, 40),
        parabola=10,
        # compared with optax, scipy and torch in test_line_searches.py
    ),
    "lbfgs, whole steps": Case(
        factory=optim.lbfgs,
        learning_rate=0.5,
        options={"memory_size": 3, "scale_init_precond": False, "linesearch": optim.identity()},
        rosenbrock=None,
    ),
    "kron": Case(
        factory=optim.kron,
        hyper={"weight_decay": 0.01},
        options={"key": random.key(0), "precondition_probability": 0.7},
        entrywise=False,
        parabola=None,  # its weights decay
        rosenbrock=(0.02, 1500),
    ),
}
