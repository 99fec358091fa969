"""What is relied on of torch's groups of processes: run in one process, with a group of its own."""

from datetime import timedelta

import torch.distributed as dist
from contracts import called, relied_on

from torchpure._torch import get_default_store, set_group_timeout

called("get_default_store")
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
