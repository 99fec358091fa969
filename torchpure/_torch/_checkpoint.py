"""Parts of torch.utils.checkpoint: the function that `checkpoint` wraps, and the mode of a policy."""

from typing import Any

from torch.utils import checkpoint as _module
from torch.utils.checkpoint import _CachingTorchDispatchMode as SelectiveCheckpointMode

checkpoint_body: Any = _module.checkpoint.__wrapped__  # pyrefly: ignore[missing-attribute]
