"""Known errors of torch's transforms, and what to tell the user about each."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from torchpure.errors import ImpureError, TransformError

from ._mixed_dtypes import mixed_dtypes
from ._shared_writes import SHARED_WRITE
from ._source_info import describe_function, raised_in, user_line

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
_DRAWS = "draws from the global generator. Give "
_KEYS = {  # the transform around the draw -> how to pass keys to it
    "vmap": "each member a key: vmap(fn)(random.split(key, n), ...), and draw with tp.random",
    "jacfwd": "it a key as the last argument: jacfwd(fn)(x, key), and draw with tp.random",
    "hessian": "it a key as the last argument: hessian(fn)(x, key), and draw with tp.random",
}
_KEY = "it a key as an argument, and draw with tp.random; under vmap, give each member its own key"
DATA_DEPENDENT = "data-dependent control flow"
_WRITES = (
    f"{SHARED_WRITE}: make it of a mapped one, with torch.zeros_like(x) or x.new_zeros(shape), or return new values"
)
_VALIDATES = (
    "lets torch.distributions check its arguments, whose numbers cannot be looked at there: see that they are valid, "
    "and pass validate_args=False to the distribution"
)
SPARSE = (
    "captures or makes a sparse tensor, which this transform cannot follow in torch: use its .to_dense(), or give the "
    "product a rule with custom_jvp or custom_vjp"
)
NESTED = (
    "captures or is given a nested tensor, which this transform cannot follow in torch: pad it with "
    "torch.nested.to_padded_tensor, and give a mask of the entries that count"
)
_HOOKS = (
    "differentiates a {} with backward hooks, which run in an outermost grad without vmap only: remove the hooks, and "
    "give the function a rule with custom_vjp"
)
_INFERENCE = (
    "computes with a tensor that torch.inference_mode made, which torch cannot differentiate: use torch.no_grad "
    "instead, whose results are constants, or clone the tensor after the block"
)
_NO_NODE = (
    "registers a hook on a tensor that has no gradient of its own there, as under vmap, jvp and jit: register it "
    "inside of a grad, or give the function a rule with custom_vjp"
)
INDETERMINATE = "relation is indeterminate"  # between the length of a jagged dimension and a number; a ValueError
OF_NESTED = r"^NestedTensor \w+\("  # a rule of torch for nested tensors refuses an argument; a ValueError
_NESTED_FILES = ("torch/nested/_internal/ops.py", "torch/nested/_internal/nested_tensor.py")
_MASKS = (
    "reads the values of a mapped attention mask in transformers: give a mask of shape (rows, 1, queries, keys), which "
    "is used as it is"
)
_SPARSE_ERRORS = r"Sparse \w+ tensors do not have (?:strides|is_contiguous)|'Sparse\w*' backend"
_ADVICE = {  # a pattern in torch's message -> what the function does, and what to do instead
    "randomness error mode": _DRAWS,
    DATA_DEPENDENT: "branches on the value of a mapped tensor: choose with torch.where",
    _SPARSE_ERRORS: SPARSE,
    r"calling \.item\(\)": "makes a number of a mapped tensor: keep it a tensor",
    "Cannot access data pointer": "takes the numbers of a traced tensor out of torch, as .numpy() and .tolist() do: "
    "compute with operations of torch, or look at them with tp.debug.callback",
    r"Can't call numpy\(\) on Tensor that requires grad": "takes the numbers of a tensor that has a derivative out of "
    "torch, as .numpy() does: compute with operations of torch, or give it a rule with custom_vjp",
    "InferenceMode::is_enabled": "makes a tensor with a constructor of older programs, such as torch.FloatTensor, "
    "which torch cannot follow there: use torch.stack, or torch.tensor",
    "Cannot access storage of": "asks for the memory of a traced tensor, as copy.deepcopy does: copy it with .clone()",
    f"^{SHARED_WRITE}": _WRITES,
    "modified by an inplace operation": "changes a temporary in place after it was used where its value matters for "
    "the derivative: change a clone",
    "ZeroTensors are immutable": "writes in place into a value that a second forward derivative follows, which torch "
    "cannot do: return new values, such as h = h + x in place of h += x",
    "support saved tensor hooks": "uses hooks on saved tensors, as save_on_cpu does: "
    "only the outermost grad or value_and_grad allows them. To save memory use tp.remat",
    r"^backward hooks of (\w+) inside": _HOOKS,
    "call the hook of a dead Module": "uses register_backward_hook, which torch does not keep under remat: use "
    "register_full_backward_hook",
    "cannot register a hook on a tensor that doesn't require gradient": _NO_NODE,
    r"NoneType' object has no attribute 'register_(?:pre)?hook'|Expected gradient function to be set": _NO_NODE,
    "^is_grads_batched inside": "calls torch.autograd.grad with is_grads_batched, which torch does not follow inside "
    "of a transform: call it once for each row, or use tp.jacrev there",
    "^hook on a tensor from outside of a body": "registers a hook on a tensor from outside of a function that may run "
    "again, as under remat, and each run would add one: register it on a clone, or outside of that function",
    r"^hook after the accumulation into \.grad": "registers a hook on the accumulation into .grad, and a transform "
    "returns gradients without it: change the gradient that the transform returns",
    r"retain_grad on Tensor|call Tensor\.retain_grad": "asks for the .grad of an intermediate value: make the value an "
    "argument, and differentiate with respect to it",
    f"Nested(?:TensorImpl|IntNode|Tensor does not|Tensor must be contiguous)|{INDETERMINATE}|{OF_NESTED}": NESTED,
    "SymIntArrayRef expected to contain only concrete|aten::to_padded_tensor'.* 'CPU' backend": NESTED,
    r"^aten\._nested_tensor_from_tensor_list": NESTED,  # of a tracer
    "does not require grad and does not have a grad_fn": AUTOGRAD,
    "not have been used in the graph": AUTOGRAD,
    "One of the differentiated Tensors does not require grad": AUTOGRAD,
    r"backward\(\) called inside": AUTOGRAD,
    r"attempting to call Tensor.requires_grad_\(\)": "makes a variable for torch's autograd, which does not see "
    "through transforms: use tp.grad there",
    "torch.autograd.functional cuts": "calls torch.autograd.functional, which gives constants: use tp.jacrev, "
    "tp.hessian or tp.jvp there, or pass create_graph=True",
    "torch.func.linearize called inside": "calls torch.func.linearize, which is wrong there: use tp.linearize",
    "^Inference tensors cannot be saved|nplace update to inference tensor": _INFERENCE,
    "leaf Variable that requires grad": _MUTATES,
    "view of a leaf Variable that requires grad": _MUTATES,
    "would mutate a captured Tensor": _MUTATES,
    "not differentiable with respect to argument 'running": "wants the derivative with respect to the running "
    "statistics of a norm, which torch does not have: leave the state out of what is differentiated",
    "running_mean or running_var, which w": "updates the running statistics of a batch norm that members share: "
    "make the module a function with tp.functional",
    r"^out= of (\w+) inside": "gives {} an out=, into which transforms cannot follow a result: use what it returns, as "
    "in y = torch.sin(x)",
    r"forward AD with ([\w:.]+) that does not": _NO_FORWARD,
    r"derivative for '?([\w:.]+)'? is not implemented": _NO_DERIVATIVE,
    r"[Bb]atching rule not implemented for ([\w:.]+\w)": _NO_RULE,
    r"vmap: we do not yet support ([\w:.]+\w)": _NO_RULE,
    r"vmap over ([\w:.]+) isn't supported": _NO_RULE,
    r"Error: ([\w:.]+) requires special handling": _NO_RULE,
    r"dynamic shape\. Attempt\w+ to (?:vmap|batch) over ([\w: ]+\w)": "uses {}, whose result has another size for each "
    "member: keep all entries, and choose with torch.where",
    "In order to use an autograd.Function with functorch": _FUNCTION,
    "does not have vmap support": _FUNCTION,
    "marked as dirty during the forward": "changes an argument in place in a torch.autograd.Function under vmap, which "
    "torch does not support: return a new tensor",
}


def explain(caller: str, fn: Callable[..., Any], error: Exception) -> TransformError | ImpureError | None:
    """Return an error that says what `fn` does and what to do instead; None if torch's error is not known."""
    found = next(((match, advice) for sign, advice in _ADVICE.items() if (match := re.search(sign, str(error)))), None)
    if any(raised_in(error, file) for file in _NESTED_FILES):
        names, advice = [], NESTED
    elif found is None:
        mixed = mixed_dtypes(fn, error)
        return None if mixed is None else TransformError(f"{caller}: {describe_function(fn)}{user_line(error)} {mixed}")
    else:
        names, advice = [f"`{name}`" for name in found[0].groups()], found[1]
    if advice is _DRAWS:
        advice += _KEYS.get(caller, _KEY)
    advice = _advice_by_place(error, advice)
    kind = ImpureError if advice is _MUTATES else TransformError
    return kind(f"{caller}: {describe_function(fn)}{user_line(error)} {advice.format(*names)}")


def refuse_nested(caller: str, fn: Callable[..., Any], leaves: Iterable[Any], *, jagged: bool = False) -> None:
    """Refuse nested tensors that have no shape: those of the strided layout; with `jagged` those of any layout.

    Raises:
        TransformError: one of the leaves is such a nested tensor.
    """
    nested = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_nested]
    if any(jagged or leaf.layout is torch.strided for leaf in nested):
        raise TransformError(f"{caller}: {describe_function(fn)} {NESTED}")


def _advice_by_place(error: Exception, advice: str) -> str:
    """Return better advice for an error that some libraries raise."""
    if advice is _FUNCTION and raised_in(error, "torch/utils/hooks.py"):
        return _HOOKS.format("module")
    if DATA_DEPENDENT in str(error) and raised_in(error, "transformers/masking_utils.py"):
        return _MASKS
    return validation_advice(error) or advice


def validation_advice(error: BaseException) -> str | None:
    """Return the advice for an error of torch.distributions that validates its arguments; None for other errors."""
    names = ("__init__", "_validate_sample")
    return _VALIDATES if raised_in(error, "torch/distributions/distribution.py", names) else None
