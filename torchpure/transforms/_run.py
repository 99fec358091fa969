"""Running torch's own transforms: what their errors mean, and what they leave behind."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch.compiler import is_dynamo_compiling

from torchpure.errors import ImpureError, TransformError

from ._describe import describe_function, user_line
from ._indexing import Indexing

_autocasts = torch._C._is_any_autocast_enabled
AUTOGRAD = "calls torch.autograd.grad or backward, which do not see through transforms: use tp.grad there"
_MUTATES = "changes in place what it was given or captures: clone it, or return the new value. tp.pure(fn) names it"
_NO_FORWARD = (
    "uses {}, which has no forward derivative in torch: go backwards, with grad, vjp and jacrev (jacrev twice for a "
    "Hessian), or give it a rule with custom_jvp"
)
_NO_DERIVATIVE = (
    "needs the derivative of {}, which torch lacks: use other operations, or give it a rule with custom_jvp"
)
_NO_RULE = "uses {}, which torch cannot map: use other operations, a loop, or give it a rule with custom_vmap"
_FUNCTION = (
    "uses a torch.autograd.Function that transforms cannot follow: give it setup_context and generate_vmap_rule, or "
    "use custom_vjp"
)
_NUMBER = "data-dependent control flow"
_ADVICE = {  # what torch says inside its transforms -> what the function does, and what to do instead
    "randomness error mode": "draws from the global generator. "
    "Give each member a key: vmap(fn)(random.split(key, n), ...), and draw with tp.random",
    _NUMBER: "branches on the value of a mapped tensor: choose with torch.where",
    r"calling \.item\(\)": "makes a number of a mapped tensor: keep it a tensor",
    "inplace arithmetic|there exists a Tensor `other` in extra_args": "writes a mapped value into a tensor that all "
    "members share: make it of a mapped one, with torch.zeros_like, or return new values",
    "modified by an inplace operation": "changes a temporary in place after it was used where its value matters for "
    "the derivative: change a clone",
    "support saved tensor hooks": "uses hooks on saved tensors, as checkpointing does: "
    "only the outermost grad or value_and_grad allows them",
    "does not require grad and does not have a grad_fn": AUTOGRAD,
    "not have been used in the graph": AUTOGRAD,
    r"backward\(\) called inside": AUTOGRAD,
    r"attempting to call Tensor.requires_grad_\(\)": "makes a variable for torch's autograd, which does not see "
    "through transforms: use tp.grad there",
    "torch.autograd.functional cuts": "calls torch.autograd.functional, which gives constants: use tp.jacrev, "
    "tp.hessian or tp.jvp there, or pass create_graph=True",
    "torch.func.linearize called inside": "calls torch.func.linearize, which is wrong there: use tp.linearize",
    "leaf Variable that requires grad": _MUTATES,
    "view of a leaf Variable that requires grad": _MUTATES,
    "would mutate a captured Tensor": _MUTATES,
    "running_mean or running_var, which w": "updates the running statistics of a batch norm that members share: "
    "make the module a function with tp.functional",
    r"forward AD with ([\w:.]+) that does not": _NO_FORWARD,
    r"derivative for '?([\w:.]+)'? is not implemented": _NO_DERIVATIVE,
    r"Batching rule not implemented for ([\w:.]+\w)": _NO_RULE,
    r"vmap: we do not yet support ([\w:.]+\w)": _NO_RULE,
    r"vmap over ([\w:.]+) isn't supported": _NO_RULE,
    r"Error: ([\w:.]+) requires special handling": _NO_RULE,
    r"dynamic shape\. Attempt\w+ to (?:vmap|batch) over ([\w: ]+\w)": "uses {}, whose result has another size for each "
    "member: keep all entries, and choose with torch.where",
    "In order to use an autograd.Function with functorch": _FUNCTION,
    "does not have vmap support": _FUNCTION,
}


def explained(who: str, fn: Callable[..., Any], run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return `run(*args, **kwargs)`, one of torch's transforms of `fn`; say what to do about errors that are known.

    Raises:
        TransformError: `fn` does what torch's transforms cannot follow; the operation is named.
        ImpureError: `fn` changes what it was given.
    """
    try:
        return _with_places(run, *args, **kwargs)
    except RuntimeError as error:
        sign, advice = next(((s, a) for s, a in _ADVICE.items() if re.search(s, str(error))), (None, None))
        if sign is None or advice is None:
            raise
        found = re.search(sign, str(error))
        names = [f"`{name}`" for name in found.groups()] if found else []
        kind = ImpureError if advice is _MUTATES else TransformError
        raise kind(f"{who}: {describe_function(fn)}{user_line(error)} {advice.format(*names)}") from error
    finally:
        if not is_dynamo_compiling():
            forget_casts()


def _with_places(run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a transform; again, if torch took `x[i]` for a number where `i` is a mapped tensor under a gradient."""
    try:
        return run(*args, **kwargs)
    except RuntimeError as error:
        if _NUMBER not in str(error):
            raise
    with Indexing():
        return run(*args, **kwargs)


def forget_casts() -> None:
    """Empty the cache of autocast, which would keep our variables, and the graph above them, until autocast ends."""
    if _autocasts():
        torch.clear_autocast_cache()
