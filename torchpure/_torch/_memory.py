"""Who uses the memory of a tensor."""

from torch._C import _storage_Use_Count as storage_use_count
