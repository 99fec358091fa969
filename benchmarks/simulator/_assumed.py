"""Assumed constants: an H100 cluster, a scheduler, models. The comments say where each number comes from."""

from ._cluster import Cluster, Gpu
from ._collectives import Link
from ._sweep import Scheduler
from ._transformer import Transformer

# NVIDIA's data sheet of the H100 SXM: 989 Tflop/s in dense bfloat16, 80 GB, 3.35 TB/s. What a layer reaches is assumed:
# large products alone reach about 790 Tflop/s on an H200, which has the same cores
GPU = Gpu(flops=600e12, peak_flops=989e12, memory=80e9, memory_per_second=3.0e12)

# Latencies of a message of a ring: NCCL's own model (src/graph/tuning.cc, hwLat, protocol Simple). Data sheets:
# 450 GB/s in each direction over NVLink, 400 Gbit/s for each GPU over InfiniBand; 80 and 90 percent are assumed
NVLINK = Link(latency=3.4e-6, per_byte=1 / (0.8 * 450e9))
INFINIBAND = Link(latency=9.6e-6, per_byte=1 / (0.9 * 50e9))
H100 = Cluster(GPU, node=8, inside=NVLINK, between=INFINIBAND)

# gloo over 25 Gbit/s Ethernet with TCP: assumed
ETHERNET = Link(latency=25e-6, per_byte=1 / 3e9)

# 419 unexpected interruptions of 16,384 GPUs in 54 days (The Llama 3 Herd of Models, arXiv:2407.21783, section 3.3.4)
GPU_HOURS_BETWEEN_FAILURES = 54 * 24 * 16384 / 419

# A task of a scheduler with many workers: about a millisecond, assumed; half to hand it out, half for its result
CLUSTER_SCHEDULER = Scheduler(hand_out=5e-4, take_in=5e-4, renew=60.0)

MODELS = (
    Transformer("1.3 billion", layers=24, width=2048, vocabulary=32000, sequence=4096),
    Transformer("6.6 billion", layers=32, width=4096, vocabulary=32000, sequence=4096),
    Transformer("65 billion", layers=80, width=8192, vocabulary=32000, sequence=4096),
)
BATCH = 1024  # sequences of a step, whatever the number of GPUs
