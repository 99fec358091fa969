"""What the server of processes imports and runs once, so that each process need not."""

import parallel_cases
import torch.distributed.tensor

assert torch.distributed.tensor
for function in ("psum", "norm"):  # torch imports its rules for derivatives when they are first used
    parallel_cases.run_stacks(parallel_cases.over_members, function, parallel_cases.STACKS, 2)
