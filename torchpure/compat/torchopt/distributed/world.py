"""Ranks and workers: refused."""

from ._refused import refused

__all__ = [
    "auto_init_rpc",
    "barrier",
    "get_local_rank",
    "get_local_world_size",
    "get_rank",
    "get_worker_id",
    "get_world_info",
    "get_world_rank",
    "get_world_size",
    "not_on_rank",
    "on_rank",
    "rank_non_zero_only",
    "rank_zero_only",
]

get_world_info = refused("distributed.get_world_info")
get_world_rank = refused("distributed.get_world_rank")
get_rank = refused("distributed.get_rank")
get_world_size = refused("distributed.get_world_size")
get_local_rank = refused("distributed.get_local_rank")
get_local_world_size = refused("distributed.get_local_world_size")
get_worker_id = refused("distributed.get_worker_id")
barrier = refused("distributed.barrier")
auto_init_rpc = refused("distributed.auto_init_rpc")
on_rank = refused("distributed.on_rank")
not_on_rank = refused("distributed.not_on_rank")
rank_zero_only = refused("distributed.rank_zero_only")
rank_non_zero_only = refused("distributed.rank_non_zero_only")
