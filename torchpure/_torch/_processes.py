"""Parts of torch.distributed: the store that all processes share, and the timeout of a group."""

from torch.distributed import distributed_c10d as _module

get_default_store = _module._get_default_store
set_group_timeout = getattr(_module, "set_timeout", None) or _module._set_pg_timeout  # public from torch 2.15 on
