"""A process that fails tells the others, so that none of them waits for it."""

from collections.abc import Callable

from torch.distributed.device_mesh import DeviceMesh

from torchpure._torch import disable_current_modes
from torchpure._types import T
from torchpure.transforms.engine import without_function_modes

from ._mesh import axes_of
from .messages import announce_failure, whole_group


def announcing(mesh: DeviceMesh, run: Callable[[], T]) -> T:
    """Run a function; if it fails, tell all processes of the mesh."""
    groups = {id(group): group for group in [whole_group(), *(axis.group for axis in axes_of(mesh).values())]}
    for group in groups.values():
        group.heard = ""
    try:
        return run()
    except BaseException as error:
        # a group that has heard of it raises this error on every process: all others have yet to hear
        rest = [group for group in groups.values() if group.size > 1 and not group.heard]
        with disable_current_modes(), without_function_modes():  # a tracer may run
            announce_failure(rest, f"{type(error).__name__}: {error}")
        raise
