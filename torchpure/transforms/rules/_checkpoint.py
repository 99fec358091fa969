"""torch.utils.checkpoint as `remat`, where torch's own is wrong or refuses.

torch runs a checkpointed function again in a backward pass. By then the parameters of a call of `tp.functional`, its
key and the levels of the transforms around it are gone.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from torch.utils.checkpoint import noop_context_fn

from torchpure import tree
from torchpure._torch import SelectiveCheckpointMode, checkpoint_body
from torchpure.errors import TransformError
from torchpure.transforms.context import active_resumables
from torchpure.transforms.engine import describe_function, in_outermost_grad

from ._remat import run_rematerialised


def _checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Any = noop_context_fn,
    preserve_rng_state: bool = True,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    **kwargs: Any,
) -> Any:
    """Do what `torch.utils.checkpoint.checkpoint` does, with the same options.

    Raises:
        TransformError: `context_fn` makes contexts that are unknown here.
    """
    options: dict[str, Any] = {} if context_fn is noop_context_fn else {"context_fn": context_fn}
    if not (in_outermost_grad() or active_resumables() or not tree.unwatched()):
        return _torch_checkpoint()(
            function,
            *args,
            use_reentrant=use_reentrant,
            preserve_rng_state=preserve_rng_state,
            determinism_check=determinism_check,
            debug=debug,
            early_stop=early_stop,
            **options,
            **kwargs,
        )
    if options and not isinstance(context_fn()[0], SelectiveCheckpointMode):
        raise TransformError(
            f"torch.utils.checkpoint of {describe_function(function)}: this library cannot enter the contexts of its "
            "context_fn in a transform: enter them in the function itself"
        )
    return run_rematerialised(partial(function, **kwargs) if kwargs else function, args, None, options)


@lru_cache(maxsize=1)
def _torch_checkpoint() -> Callable[..., Any]:
    """Return torch's own function, which torch.compile does not trace; made at its first call, as torch does."""
    return torch.compiler.disable(checkpoint_body)


# `checkpoint` runs what it finds in this attribute, wherever it was imported from. At the first call, torch puts its
# body there, marked for torch.compile.
checkpoint_body.__dynamo_disable = _checkpoint
