"""Whether Adam's operation works on a device."""

from collections.abc import Iterable

import torch

from torchpure.compat.torchopt.typing import Device

from .adam_op import AdamOp

__all__ = ["is_available"]


def is_available(devices: Device | Iterable[Device] | None = None) -> bool:
    """Return whether `AdamOp` runs on all these devices; by default CUDA and CPU.

    >>> is_available("cpu")
    True
    """
    if devices is None:
        devices = ("cuda", "cpu")
    elif isinstance(devices, torch.device | int | str):
        devices = (devices,)
    try:
        for device in map(torch.device, devices):
            if device.type == "cuda" and not torch.cuda.is_available():
                return False
            one = torch.ones((), device=device)
            AdamOp()(one, one.clone(), one.clone(), 1)
    except Exception:  # whatever the device says, it cannot run it
        return False
    return True
