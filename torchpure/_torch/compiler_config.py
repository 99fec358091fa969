"""The settings of torch's compiler, without the compiler: import them in the function that needs them."""

from torch._functorch import config as functorch_config
from torch._inductor import config as inductor_config
