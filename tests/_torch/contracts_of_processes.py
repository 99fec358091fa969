"""What is relied on of torch's groups of processes: run in one process, with a group of its own."""

import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from contracts import called, relied_on

from torchpure._torch import dtensor_class, get_default_store, is_dtensor, set_group_timeout

called("get_default_store")
called("dtensor_class")
called("is_dtensor", torch.ones(2))
called("set_group_timeout", timedelta(seconds=1.0), "group")


@relied_on("get_default_store", "set_group_timeout")
def _groups_have_a_store_and_a_timeout():
    begun = not dist.is_initialized()
    if begun:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        store = get_default_store()
        store.set("torchpure/contract", "here")
        assert store.check(["torchpure/contract"]) and not store.check(["torchpure/nothing"])
        set_group_timeout(timedelta(seconds=7.0), dist.group.WORLD)
    finally:
        if begun:
            dist.destroy_process_group()


@relied_on("dtensor_class", "is_dtensor")
def _dtensors_have_one_class_in_one_module():
    assert dtensor_class() is None or "torch.distributed.tensor" in sys.modules
    from torch.distributed.tensor import DTensor

    assert dtensor_class() is DTensor
    assert not is_dtensor(torch.ones(2)) and not is_dtensor("text")
