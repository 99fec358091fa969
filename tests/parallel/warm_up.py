"""What the server of processes imports and runs once, so that each process need not."""

import parallel_cases
import torch
import torch.distributed.tensor

import torchpure as tp

assert torch.distributed.tensor and parallel_cases
tp.jvp(torch.sin, (parallel_cases.W,), (parallel_cases.W,))  # torch compiles its forward rules
tp.make_graph(tp.grad(lambda x: x.sin().sum()))(parallel_cases.W)
