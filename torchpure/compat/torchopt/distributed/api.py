"""Calls of functions on workers: refused."""

from ._refused import refused

__all__ = [
    "TensorDimensionPartitioner",
    "batch_partitioner",
    "dim_partitioner",
    "mean_reducer",
    "parallelize",
    "parallelize_async",
    "parallelize_sync",
    "remote_async_call",
    "remote_sync_call",
    "sum_reducer",
]

TensorDimensionPartitioner = refused("distributed.TensorDimensionPartitioner")
dim_partitioner = refused("distributed.dim_partitioner")
batch_partitioner = refused("distributed.batch_partitioner")
mean_reducer = refused("distributed.mean_reducer")
sum_reducer = refused("distributed.sum_reducer")
remote_async_call = refused("distributed.remote_async_call")
remote_sync_call = refused("distributed.remote_sync_call")
parallelize = refused("distributed.parallelize")
parallelize_async = refused("distributed.parallelize_async")
parallelize_sync = refused("distributed.parallelize_sync")
