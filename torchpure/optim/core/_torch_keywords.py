"""Answer keywords of torch.optim, which a factory here does not have, with what to write instead."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from torchpure.transforms.calls import hint_keywords

F = TypeVar("F", bound=Callable[..., Any])

_LEAVE = "leave it out: there is one way to step, which is differentiable"
# keyword of torch -> (parameter that the factory must have, what to write); the first that fits
_HINTS: dict[str, tuple[tuple[str, str], ...]] = {
    "lr": (("learning_rate", "write learning_rate"), ("", "leave it out, and chain with scale_by_learning_rate")),
    "betas": (("b3", "write b1, b2 and b3"), ("b2", "write b1 and b2"), ("b1", "write b1"), ("beta", "write beta")),
    "momentum": (("b1", "write b1"), ("beta", "write beta")),
    "alpha": (("decay", "write decay"),),
    "weight_decay": (("learning_rate", "write chain(add_decayed_weights(weight_decay), {name}(…))"),),
    "lr_decay": (("learning_rate", "write learning_rate=lambda step: lr / (1 + step * lr_decay)"),),
    "amsgrad": (("b2", "use optim.amsgrad"),),
    "etas": (("eta_minus", "write eta_minus and eta_plus"),),
    "step_sizes": (("min_step_size", "write min_step_size and max_step_size"),),
    "beta2_decay": (("decay_rate", "write decay_rate, with the opposite sign"),),
    "d": (("clipping_threshold", "write clipping_threshold"),),
    "history_size": (("memory_size", "write memory_size"),),
    "line_search_fn": (("linesearch", "write linesearch"),),
    "max_iter": (("linesearch", "leave it out, and call step for each iteration"),),
    "ns_coefficients": (("ns_coeffs", "write ns_coeffs"),),
    "adjust_lr_fn": (("consistent_rms", "write consistent_rms"),),
    "maximize": (("", "write chain(scale(-1.0), {name}(…))"),),
    "params": (("", "leave it out, and pass the parameters to init and step"),),
    **dict.fromkeys(("foreach", "fused", "capturable", "differentiable"), (("", _LEAVE),)),
}


def hint_torch_keywords(factory: F) -> F:
    """Decorate a factory: if a call has a keyword of torch.optim, the error says what to write instead.

    Raises:
        TypeError: a call has such a keyword, and the factory has no parameter of that name.

    >>> @hint_torch_keywords
    ... def adam(learning_rate, b1=0.9, b2=0.999): ...
    >>> adam(lr=0.1)
    Traceback (most recent call last):
    TypeError: adam: there is no argument `lr`: write learning_rate
    """
    own = {"", *inspect.signature(factory).parameters}
    fitting = {
        keyword: next((text for needed, text in hints if needed in own), None)
        for keyword, hints in _HINTS.items()
        if keyword not in own
    }
    return hint_keywords(**{key: text.format(name=factory.__name__) for key, text in fitting.items() if text})(factory)
